"""A diffusion transformer with adaLN-Zero (Peebles & Xie 2023, arXiv:2212.09748) for grids of rank 1 to 3, any size.

Patches carry rotary positions, periodic where the grid is; attention is global or in shifted windows; tokens of the
context enter by cross-attention. Across poles only the patches' own padding reaches; attention sees both sides anyway.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.boundary import Boundary
from sciffusion.context import Context
from sciffusion.errors import SciffusionError
from sciffusion.networks.attention import TokenAttention, attend_heads, unit
from sciffusion.networks.blocks import Embedding
from sciffusion.networks.bounded import Bounded
from sciffusion.networks.inputs import gather
from sciffusion.networks.layers import Fourier, Linear, bake
from sciffusion.networks.patches import fold, unfold
from sciffusion.networks.positions import rotate, turns
from sciffusion.networks.windows import Windows
from sciffusion.stage_settings import DiTSettings

__all__ = ["DiT"]


class DiT(Bounded):
    """Transformer over patches of cells.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the field and of the answer.
    rank
        Number of grid axes, 1 to 3.
    boundary
        One name per grid axis; may be reassigned at any time.
    context_channels, vector_features, token_features
        Channels, features and token features of the contexts it will be given.
    late_features
        Levels at the end of the vector, told in waves as the noise level is; they begin without effect.
    settings
        Size.
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
        settings: DiTSettings | None = None,
    ) -> None:
        super().__init__(rank, boundary)
        settings = settings or DiTSettings()
        if settings.width % (2 * settings.heads):
            raise SciffusionError(
                f"width {settings.width} cannot be split into {settings.heads} heads of even width",
                "make width a multiple of 2 x heads",
            )
        self.settings, self.context_channels = settings, context_channels
        cells, width = settings.patch**rank, settings.width
        self.fourier = Fourier(settings.embedding // 2)
        self.embedding = Embedding(
            settings.embedding // 2, vector_features, settings.embedding, normalised=False, late_features=late_features
        )
        self.stem = Linear((in_channels + context_channels + 1) * cells, width, normalised=False)
        self.blocks = nn.ModuleList(
            TransformerBlock(settings, token_features, roundable=index > 0) for index in range(settings.depth)
        )
        self.modulation = Linear(settings.embedding, 2 * width, normalised=False, zero=True)
        self.head = Linear(width, out_channels * cells, normalised=False, zero=True)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Context | None = None) -> Tensor:
        """Answer (batch, out_channels, *grid) to x (batch, in_channels, *grid) at noise label c_noise (batch,).

        The same contract as the UNet's: zero before training, ``cond.valid`` is not read.
        """
        cond = cond or Context()
        embedding = self.embedding(self.fourier(c_noise), cond.vector)
        patches = fold(gather(x, cond, self.context_channels), self.settings.patch, self.boundary)
        size = patches.shape[2:]
        h = self.stem(patches.flatten(2).transpose(1, 2))
        turn = turns(tuple(size), self.boundary, self.settings.width // self.settings.heads, x.device)
        for index, block in enumerate(self.blocks):
            windows = self._windows(tuple(size), shifted=index % 2 == 1)
            h = block(h, embedding, turn, windows, cond.tokens, cond.token_mask)
        scale, shift = self.modulation(embedding).chunk(2, dim=-1)
        answer = self.head(_normal(h, scale, shift)).transpose(1, 2).reshape(h.shape[0], -1, *size)
        return unfold(answer, self.settings.patch, x.shape[2:]).to(x.dtype)

    def bake(self, dtype: torch.dtype | None = None) -> "DiT":
        """Prepare for inference: cache the weights in ``dtype`` (see ``layers.bake``)."""
        bake(self, dtype)
        return self

    def _windows(self, size: tuple[int, ...], shifted: bool) -> Windows | None:
        side = self.settings.window
        return None if side is None or max(size) <= side else Windows(side, size, self.boundary, shifted)


class TransformerBlock(nn.Module):
    """Self-attention, attention to tokens, perceptron; each scaled, shifted and gated by the embedding.

    All gates start at zero, so the block starts as the identity. A ``roundable`` one may have its perceptron, two
    thirds of the weights, rounded to fp8. The attention's factors and the first block are not: the finest scales depend
    on them most (measured: benchmarks/notes.md).
    """

    def __init__(self, settings: DiTSettings, token_features: int, *, roundable: bool = False) -> None:
        super().__init__()
        width, hidden = settings.width, int(settings.mlp_ratio * settings.width)
        self.heads, self.dropout = settings.heads, settings.dropout
        self.modulation = Linear(settings.embedding, 6 * width, normalised=False, zero=True)
        self.project = Linear(width, 3 * width, normalised=False)
        self.out = Linear(width, width, normalised=False)
        self.expand = Linear(width, hidden, normalised=False, roundable=roundable)
        self.contract = Linear(hidden, width, normalised=False, roundable=roundable)
        self.tokens = (
            TokenAttention(width, token_features, settings.heads, normalised=False) if token_features else None
        )

    def forward(
        self,
        x: Tensor,
        embedding: Tensor,
        turn: tuple[Tensor, Tensor],
        windows: Windows | None,
        tokens: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        """Map x (batch, patch, width); ``turn`` from `positions.turns`."""
        scale, shift, gate, scale_2, shift_2, gate_2 = self.modulation(embedding).chunk(6, dim=-1)
        x = torch.addcmul(x, gate[:, None], self._attend(_normal(x, scale, shift), turn, windows))
        if self.tokens is not None and tokens is not None:
            x = x + self.tokens(_normal(x), tokens, mask)
        hidden = F.gelu(self.expand(_normal(x, scale_2, shift_2)), approximate="tanh")
        hidden = F.dropout(hidden, self.dropout, self.training)
        return torch.addcmul(x, gate_2[:, None], self.contract(hidden))

    def _attend(self, x: Tensor, turn: tuple[Tensor, Tensor], windows: Windows | None) -> Tensor:
        batch, patches, width = x.shape
        query, key, value = self.project(x).reshape(batch, patches, 3, self.heads, width // self.heads).unbind(2)
        mask = None
        parts = [rotate(unit(query), turn), rotate(unit(key), turn), value]  # turning keeps the norm
        if windows is not None:
            mask = windows.mask(batch, x.device)
            cut = [windows.cut(part.reshape(batch, *windows.size, width)) for part in parts]
            parts = [part.reshape(*part.shape[:2], self.heads, -1) for part in cut]
        query, key, value = (part.transpose(1, 2) for part in parts)
        answer: Tensor = attend_heads(query, key, value, mask)
        if windows is not None:
            answer = windows.join(answer, batch).reshape(batch, patches, width)
        out: Tensor = self.out(answer)
        return out


def _normal(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Layer norm over features, then (1 + scale) x + shift."""
    x = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return x if scale is None or shift is None else torch.addcmul(shift[:, None], x, 1 + scale[:, None])
