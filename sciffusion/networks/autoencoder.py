"""A convolutional autoencoder with a Gaussian code: fields of any rank and size to a latent field, or to one vector.

Levels are the UNet's, without skips: level l holds ceil(size / 2^l) cells of each axis. With ``shortcuts`` every change
of level carries cells into channels and back beside its convolution (Chen et al. 2025, DC-AE, arXiv:2410.10733), which
is what makes high compression trainable.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.boundary import Boundary
from sciffusion.errors import SciffusionError
from sciffusion.networks.blocks import PreservingBlock, Stack
from sciffusion.networks.bounded import Bounded
from sciffusion.networks.layers import Conv, Linear, upsample
from sciffusion.networks.mlp import summary
from sciffusion.networks.patches import fold, unfold
from sciffusion.stage_settings import AutoencoderSettings

__all__ = ["Autoencoder"]

SPREAD = (-20.0, 10.0)  # log variances of the code are kept within


class Autoencoder(Bounded):
    """``encode`` fields (batch, channel, *grid) to the mean and log variance of the code, ``decode`` a code.

    The code is (batch, latent, *ceil(grid / factor)), or (batch, vector, 1) where ``settings.vector`` is set. A field
    of several channels has as many times ``settings.latent``: each is compressed as one alone would be.
    """

    def __init__(
        self, channels: int, *, rank: int, boundary: Sequence[Boundary], settings: AutoencoderSettings
    ) -> None:
        super().__init__(rank, boundary)
        self.settings, self.latent = settings, settings.latent * channels
        _check_shortcuts(settings, rank)
        widths = self.widths = [settings.channels * factor for factor in settings.multipliers]
        self.stem = Conv(channels, widths[0], rank, normalised=True)
        self.encoder = nn.ModuleList(self._stack(width) for width in widths)
        self.down = nn.ModuleList(
            Conv(fine, coarse, rank, normalised=True, stride=2) for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(Conv(coarse, fine, rank, normalised=True) for fine, coarse in pairwise(widths))
        self.decoder = nn.ModuleList(self._stack(width) for width in widths)
        self.head = Conv(widths[0], channels, rank, normalised=False)
        self.code: Conv | Linear
        self.start: Conv | Linear
        if settings.vector is None:
            self.code = Conv(widths[-1], 2 * self.latent, rank, kernel=1, normalised=False)
            self.start = Conv(self.latent, widths[-1], rank, kernel=1, normalised=False)
        else:
            summed = widths[-1] * settings.cells**rank
            self.code = Linear(summed, 2 * settings.vector, normalised=False)
            self.start = Linear(settings.vector, summed, normalised=False)

    def _stack(self, width: int) -> Stack:
        settings = self.settings
        return Stack(
            PreservingBlock,
            settings.blocks,
            width,
            self.rank,
            1,
            dropout=settings.dropout,
            norm=True,
            attention=False,
            token_features=0,
        )

    @property
    def factor(self) -> int:
        """Cells of the field per cell of the latent, along each axis."""
        return int(2 ** len(self.down))

    def code_shape(self, size: Sequence[int]) -> tuple[int, ...]:
        """(channel, *grid) of the code of a field of ``size``."""
        if self.settings.vector is not None:
            return (self.settings.vector, 1)
        return (self.latent, *(-(-cells // self.factor) for cells in size))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the code."""
        h, none = self.stem(x, self.boundary), x.new_zeros(len(x), 1)
        for level, blocks in enumerate(self.encoder):
            h = blocks(h, none, self.boundary, None, None)
            if level < len(self.down):
                h = self._change(self.down[level](h, self.boundary), self._folded(h, level))
        if isinstance(self.code, Linear):
            mean, spread = self.code(summary(h, self.settings.cells)).chunk(2, dim=1)
            return mean[..., None], spread[..., None].clamp(*SPREAD)
        mean, spread = self.code(h, self.boundary).chunk(2, dim=1)
        return mean, spread.clamp(*SPREAD)

    def decode(self, code: Tensor, size: Sequence[int]) -> Tensor:
        """The field of ``size``."""
        sizes = [tuple(-(-cells // 2**level) for cells in size) for level in range(len(self.encoder))]
        h, none = self._started(code, sizes[-1]), code.new_zeros(len(code), 1)
        for level in reversed(range(len(sizes))):
            h = self.decoder[level](h, none, self.boundary, None, None)
            if level:
                wide = self.up[level - 1](upsample(h, sizes[level - 1], self.boundary), self.boundary)
                h = self._change(wide, self._unfolded(h, level, sizes[level - 1]))
        answer: Tensor = self.head(F.silu(h), self.boundary)
        return answer

    def _started(self, code: Tensor, size: Sequence[int]) -> Tensor:
        """The coarsest level that the decoder starts from."""
        if not isinstance(self.start, Linear):
            h: Tensor = self.start(code, self.boundary)
            return h
        cells = self.start(code[..., 0]).reshape(len(code), -1, *[self.settings.cells] * self.rank)
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[self.rank]
        return F.interpolate(cells, size=tuple(size), mode=mode)

    def _folded(self, h: Tensor, level: int) -> Tensor | None:
        """Cells carried into channels, and means over groups of these."""
        if not self.settings.shortcuts:
            return None
        cells, out = fold(h, 2, self.boundary), self.widths[level + 1]
        return cells.reshape(len(h), out, -1, *cells.shape[2:]).mean(2)

    def _unfolded(self, h: Tensor, level: int, size: Sequence[int]) -> Tensor | None:
        """Channels repeated and carried back into cells."""
        if not self.settings.shortcuts:
            return None
        out = self.widths[level - 1] * 2**self.rank
        return unfold(h.repeat_interleave(out // h.shape[1], dim=1), 2, size)

    def _change(self, h: Tensor, shortcut: Tensor | None) -> Tensor:
        return h if shortcut is None else torch.add(h, shortcut) / 2**0.5


def _check_shortcuts(settings: AutoencoderSettings, rank: int) -> None:
    """Raise SciffusionError where widths of neighbouring levels do not fit the shortcuts."""
    for fine, coarse in pairwise(settings.multipliers):
        if settings.shortcuts and (fine * 2**rank % coarse or coarse > fine * 2**rank):
            raise SciffusionError(
                f"shortcuts need widths that divide: {fine} x {2**rank} cells into {coarse}",
                "choose multipliers that double, or shortcuts: false",
            )
