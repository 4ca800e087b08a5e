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
from sciffusion.evaluation.backend import NUMPY, Array, Backend
from sciffusion.evaluation.spool import Members, columns

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "cell_blocks",
    "check_estimator",
    "crps",
    "pair_mean",
    "sorted_sums",
    "threshold_weighted_crps",
]

Estimator = Literal["fair", "standard", "almost fair"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


def crps(
    members: Members | Array,
    truth: Array,
    estimator: Estimator = "fair",
    *,
    alpha: float = 0.95,
    backend: Backend = NUMPY,
) -> Array:
    """Score every cell: ``members`` (member, *grid), ``truth`` (*grid) -> float64 (*grid), in the units of the truth.

    Tensors on the backend's device are scored there and give a tensor.

    A NaN member is left out of its cell. The answer is NaN where the truth is, where no member is left, and, for the
    fair estimators, where fewer than two are. ``alpha`` is the fair share of the almost fair score.
    """
    check_estimator(estimator)
    fair_share = {"fair": 1.0, "standard": 0.0, "almost fair": alpha}[estimator]
    y = truth.reshape(-1)
    score = backend.blank(truth, len(y))
    for cells in cell_blocks(len(y), len(members), backend):
        rows = backend.rows_sorted(backend.array(columns(members, cells)) - backend.array(y[cells]))
        error, spread, m = sorted_sums(rows, backend)
        score[cells] = backend.back(_combined(error, spread, m, fair_share), truth)
    return score.reshape(truth.shape)


def threshold_weighted_crps(
    members: np.ndarray, truth: np.ndarray, threshold: float, *, upper: bool = True, backend: Backend = NUMPY
) -> Array:
    """Fair CRPS of one side of a threshold only, by the chaining v(x) = max(x, t) (Gneiting & Ranjan 2011)."""
    clip = np.maximum if upper else np.minimum
    return crps(clip(members, threshold), clip(truth, threshold), backend=backend)


def check_estimator(estimator: str) -> None:
    """Raise SciffusionError unless there is such an estimator."""
    if estimator not in ESTIMATORS:
        raise SciffusionError(f"no CRPS estimator is called {estimator!r}", f"use one of {', '.join(ESTIMATORS)}")


def cell_blocks(cells: int, members: int, backend: Backend = NUMPY) -> Iterator[slice]:
    """Slices of cells that hold about ``backend.values`` values of all members together."""
    step = max(1, backend.values // max(members, 1))
    return (slice(start, min(start + step, cells)) for start in range(0, cells, step))


def _combined(error: Array, spread: Array, m: Array, fair_share: float) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        score = error / m - (1 - fair_share) * spread / m**2
        return score - fair_share * pair_mean(spread, m) if fair_share else score


def pair_mean(spread: Array, m: Array) -> Array:
    """Half the mean distance of two different members; NaN (0/0) where there are not two."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return spread / (m * (m - 1))


def sorted_sums(d: Array, backend: Backend) -> tuple[Array, Array, Array]:
    """Sum of |d|, B of (1), and m, of deviations (cell, member) that are sorted, NaN last."""
    xp, size = backend.xp, d.shape[1]
    rank = backend.numbers(size)
    if not backend.waits and not bool(xp.isnan(d[:, -1]).any()):
        m = xp.full_like(d[:, 0], float(size), dtype=backend.float64)
        return abs(d).sum(axis=1, dtype=backend.float64), backend.double(d) @ (2 * rank - size - 1), m
    missing = xp.isnan(d)
    m = size - missing.sum(axis=1, dtype=backend.float64)
    d = backend.double(xp.where(missing, 0, d))
    return abs(d).sum(axis=1), 2 * (d @ rank) - (m + 1) * d.sum(axis=1), m
