"""Copies: members that are the same field twice, and members that are fields of the training data.

Distances are root mean squares over a fixed sample of cells. Twins are pairs of members less than a tenth of the
median distance apart. For memorisation the distance of every member to its nearest training field is set against that
of the held-out truth to its own. A field is close when its distance is less than half the farthest's of its case; if
members are exchangeable with the truth, it is close as often as any of them.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from scipy import special

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["Copies", "Memorisation", "chance_of_twins", "nearest", "sample_cells", "squared_distances"]

CELLS = 4096  # on which members are compared with each other
MEMBERS = 64  # compared with each other, the first ones of larger ensembles
NEAR = 0.01  # of the median squared distance: twins
LEAST_MEMBERS = 4


@dataclass(frozen=True)
class Copies:
    """By case: how many members have a twin, how many pairs were compared, and the degrees of freedom of a distance."""

    def measure(self, pair: Pair) -> Sums:
        """Sums of one case."""
        cells = np.flatnonzero(pair.complete)
        cells = cells[sample_cells(len(cells), CELLS)]
        fields = np.stack([member.reshape(-1)[cells] for member in islice(pair.members, MEMBERS)])
        rows = fields - pair.truth.reshape(-1)[cells]
        twins, pairs, degrees = _twins(rows.astype(np.float64), fields)
        return Sums(by_case={"twins": np.array(twins), "pairs": np.array(pairs), "degrees": np.array(degrees)})


def _twins(rows: np.ndarray, fields: np.ndarray) -> tuple[float, float, float]:
    """Members with a twin, pairs compared, degrees of freedom; fields without any pattern (dry days) do not count."""
    if len(rows) < LEAST_MEMBERS or rows.shape[1] < 2:
        return 0.0, 0.0, np.nan
    patterned = np.ptp(fields, axis=1) > 0
    upper = np.triu_indices(len(rows), 1)
    square = squared_distances(rows, rows)
    middle = np.median(square[upper])
    near = (square <= NEAR * middle) & patterned & patterned[:, None]
    np.fill_diagonal(near, False)
    spread = np.quantile(square[upper], 0.75) / middle - 1 if middle > 0 else np.inf
    return float(near.any(axis=1).sum()), float(len(upper[0])), float((0.6745 / spread) ** 2 * 2 if spread else np.inf)


def chance_of_twins(pairs: float, degrees: float) -> float:
    """The chance that any of ``pairs`` squared distances, chi-square with ``degrees``, is that small by itself."""
    if not degrees > 0:
        return 1.0
    return float(min(1.0, pairs * special.chdtr(min(degrees, 1e4), NEAR * min(degrees, 1e4))))


@dataclass(frozen=True)
class Memorisation:
    """Distances to the nearest training field, at ``cells`` (cell,) of the grid.

    ``fields`` (field, cell) are the training data less their mean ``centre`` (cell,), so that no digits are lost.
    """

    cells: np.ndarray
    centre: np.ndarray
    fields: np.ndarray

    @classmethod
    def of(cls, cells: np.ndarray, fields: np.ndarray) -> "Memorisation":
        """Centre ``fields`` (field, cell) in place and leave out the cells that any of them lacks."""
        known = np.isfinite(fields).all(axis=0)
        fields = fields if known.all() else fields[:, known]
        centre = fields.sum(axis=0, dtype=np.float64).astype(fields.dtype) / max(len(fields), 1)
        fields -= centre
        return cls(cells[known], centre, fields)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Squared length of every field, (field,)."""
        return np.asarray(np.einsum("fc,fc->f", self.fields, self.fields))

    def measure(self, pair: Pair) -> Sums:
        """Distances of one case, and which of them are close."""
        rows = np.stack([one.reshape(-1)[self.cells] for one in (pair.truth, *pair.members)]) - self.centre
        distance = self._nearest(rows.astype(self.fields.dtype))
        close = distance < distance.max() / 2
        found = {
            "truth": distance[0],
            "members": distance[1:].mean(),
            "close": close[1:].mean(),
            "truth_close": close[0],
            "size": len(close) - 1,
        }
        return Sums(by_case={f"training_{name}": np.asarray(value, dtype=np.float64) for name, value in found.items()})

    def _nearest(self, rows: np.ndarray) -> np.ndarray:
        """Root mean square distance of ``rows`` (n, cell) to the nearest field, (n,); cells with a gap are left out."""
        use = np.isfinite(rows).all(axis=0)
        if not use.all():
            return nearest(rows[:, use], self.fields[:, use])
        square = np.einsum("nc,nc->n", rows, rows)[:, None] + self.lengths - 2 * rows @ self.fields.T
        return np.asarray(np.sqrt(np.maximum(square.min(axis=1), 0) / max(rows.shape[1], 1)))


def nearest(rows: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Root mean square distance of each of ``rows`` (n, cell) to the nearest of ``fields`` (field, cell), (n,)."""
    if rows.shape[1] == 0:
        return np.full(len(rows), np.nan)
    return np.asarray(np.sqrt(squared_distances(rows, fields).min(axis=1) / rows.shape[1]))


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (n, m) of the rows of two arrays, centred first so that no digits are lost."""
    centre = second.mean(axis=0, dtype=np.float64)
    a, b = first - centre, second - centre
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2 * a @ b.T
    return np.asarray(np.maximum(square, 0))


def sample_cells(size: int, most: int, seed: int = 0) -> np.ndarray:
    """At most ``most`` of ``size`` cells, the same ones every time, in order."""
    if size <= most:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).choice(size, most, replace=False))
