"""Filling the gaps of a coarse field before it is interpolated, by a rule that looks no further than two cells.

A local rule gives the same values in a window as in the whole field, as long as the window is read with `MARGIN`
cells around it.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import correlate1d

__all__ = ["MARGIN", "fill", "widened"]

MARGIN = 2  # cells: as far as the stencil of cubic interpolation reaches beyond the cell that a point lies in


def fill(x: np.ndarray, default: np.ndarray) -> np.ndarray:
    """Replace NaN of ``x`` (channel, *grid): twice by the mean of the neighbours that exist, then by ``default``."""
    rank = x.ndim - 1
    for _ in range(MARGIN):
        present = np.isfinite(x)
        if present.all():
            return x
        count = _around(present.astype(np.float64))
        mean = _around(np.where(present, x, 0.0)) / np.maximum(count, 1)
        x = np.where(present, x, np.where(count > 0, mean, np.nan))
    return np.where(np.isfinite(x), x, default.reshape(-1, *[1] * rank))


def _around(x: np.ndarray) -> np.ndarray:
    """Sums over 3 cells along each grid axis; plain sums, so that each depends on its neighbours' bits only."""
    for axis in range(1, x.ndim):
        x = correlate1d(x, np.ones(3), axis=axis, mode="constant")
    return x


def widened(window: Sequence[slice], shape: Sequence[int]) -> tuple[slice, ...]:
    """The window with `MARGIN` more cells on each side, as far as the grid goes."""
    return tuple(
        slice(max(0, cut.start - MARGIN), min(size, cut.stop + MARGIN)) for cut, size in zip(window, shape, strict=True)
    )
