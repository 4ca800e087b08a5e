"""The continuous ranked probability score of an ensemble, per cell, whatever its size, missing members included.

Notation: members ``x_1 ... x_m``, truth ``y``, deviations ``d_i = x_i - y`` sorted upwards. With

    A = 1/m sum_i |d_i|,     B = sum_i (2i - m - 1) d_(i) = 1/2 sum_ij |x_i - x_j|                        (1)

    fair         A - B / (m (m - 1))       unbiased for any m (Ferro 2014, doi:10.1002/qj.2270)
    standard     A - B / m^2               the score of the m-member empirical distribution
    almost fair  a fair + (1 - a) standard (Lang et al. 2024, arXiv:2412.15832, equation 4)

The truth is subtracted first, so a large mean costs no digits; sums are float64; cells are sorted in blocks, so the
memory beyond the data does not grow with the domain.
"""

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np

from sciffusion.errors import SciffusionError

__all__ = ["ESTIMATORS", "Estimator", "cell_blocks", "crps", "threshold_weighted_crps"]

Estimator = Literal["fair", "standard", "almost fair"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
BLOCK_VALUES = 1 << 18  # values sorted at a time: fits the second-level cache


def crps(members: np.ndarray, truth: np.ndarray, estimator: Estimator = "fair", *, alpha: float = 0.95) -> np.ndarray:
    """Score every cell: ``members`` (member, *grid), ``truth`` (*grid) -> float64 (*grid), in the units of the truth.

    A NaN member is left out of its cell. The answer is NaN where the truth is, where no member is left, and, for the
    fair estimators, where fewer than two are. ``alpha`` is the fair share of the almost fair score.
    """
    if estimator not in ESTIMATORS:
        raise SciffusionError(f"no CRPS estimator is called {estimator!r}", f"use one of {', '.join(ESTIMATORS)}")
    flat, y = members.reshape(len(members), -1), truth.reshape(-1)
    score = np.empty(y.size)
    for cells in cell_blocks(y.size, len(members)):
        score[cells] = _score(flat[:, cells], y[cells], estimator, alpha)
    return score.reshape(truth.shape)


def threshold_weighted_crps(
    members: np.ndarray, truth: np.ndarray, threshold: float, *, upper: bool = True
) -> np.ndarray:
    """Fair CRPS of one side of a threshold only, by the chaining v(x) = max(x, t) (Gneiting & Ranjan 2011)."""
    clip = np.maximum if upper else np.minimum
    return crps(clip(members, threshold), clip(truth, threshold))


def cell_blocks(cells: int, members: int) -> Iterator[slice]:
    """Slices of cells that hold about ``BLOCK_VALUES`` values of all members together."""
    step = max(1, BLOCK_VALUES // max(members, 1))
    return (slice(start, min(start + step, cells)) for start in range(0, cells, step))


def _score(x: np.ndarray, y: np.ndarray, estimator: Estimator, alpha: float) -> np.ndarray:
    d = np.ascontiguousarray((x - y).T)
    d.sort(axis=1)  # NaN sorts last
    error, spread, m = _sums(d)
    fair_share = {"fair": 1.0, "standard": 0.0, "almost fair": alpha}[estimator]
    with np.errstate(invalid="ignore", divide="ignore"):
        score = error / m - (1 - fair_share) * spread / m**2
        return np.asarray(score - fair_share * spread / (m * (m - 1)) if fair_share else score)


def _sums(d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum of |d|, B of (1), and m, of the sorted deviations (cell, member)."""
    size = d.shape[1]
    rank = np.arange(1.0, size + 1)
    if not np.isnan(d[:, -1]).any():
        m = np.full(len(d), float(size))
        return np.abs(d).sum(axis=1, dtype=np.float64), d @ (2 * rank - size - 1), m
    missing = np.isnan(d)
    m = size - missing.sum(axis=1, dtype=np.float64)
    d = np.where(missing, 0, d)
    return np.abs(d).sum(axis=1, dtype=np.float64), 2 * (d @ rank) - (m + 1) * d.sum(axis=1, dtype=np.float64), m
