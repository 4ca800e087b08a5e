"""Cutting a grid of patches into attention windows and putting it together again, in any rank and for any size.

Every other block shifts the windows by half (Liu et al. 2021, arXiv:2103.14030): along periodic axes by rolling, so
that windows lie across the seam; along others by starting with half a window, so that nothing far apart meets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sciffusion.boundary import Boundary

__all__ = ["Windows"]


@dataclass(frozen=True)
class Windows:
    """Windows of ``side`` patches over a grid of ``size`` patches; ``shifted`` moves them by half a side."""

    side: int
    size: tuple[int, ...]
    boundary: tuple[Boundary, ...]
    shifted: bool

    @property
    def sides(self) -> tuple[int, ...]:
        """Side per axis: an axis shorter than a window is one window."""
        return tuple(min(self.side, cells) for cells in self.size)

    def cut(self, x: Tensor) -> Tensor:
        """(batch, *size, feature) to (batch * windows, side^rank, feature); what lies outside the grid is zero."""
        x = x.roll([-roll for roll in self._rolls], self._axes)
        widths = [width for before, after in reversed(self._widths) for width in (before, after)]
        x = F.pad(x, [0, 0, *widths])
        rank = len(self.size)
        split = [part for count, side in zip(self._counts, self.sides, strict=True) for part in (count, side)]
        x = x.reshape(x.shape[0], *split, x.shape[-1])
        order = [0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1]
        return x.permute(order).reshape(-1, math.prod(self.sides), x.shape[-1])

    def join(self, x: Tensor, batch: int) -> Tensor:
        """Invert `cut`."""
        rank = len(self.size)
        x = x.reshape(batch, *self._counts, *self.sides, x.shape[-1])
        order = [0, *(dim for axis in range(1, rank + 1) for dim in (axis, axis + rank)), 2 * rank + 1]
        whole = [count * side for count, side in zip(self._counts, self.sides, strict=True)]
        x = x.permute(order).reshape(batch, *whole, x.shape[-1])
        for axis, (before, _) in enumerate(self._widths):
            x = x.narrow(axis + 1, before, self.size[axis])
        return x.roll(self._rolls, self._axes)

    def mask(self, batch: int, device: torch.device) -> Tensor | None:
        """Bool (batch * windows, side^rank), True for patches on the grid; None where windows tile it."""
        if all(width == (0, 0) for width in self._widths):
            return None
        return self.cut(torch.ones(batch, *self.size, 1, device=device))[..., 0] > 0

    @property
    def _axes(self) -> list[int]:
        return list(range(1, len(self.size) + 1))

    @property
    def _shifts(self) -> list[int]:
        """Half a side where there is more than one window."""
        return [
            side // 2 if self.shifted and side < cells else 0 for side, cells in zip(self.sides, self.size, strict=True)
        ]

    @property
    def _rolls(self) -> list[int]:
        return [shift if name == "periodic" else 0 for shift, name in zip(self._shifts, self.boundary, strict=True)]

    @property
    def _widths(self) -> list[tuple[int, int]]:
        """Patches added before and after each axis, so that windows tile it."""
        before = [0 if name == "periodic" else shift for shift, name in zip(self._shifts, self.boundary, strict=True)]
        return [(b, -(cells + b) % side) for b, cells, side in zip(before, self.size, self.sides, strict=True)]

    @property
    def _counts(self) -> Sequence[int]:
        padded = [cells + sum(widths) for cells, widths in zip(self.size, self._widths, strict=True)]
        return [cells // side for cells, side in zip(padded, self.sides, strict=True)]
