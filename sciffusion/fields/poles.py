"""Rows of cells at a pole: many values of an array, one point of the sphere."""

from collections.abc import Sequence

import numpy as np

from sciffusion.fields.grid import Grid

__all__ = ["averaged", "is_single", "pole_rows"]


def pole_rows(grid: Grid, window: Sequence[slice] | None = None) -> dict[int, tuple[slice, ...]]:
    """Grid index of the (0: first, 1: last) row that lies at a pole, within a window that goes round the circle."""
    latitude, longitude = grid.latitude_axis, grid.longitude_axis
    if latitude is None or longitude is None:
        return {}
    cuts = [slice(None)] * grid.rank if window is None else list(window)
    rows, columns = (range(*cuts[axis].indices(grid.shape[axis])) for axis in (latitude, longitude))
    if len(columns) < grid.shape[longitude]:
        return {}
    found = {}
    for end, row in ((0, 0), (1, grid.shape[latitude] - 1)):
        if grid.has_pole_rows[end] and row in rows:
            index = [slice(None)] * grid.rank
            index[latitude] = slice(row - rows.start, row - rows.start + 1)
            found[end] = tuple(index)
    return found


def averaged(x: np.ndarray, grid: Grid) -> np.ndarray:
    """Mean along longitude of pole rows (..., *row), in the shape of the row; NaN is left out, unless all are."""
    axis = (grid.longitude_axis or 0) - grid.rank
    present = ~np.isnan(x)
    count = present.sum(axis=axis, keepdims=True)
    mean = np.where(present, x, 0).sum(axis=axis, keepdims=True) / np.where(count, count, np.nan)
    return np.broadcast_to(mean, x.shape)


def is_single(x: np.ndarray, grid: Grid) -> np.ndarray:
    """Bool (channel,): whether pole rows (channel, *row) have one value per circle, but for rounding."""
    spread = np.abs(x - averaged(x, grid))
    spread, size = (np.nan_to_num(values).reshape(len(x), -1).max(axis=1) for values in (spread, np.abs(x)))
    single: np.ndarray = spread <= 2e-6 * size
    return single
