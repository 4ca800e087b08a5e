"""Where a fine cell lies in the coarse grid, and the coarse values around it, as predictors of a linear regression.

Per axis, ``parent`` is the coarse cell that contains the fine cell's centre and ``phase`` numbers its place within it.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from sciffusion.fields.grid import Grid

__all__ = ["Stencil"]

BAND = 15.0  # degrees of latitude of a group of cells


@dataclass(frozen=True)
class Stencil:
    """The coarse cells around every fine cell, up to ``reach`` away along each axis.

    parents, phases : one integer array per grid axis, over its fine cells; wraps : whether the axis is periodic.
    """

    parents: tuple[np.ndarray, ...]
    phases: tuple[np.ndarray, ...]
    wraps: tuple[bool, ...]

    @property
    def reach(self) -> int:
        """2 (25 cells on a plane); 1 in boxes, where 125 predictors would cost more than they explain."""
        return 2 if len(self.parents) < 3 else 1

    @classmethod
    def between(cls, fine: Grid, coarse: Grid) -> "Stencil":
        """The stencil of ``coarse`` around the cells of ``fine``; both cover the same domain."""
        places = [_locate(fine.positions(i), coarse.axis_bounds(i), coarse.periodic[i]) for i in range(fine.rank)]
        return cls(tuple(p for p, _ in places), tuple(q for _, q in places), coarse.periodic)

    @property
    def shape(self) -> tuple[int, ...]:
        """Fine grid shape."""
        return tuple(len(parent) for parent in self.parents)

    def positions(self) -> np.ndarray:
        """Number of the place within the coarse cell, (*grid), 0 ... count - 1."""
        counts = tuple(int(phase.max()) + 1 for phase in self.phases)
        return np.asarray(np.ravel_multi_index(tuple(np.meshgrid(*self.phases, indexing="ij")), counts))

    def groups(self, grid: Grid, surface: np.ndarray | None = None) -> np.ndarray:
        """Number of each cell's group (*grid): place within the coarse cell, band of latitude, land or sea.

        Cells of a group share what is measured of errors; ``surface`` (*grid) numbers land and sea where data tell.
        """
        parts = [self.positions()]
        if grid.latitude_axis is not None:
            rows = ((90 + grid.positions(grid.latitude_axis)) / BAND).astype(int)
            shape = [1] * grid.rank
            shape[grid.latitude_axis] = -1
            parts.append(np.broadcast_to(rows.reshape(shape), grid.shape))
        if surface is not None:
            parts.append(surface)
        stacked = np.stack([np.broadcast_to(part, grid.shape).ravel() for part in parts])
        return np.unique(stacked, axis=1, return_inverse=True)[1].reshape(grid.shape)

    def predictors(self, coarse: np.ndarray) -> np.ndarray:
        """Predictors of every fine cell from ``coarse`` (channel, *coarse grid): (predictor, *grid).

        A constant, the parent's value, and the differences of its neighbours to it. Missing values count as 0.
        """
        centre = self._gather(coarse, (0,) * len(self.parents))
        around = [
            self._gather(coarse, offset) - centre
            for offset in product(range(-self.reach, self.reach + 1), repeat=len(self.parents))
            if any(offset)
        ]
        stacked = np.concatenate([np.ones((1, *self.shape)), centre, *around])
        filled: np.ndarray = np.nan_to_num(stacked, copy=False)
        return filled

    def _gather(self, coarse: np.ndarray, offset: tuple[int, ...]) -> np.ndarray:
        for axis, (parent, step) in enumerate(zip(self.parents, offset, strict=True), start=1):
            size = coarse.shape[axis]
            index = parent + step
            index = index % size if self.wraps[axis - 1] else index.clip(0, size - 1)
            coarse = np.take(coarse, index, axis=axis)
        return coarse


def _locate(centres: np.ndarray, edges: np.ndarray, periodic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Parent and phase of each fine centre along one axis."""
    ascending = edges if edges[0] < edges[-1] else edges[::-1]
    if periodic:
        centres = ascending[0] + (centres - ascending[0]) % (ascending[-1] - ascending[0])
    parent = (np.searchsorted(ascending, centres, side="right") - 1).clip(0, len(edges) - 2)
    if ascending is not edges:
        parent = len(edges) - 2 - parent
    phase = np.zeros(len(centres), dtype=np.int64)
    for cell in np.unique(parent):
        inside = parent == cell
        phase[inside] = np.arange(inside.sum())
    return parent, phase
