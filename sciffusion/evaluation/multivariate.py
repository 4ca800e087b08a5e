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

from sciffusion.evaluation.backend import NUMPY, Array, Backend
from sciffusion.evaluation.crps import Estimator, cell_blocks, crps
from sciffusion.evaluation.lags import lagged
from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.spool import Members, Spool, columns
from sciffusion.evaluation.tally import Sums

__all__ = ["LAGS", "POOLS", "Multivariate", "energy_score", "pooled", "pooled_crps", "variogram_score"]

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
        weights = self.weights * pair.complete
        energy = energy_score(pair.members, pair.truth, weights, pair.backend)
        variogram = variogram_score(pair.members, pair.truth, weights, self.periodic)
        pools = [pooled_crps(pair, weights, size, self.estimator) for size in POOLS]
        score, weight = (np.array(column) for column in zip(*pools, strict=True))
        whole = {"energy_score": np.asarray(energy), "variogram_score": np.asarray(variogram)}
        return Sums(by_case=whole | {"pooled_crps": score, "pooled_weight": weight})


def energy_score(members: Members | Array, truth: Array, weights: np.ndarray, backend: Backend = NUMPY) -> float:
    """Fair energy score of one field: ``members`` (member, *grid), ``truth`` and ``weights`` (*grid), float64.

    Cells without weight may hold anything. Distances between members come from the Gram matrix of deviations from
    their mean, summed over blocks of cells: centred, so that neither a large mean nor a common error costs digits. One
    member gives the distance to the truth alone, no weight NaN.
    """
    if not weights.sum() > 0:
        return float("nan")
    m, y, scale = len(members), truth.reshape(-1), np.sqrt(weights / weights.sum()).reshape(-1)
    sums: list[Array] = []
    for cells in cell_blocks(len(y), m, backend):
        d = backend.double(backend.array(columns(members, cells))) - backend.double(backend.array(y[cells]))
        found = _products(d, backend.array(scale[cells]), backend)
        sums = [total + one for total, one in zip(sums, found, strict=True)] if sums else list(found)
    length, gram = (backend.host(total) for total in sums)
    error = np.sqrt(length).mean()
    if m == 1:
        return float(error)
    square = np.diag(gram)
    distance = np.sqrt(np.maximum(square[:, None] + square[None, :] - 2 * gram, 0))
    np.fill_diagonal(distance, 0)
    return float(error - distance.sum() / (2 * m * (m - 1)))


def _products(d: Array, scale: Array, backend: Backend) -> tuple[Array, Array]:
    """Squared lengths (m,) of deviations (member, cell), and the Gram matrix of deviations from their mean."""
    rows = backend.xp.where(scale > 0, d, 0.0) * scale
    length = backend.xp.einsum("ij,ij->i", rows, rows)
    rows = rows - rows.mean(axis=0)
    return length, rows @ rows.T


def variogram_score(
    members: Members, truth: np.ndarray, weights: np.ndarray, periodic: tuple[bool, ...], order: float = ORDER
) -> float:
    """Mean over pairs at ``LAGS`` along every axis, each lag counting the same; weighted by the product of areas.

    ``members`` (member, *grid) are taken one at a time; cells without weight may hold anything.
    """
    found = []
    for axis, lag in _lags(weights.shape):
        first, second = lagged(weights, axis, lag, periodic[axis])
        area = first * second
        if area.sum() > 0:
            score = _variogram(members, truth, area, axis, lag, periodic[axis], order)
            found.append((score * area).sum() / area.sum())
    return float(np.mean(found)) if found else float("nan")


def _variogram(
    members: Members, truth: np.ndarray, area: np.ndarray, axis: int, lag: int, wraps: bool, order: float
) -> np.ndarray:
    """Score of every pair, 0 where there is no area."""
    use, m = area > 0, len(members)
    target = _difference(truth, axis, lag, wraps, order)
    total, square = np.zeros(area.shape), np.zeros(area.shape)
    for member in members:
        d = np.where(use, _difference(member, axis, lag, wraps, order) - target, 0)
        total += d
        square += d * d
    mean = total / m
    if m == 1:
        return np.asarray(mean**2)
    return np.asarray(mean**2 - np.maximum(square - m * mean**2, 0) / (m * (m - 1)))


def pooled_crps(pair: Pair, weights: np.ndarray, size: int, estimator: Estimator = "fair") -> tuple[float, float]:
    """Sum over blocks of ``size`` cells along each axis of area times CRPS of the block's mean, and sum of area."""
    if min(weights.shape) < size or not weights.any():
        return 0.0, 0.0
    area, seen = pooled(weights, size), weights > 0
    use = area > 0

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(pooled(np.where(seen, values, 0) * weights, size)[use] / area[use])

    truth, blocks = mean(pair.truth), (mean(member) for member in pair.members)
    members = Spool(blocks) if isinstance(pair.members, Spool) else np.stack(list(blocks))
    single = len(members) == 1
    score = np.abs(members[0] - truth) if single else crps(members, truth, estimator, backend=pair.backend)
    return float((score * area[use]).sum()), float(area[use].sum())


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


def _difference(field: np.ndarray, axis: int, lag: int, wraps: bool, order: float) -> np.ndarray:
    first, second = lagged(np.asarray(field, dtype=np.float64), axis, lag, wraps)
    return np.asarray(np.abs(first - second) ** order)
