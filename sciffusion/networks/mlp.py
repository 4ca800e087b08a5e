"""A network for vectors, such as embeddings of fields: residual blocks modulated by the noise level and the conditions.

Conditions on a grid are summarised by their means over a few large cells.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.boundary import Boundary
from sciffusion.context import Context
from sciffusion.networks.blocks import Embedding
from sciffusion.networks.layers import Fourier, Linear
from sciffusion.stage_settings import MLPSettings

__all__ = ["MLP", "summary"]

_POOLS = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def summary(x: Tensor, cells: int) -> Tensor:
    """Means of (batch, channel, *grid) over ``cells`` equal parts of each axis, as (batch, channel * cells^rank)."""
    pooled: Tensor = _POOLS[x.ndim - 2](x, cells)
    return pooled.flatten(1)


class MLP(nn.Module):
    """Vectors (batch, in_channels, 1) to vectors of the same shape; the contract of the other networks.

    ``context_rank`` is the rank of the grid that the context's channels lie on; tokens are averaged. ``late_features``
    levels more at the end of the vector, told in waves, begin without effect.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        rank: int,
        boundary: Sequence[Boundary],
        context_channels: int = 0,
        vector_features: int = 0,
        late_features: int = 0,
        token_features: int = 0,
        context_rank: int = 2,
        settings: MLPSettings | None = None,
    ) -> None:
        super().__init__()
        settings = settings or MLPSettings()
        self.settings, self.boundary, self.context_channels = settings, tuple(boundary), context_channels
        width, given = settings.width, context_channels * settings.cells**context_rank + token_features
        self.fourier = Fourier(settings.embedding // 2)
        self.embedding = Embedding(
            settings.embedding // 2, vector_features, settings.embedding, normalised=False, late_features=late_features
        )
        self.conditions = Linear(given, settings.embedding, normalised=False) if given else None
        self.stem = Linear(in_channels, width, normalised=False)
        self.blocks = nn.ModuleList(_Block(settings) for _ in range(settings.depth))
        self.head = Linear(width, out_channels, normalised=False, zero=True)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Context | None = None) -> Tensor:
        """Answer (batch, out_channels, 1) to x (batch, in_channels, 1) at noise label c_noise (batch,)."""
        cond = cond or Context()
        embedding = self.embedding(self.fourier(c_noise), cond.vector)
        if self.conditions is not None:
            embedding = embedding + self.conditions(self._given(cond))
        h = self.stem(x[..., 0])
        for block in self.blocks:
            h = block(h, embedding)
        answer: Tensor = self.head(F.silu(F.layer_norm(h, h.shape[-1:])))
        return answer[..., None].to(x.dtype)

    def _given(self, cond: Context) -> Tensor:
        parts = [] if cond.channels is None else [summary(cond.channels, self.settings.cells)]
        if cond.tokens is not None:
            mask = torch.ones_like(cond.tokens[..., :1]) if cond.token_mask is None else cond.token_mask[..., None]
            parts.append((cond.tokens * mask).sum(1) / mask.sum(1).clamp(min=1))
        return torch.cat(parts, dim=1)


class _Block(nn.Module):
    """Norm, modulation, perceptron; starts as the identity."""

    def __init__(self, settings: MLPSettings) -> None:
        super().__init__()
        width = settings.width
        self.modulation = Linear(settings.embedding, 3 * width, normalised=False, zero=True)
        self.expand = Linear(width, 2 * width, normalised=False)
        self.contract = Linear(2 * width, width, normalised=False)
        self.dropout = settings.dropout

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (batch, width)."""
        scale, shift, gate = self.modulation(embedding).chunk(3, dim=-1)
        h = torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)
        h = F.dropout(F.silu(self.expand(h)), self.dropout, self.training)
        return torch.addcmul(x, gate, self.contract(h))
