"""Pairs of cells a fixed number of cells apart along one axis: what correlations and increments are made of."""

import numpy as np

__all__ = ["lagged"]


def lagged(values: np.ndarray, axis: int, lag: int, wraps: bool) -> tuple[np.ndarray, np.ndarray]:
    """The first and the second cell of every pair ``lag`` cells apart along ``axis``; ``wraps`` joins the ends."""
    if wraps:
        return values, np.roll(values, -lag, axis)
    n = values.shape[axis]
    return np.take(values, range(n - lag), axis), np.take(values, range(lag, n), axis)
