"""Where within its coarse cell each fine cell lies, axis by axis."""

import numpy as np

from sciffusion.fields.grid import Grid

__all__ = ["phases"]


def phases(fine: Grid, coarse: Grid) -> dict[int, np.ndarray]:
    """Axis -> place (fine n,) of the fine centres in their coarse cell, 0 at its first edge and 1 at its last.

    Axes along which the coarse cells are hardly wider than the fine ones are left out.
    """
    refined = [axis for axis in range(fine.rank) if coarse.spacing[axis] > 1.5 * fine.spacing[axis]]
    return {axis: _phase(fine, coarse, axis) for axis in refined}


def _phase(fine: Grid, coarse: Grid, axis: int) -> np.ndarray:
    edges, points = coarse.axis_bounds(axis), fine.positions(axis)
    period = coarse.period(axis)
    if period is not None:
        low = edges.min()
        points = low + np.mod(points - low, period)
    rising = edges if edges[0] < edges[-1] else edges[::-1]
    cell = np.clip(np.searchsorted(rising, points, side="right") - 1, 0, len(rising) - 2)
    place = np.clip((points - rising[cell]) / np.diff(rising)[cell], 0.0, 1.0)
    return np.asarray(place if rising is edges else 1 - place)
