"""Residual blocks of the UNet in its two styles, with the same signature."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.boundary import Boundary
from sciffusion.networks.attention import Attention
from sciffusion.networks.layers import SILU_RMS, Conv, Fourier, Linear, pixel_norm, sum_weights

__all__ = ["ClassicBlock", "Embedding", "PreservingBlock", "Stack"]

SHARE = 0.3  # of the branch in the residual sum (EDM2, section 3)


class Embedding(nn.Module):
    """Noise level and vector of the context to one embedding (batch, width).

    The last ``late_features`` of the vector begin without effect: a student that is told more than its teacher was
    starts as the teacher, and rows that start at zero cannot be normalised, for they would be of unit norm after one
    step. They tell of levels, and become ``features`` waves each, as the noise level does: of numbers as they are, the
    network learns to tell far levels apart, no near ones.
    """

    def __init__(
        self, features: int, vector_features: int, width: int, normalised: bool, late_features: int = 0
    ) -> None:
        super().__init__()
        self.noise = Linear(features, width, normalised)
        self.vector = Linear(vector_features, width, normalised) if vector_features else None
        self.fourier = Fourier(features)
        self.late = Linear(late_features * features, width, normalised=False, zero=True) if late_features else None
        self.features = vector_features
        self.gain = 1 / SILU_RMS if normalised else 1.0
        self.mix = Linear(width, width, normalised, gain=self.gain)

    def forward(self, features: Tensor, vector: Tensor | None) -> Tensor:
        """``features`` (batch, feature) of the noise level, ``vector`` (batch, vector feature)."""
        x = self.noise(features)
        if self.vector is not None and vector is not None:
            keep, share = sum_weights(0.5)
            x = torch.add(x * keep, self.vector(vector[:, : self.features].to(x.dtype)), alpha=share)
        if self.late is not None and vector is not None:
            x = x + self.late(self.fourier(vector[:, self.features :]).flatten(1).to(x.dtype))
        return F.silu(self.mix(F.silu(x))) * self.gain


class PreservingBlock(nn.Module):
    """EDM2's residual block: no normalisation but that of each cell's channels, on the way down only.

    The modulation by the embedding starts at one: its weights start at zero.
    """

    def __init__(self, channels: int, rank: int, embedding: int, dropout: float, norm: bool) -> None:
        super().__init__()
        self.keep, share = sum_weights(SHARE)
        self.first = Conv(channels, channels, rank, normalised=True, gain=1 / SILU_RMS)
        self.second = Conv(channels, channels, rank, normalised=True, gain=share / SILU_RMS)
        self.modulation = Linear(embedding, channels, normalised=False, zero=True)
        self.dropout, self.norm = dropout, norm

    def forward(self, x: Tensor, embedding: Tensor, boundary: Sequence[Boundary]) -> Tensor:
        """Map x (batch, channel, *grid), embedding (batch, embedding)."""
        if self.norm:
            x = pixel_norm(x)
        y = self.first(F.silu(x), boundary)
        y = F.silu(y * _per_cell(1 + self.modulation(embedding), y))
        y = F.dropout(y, self.dropout, self.training)
        return torch.add(self.second(y, boundary), x, alpha=self.keep)


class ClassicBlock(nn.Module):
    """ADM's residual block: group norm, SiLU, convolution, twice, with scale and shift by the embedding.

    ``norm`` is ignored: both norms are always there. The second convolution starts at zero.
    """

    def __init__(self, channels: int, rank: int, embedding: int, dropout: float, norm: bool) -> None:
        super().__init__()
        groups = next(count for count in (32, 16, 8, 4, 2, 1) if channels % count == 0 and channels >= 4 * count)
        self.norms = nn.ModuleList([nn.GroupNorm(groups, channels), nn.GroupNorm(groups, channels)])
        self.first = Conv(channels, channels, rank, normalised=False)
        self.second = Conv(channels, channels, rank, normalised=False, zero=True)
        self.modulation = Linear(embedding, 2 * channels, normalised=False, zero=True)
        self.dropout = dropout

    def forward(self, x: Tensor, embedding: Tensor, boundary: Sequence[Boundary]) -> Tensor:
        """Map x (batch, channel, *grid), embedding (batch, embedding)."""
        y = self.first(F.silu(self.norms[0](x)), boundary)
        scale, shift = (_per_cell(part, y) for part in self.modulation(embedding).chunk(2, dim=1))
        y = F.silu(torch.addcmul(shift, self.norms[1](y), 1 + scale))
        y = F.dropout(y, self.dropout, self.training)
        out: Tensor = x + self.second(y, boundary)
        return out


Block = PreservingBlock | ClassicBlock


def _per_cell(values: Tensor, like: Tensor) -> Tensor:
    """(batch, channel) to (batch, channel, 1, ...), in the precision of ``like``."""
    return values.to(like.dtype).reshape(*values.shape, *[1] * (like.ndim - 2))


class Stack(nn.Module):
    """Blocks of one level, each followed by attention where the level has it."""

    def __init__(
        self,
        block: type[Block],
        count: int,
        channels: int,
        rank: int,
        embedding: int,
        *,
        dropout: float,
        norm: bool,
        attention: bool,
        token_features: int,
    ) -> None:
        super().__init__()
        normalised = block is PreservingBlock
        self.blocks = nn.ModuleList(block(channels, rank, embedding, dropout, norm) for _ in range(count))
        self.attention = nn.ModuleList(
            Attention(channels, token_features, normalised) for _ in range(count if attention else 0)
        )

    def forward(
        self, x: Tensor, embedding: Tensor, boundary: Sequence[Boundary], tokens: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Map x (batch, channel, *grid); tokens (batch, token, feature) and their mask reach the attention."""
        for index, block in enumerate(self.blocks):
            x = block(x, embedding, boundary)
            if self.attention:
                x = self.attention[index](x, tokens, mask)
        return x
