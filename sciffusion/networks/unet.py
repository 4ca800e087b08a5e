"""A UNet for fields on grids of rank 1 to 3, any size, any boundary.

Level l holds cells 0, 2^l, 2 * 2^l, ... of each axis (ceil(size / 2^l) of them), and upsampling goes to the skip's
size; so no axis is padded to a multiple, poles stay on the grid, and on a periodic axis whose size is a multiple of the
total stride the network commutes exactly with shifts by that stride.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.boundary import Boundary
from sciffusion.context import Context
from sciffusion.errors import SciffusionError
from sciffusion.networks.blocks import ClassicBlock, Embedding, PreservingBlock, Stack
from sciffusion.networks.bounded import Bounded
from sciffusion.networks.inputs import gather
from sciffusion.networks.layers import Conv, Fourier, bake, lengthen, upsample
from sciffusion.networks.patches import fold, unfold
from sciffusion.stage_settings import UNetSettings

__all__ = ["UNet"]

# Inputs of a row up to which it is turned at the full learning rate (see `lengthen`): 3 x 3 cells of 128 channels. A
# third of it where no norm bounds what layers amplify one after the other: there wide networks diverged
# (benchmarks/notes.md).
INPUTS, INPUTS_WITHOUT_NORM = 1152, 384


class UNet(Bounded):
    """Encoder and decoder of residual blocks with one skip per level.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the field and of the answer.
    rank
        Number of grid axes, 1 to 3.
    boundary
        One name per grid axis; may be reassigned at any time (training on windows uses "reflect" on cut axes).
    context_channels, vector_features, token_features
        Channels, features and token features of the contexts it will be given. Tokens need ``settings.attention``.
    late_features
        Levels at the end of the vector, told in waves as the noise level is; they begin without effect.
    settings
        Size and style.
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
        settings: UNetSettings | None = None,
    ) -> None:
        super().__init__(rank, boundary)
        settings = settings or UNetSettings()
        self.settings = settings
        self.context_channels = context_channels
        preserving = settings.style == "magnitude-preserving"
        widths = [settings.channels * factor for factor in settings.multipliers]
        attention = _attention(settings, token_features)
        cells = settings.patch**rank

        def conv(channels: int, out: int, **options: Any) -> Conv:
            return Conv(channels, out, rank, normalised=preserving, **options)

        def stack(level: int, norm: bool) -> Stack:
            return Stack(
                PreservingBlock if preserving else ClassicBlock,
                settings.blocks,
                widths[level],
                rank,
                settings.embedding,
                dropout=settings.dropout,
                norm=norm,
                attention=level in attention,
                token_features=token_features,
            )

        self.fourier = Fourier(settings.embedding // 2)
        self.embedding = Embedding(
            settings.embedding // 2, vector_features, settings.embedding, preserving, late_features
        )
        self.stem = conv((in_channels + context_channels + 1) * cells, widths[0])
        self.encoder = nn.ModuleList(stack(level, norm=True) for level in range(len(widths)))
        self.down = nn.ModuleList(conv(fine, coarse, stride=2) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(conv(coarse, fine, kernel=1) for fine, coarse in pairwise(widths))
        self.merge = nn.ModuleList(conv(2 * width, width, kernel=1) for width in widths[:-1])
        self.decoder = nn.ModuleList(stack(level, norm=False) for level in range(len(widths) - 1))
        self.head = Conv(widths[0], out_channels * cells, rank, normalised=False, zero=True)
        lengthen(self, INPUTS)
        for part in (self.up, self.merge, self.decoder):
            lengthen(part, INPUTS_WITHOUT_NORM)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Context | None = None) -> Tensor:
        """Answer (batch, out_channels, *grid) to x (batch, in_channels, *grid) at noise label c_noise (batch,).

        ``cond.channels`` join the input, ``cond.vector`` the embedding, ``cond.tokens`` the attention; ``cond.valid``
        is not read here. The answer is zero before training.
        """
        cond = cond or Context()
        embedding = self.embedding(self.fourier(c_noise), cond.vector)
        size = x.shape[2:]
        h = self.stem(fold(gather(x, cond, self.context_channels), self.settings.patch, self.boundary), self.boundary)
        skips = []
        for level, blocks in enumerate(self.encoder):
            h = blocks(h, embedding, self.boundary, cond.tokens, cond.token_mask)
            if level < len(self.down):
                skips.append(h)
                h = self.down[level](h, self.boundary)
        for level in reversed(range(len(self.down))):
            skip = skips[level]
            h = upsample(self.up[level](h, self.boundary), skip.shape[2:], self.boundary)
            h = self.merge[level](torch.cat([h, skip], dim=1), self.boundary)
            h = self.decoder[level](h, embedding, self.boundary, cond.tokens, cond.token_mask)
        answer = unfold(self.head(F.silu(h), self.boundary), self.settings.patch, size)
        return answer.to(x.dtype)

    def bake(self, dtype: torch.dtype | None = None) -> "UNet":
        """Prepare for inference: cache the normalised weights (see ``layers.bake``)."""
        bake(self, dtype)
        return self


def _attention(settings: UNetSettings, token_features: int) -> list[int]:
    """The levels with attention, counted from the outermost."""
    levels = len(settings.multipliers)
    if any(level not in range(-levels, levels) for level in settings.attention):
        raise SciffusionError(
            f"attention at levels {settings.attention}, but the UNet has levels 0 to {levels - 1}",
            "list levels below the number of multipliers",
        )
    if token_features and not settings.attention:
        raise SciffusionError(
            "a condition gives tokens, and the UNet has no attention to read them",
            "set network.attention, for example to [-1], the innermost level",
        )
    return [level % levels for level in settings.attention]
