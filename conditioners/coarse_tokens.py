"""A coarse field as tokens, one per patch of the fine grid: for cross-attention, which reaches the whole domain.

Tokens are made of the interpolated field on the device, so windows and symmetries act on them as on channels. Each
knows its place by sinusoids along every axis.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sciffusion import config
from sciffusion.conditioners.coarse import CoarseField
from sciffusion.conditioners.coarse_source import CoarseSource
from sciffusion.conditioners.tokens import Tokens
from sciffusion.context import Context
from sciffusion.fields.grid import Grid
from sciffusion.networks.patches import fold

__all__ = ["CoarseTokens"]

WAVES = 2  # frequencies per axis of a token's place


class CoarseTokens(CoarseField):
    """The coarse condition's channels folded into patches; gives no channels itself."""

    kind: ClassVar[str] = "coarse-tokens"
    settings_type: ClassVar[type[config.Settings]] = config.CoarseTokens
    settings: config.CoarseTokens

    def __init__(self, name: str, settings: config.CoarseTokens, grid: Grid, source: CoarseSource) -> None:
        super().__init__(name, settings, grid, source)
        features = self.channels * settings.patch**grid.rank + 2 * WAVES * grid.rank
        self.channels, self.null_channels, self.tokens = 0, None, settings.width
        self.embed = Tokens(features, settings.width)

    def forward(self, inputs: Mapping[str, Tensor], keep: Tensor) -> Context:
        """Tokens of a batch, in C order of the patches."""
        x = inputs["channels"]
        column = (-1, *[1] * (x.ndim - 2))
        x = (x - self.offset.reshape(column)) / self.scale.reshape(column)
        patches = fold(x, self.settings.patch, ["reflect"] * (x.ndim - 2))
        place = _place(patches).expand(len(x), -1, *patches.shape[2:])
        features = torch.cat([patches, place], dim=1).flatten(2).transpose(1, 2)
        every = torch.ones(features.shape[:2], dtype=torch.bool, device=x.device)
        context: Context = self.embed(features, every, keep)
        return context


def _place(patches: Tensor) -> Tensor:
    """Sinusoids of each patch's place, (1, feature, *patches)."""
    rank, parts = patches.ndim - 2, []
    for axis, size in enumerate(patches.shape[2:]):
        turn = torch.arange(size, device=patches.device, dtype=patches.dtype) * (2 * math.pi / size)
        shape = [size if other == axis else 1 for other in range(rank)]
        for wave in range(1, WAVES + 1):
            parts += [(wave * turn).cos().reshape(shape), (wave * turn).sin().reshape(shape)]
    return torch.stack([part.expand(patches.shape[2:]) for part in parts])[None]
