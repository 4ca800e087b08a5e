"""Scores of whole fields and of pooled fields: they see wrong correlations in space, which no cell by itself can.

Energy score (Gneiting & Raftery 2007, equation 22), fair: mean |X_i - y| - 1 / (2 m (m - 1)) sum_ij |X_i - X_j| with
the area-weighted Euclidean norm, per square root of the area, so that a uniform error of 1 scores 1.

Variogram score of order p = 1/2 (Scheuerer & Hamill 2015, doi:10.1175/MWR-D-14-00269.1), fair: over pairs of cells at
fixed lags, the squared difference of |y_a - y_b|^p and its ensemble mean, less the variance of that mean.

Pooled CRPS: the CRPS after averaging over blocks of cells. A sampler with right marginals and no correlation has a
perfect CRPS of cells and a bad one of blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.crps import Estimator, crps
from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["POOLS", "Multivariate", "energy_score", "pooled", "variogram_score"]

POOLS = (2, 4, 8)  # cells along each axis of a block
LAGS = (1, 2, 4)  # cells along each axis between the two of a pair
ORDER = 0.5


@dataclass(frozen=True)
class Multivariate:
    """One number per case of the energy and variogram scores, and sums of the CRPS per size of block."""

    weights: np.ndarray
    periodic: tuple[bool, ...]
    estimator: Estimator = "fair"

    def measure(self, pair: Pair) -> Sums:
        """Sums of one case. Cells that any member lacks are left out."""
        valid = pair.valid & np.logical_and.reduce([np.isfinite(member) for member in pair.members])
        weights = self.weights * valid
        deviations = np.where(valid, pair.members - pair.truth, 0).astype(np.float64)
        by_case = {"energy_score": np.asarray(energy_score(deviations, weights))}
        by_case["variogram_score"] = np.asarray(variogram_score(pair, valid, self.weights, self.periodic))
        pools = [self._pooled(pair, weights, size) for size in POOLS]
        by_case["pooled_crps"], by_case["pooled_weight"] = (np.array(column) for column in zip(*pools, strict=True))
        return Sums(by_case=by_case)

    def _pooled(self, pair: Pair, weights: np.ndarray, size: int) -> tuple[float, float]:
        if min(weights.shape) < size:
            return 0.0, 0.0
        area = pooled(weights, size)
        use = area > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            members = np.stack([pooled(np.where(weights > 0, m, 0) * weights, size) / area for m in pair.members])
            truth = pooled(np.where(weights > 0, pair.truth, 0) * weights, size) / area
        single = len(members) == 1
        score = np.abs(members[0] - truth) if single else crps(members, truth, self.estimator)
        return float((score * area)[use].sum()), float(area[use].sum())


def energy_score(deviations: np.ndarray, weights: np.ndarray) -> float:
    """Fair energy score of one field; ``deviations`` (member, *grid) are members minus truth, ``weights`` (*grid).

    Distances between members come from the Gram matrix of deviations from their mean, in float64: centred, so that
    neither a large mean nor a common error costs digits. One member gives the distance to the truth alone.
    """
    m, total = len(deviations), weights.sum()
    rows = (deviations * np.sqrt(weights / total)).reshape(m, -1)
    error = np.sqrt((rows**2).sum(axis=1)).mean()
    if m == 1:
        return float(error)
    centred = rows - rows.mean(axis=0)
    gram = centred @ centred.T
    length = np.diag(gram)
    distance = np.sqrt(np.maximum(length[:, None] + length[None, :] - 2 * gram, 0))
    np.fill_diagonal(distance, 0)
    return float(error - distance.sum() / (2 * m * (m - 1)))


def variogram_score(pair: Pair, valid: np.ndarray, weights: np.ndarray, periodic: tuple[bool, ...]) -> float:
    """Mean over pairs at ``LAGS`` along every axis, each lag counting the same; weighted by the product of areas."""
    found = []
    for axis, lag in _lags(valid.shape):
        both, share = _pairs(valid, axis, lag, periodic[axis]), _pairs(weights, axis, lag, periodic[axis])
        use = both[0] & both[1]
        truth = _difference(pair.truth, axis, lag, periodic[axis])[use]
        members = np.stack([_difference(member, axis, lag, periodic[axis])[use] for member in pair.members])
        score = (truth - members.mean(axis=0, dtype=np.float64)) ** 2
        if len(members) > 1:
            score = score - members.var(axis=0, ddof=1, dtype=np.float64) / len(members)
        area = (share[0] * share[1])[use]
        if area.sum() > 0:
            found.append((score * area).sum() / area.sum())
    return float(np.mean(found)) if found else float("nan")


def pooled(values: np.ndarray, size: int) -> np.ndarray:
    """Sums over blocks of ``size`` cells along every axis; what is left over at the ends is dropped."""
    for axis in range(values.ndim):
        count = values.shape[axis] // size
        values = np.take(values, range(count * size), axis=axis)
        shape = (*values.shape[:axis], count, size, *values.shape[axis + 1 :])
        values = values.reshape(shape).sum(axis=axis + 1, dtype=np.float64)
    return values


def _lags(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    return ((axis, lag) for axis, n in enumerate(shape) for lag in LAGS if lag < n)


def _pairs(values: np.ndarray, axis: int, lag: int, wraps: bool) -> tuple[np.ndarray, np.ndarray]:
    """The two cells of every pair."""
    if wraps:
        return values, np.roll(values, -lag, axis)
    n = values.shape[axis]
    return np.take(values, range(n - lag), axis), np.take(values, range(lag, n), axis)


def _difference(field: np.ndarray, axis: int, lag: int, wraps: bool) -> np.ndarray:
    first, second = _pairs(field, axis, lag, wraps)
    return np.asarray(np.abs(first - second) ** ORDER)
