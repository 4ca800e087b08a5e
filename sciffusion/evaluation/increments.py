"""How alike cells are that lie some distance apart: structure functions, autocorrelation, extremes that go together.

For pairs of cells a lag apart along one axis, d their difference: the structure function <d^2>, the correlation of the
two, the flatness <d^4> / <d^2>^2 (3 for Gaussian increments, more where fronts and eddies are intermittent), and the
chance that a cell exceeds a threshold if the other does, an estimate of the upper-tail dependence (Coles et al. 1999,
doi:10.1023/A:1009963131610).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from sciffusion.evaluation.lags import lagged
from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["MEMBERS", "NAMES", "Increments", "lags_of"]

MEMBERS = 8  # that are looked at; they are exchangeable
NAMES = (
    "weight",
    "square",
    "fourth",
    "high",
    "both_high",
    "first",
    "second",
    "first_square",
    "second_square",
    "product",
)


def lags_of(shape: tuple[int, ...]) -> list[int]:
    """Lags in cells: powers of two up to half of the longest axis."""
    return [2**power for power in range(int(np.log2(max(max(shape) // 2, 1))) + 1)]


@dataclass(frozen=True)
class Increments:
    """Sums (axis, lag) over pairs of cells, of the truth and of the members; values are counted from ``centre``."""

    weights: np.ndarray
    periodic: tuple[bool, ...]
    centre: float
    threshold: float

    def measure(self, pair: Pair) -> Sums:
        """Sums of one case; cells that any member lacks are left out."""
        area = self.weights * pair.complete
        members = [self._of(member, area) for member in islice(pair.members, MEMBERS)]
        found = {"truth": self._of(pair.truth, area), "members": np.mean(members, axis=0)}
        named = {who: dict(zip(NAMES, rows, strict=True)) for who, rows in found.items()}
        return Sums(by_case={f"lag_{name}_{who}": row for who, rows in named.items() for name, row in rows.items()})

    def _of(self, field: np.ndarray, area: np.ndarray) -> np.ndarray:
        """Sums (name, axis, lag) of one field."""
        lags = lags_of(area.shape)
        x = np.where(area > 0, field, self.centre).astype(np.float64) - self.centre
        sums = np.zeros((len(NAMES), area.ndim, len(lags)))
        for axis, place, lag in _pairs(area.shape, lags):
            sums[:, axis, place] = self._sums(x, area, axis, lag)
        return sums

    def _sums(self, x: np.ndarray, area: np.ndarray, axis: int, lag: int) -> list[float]:
        (a, b), (u, v) = (lagged(values, axis, lag, self.periodic[axis]) for values in (x, area))
        weight, mark = np.sqrt(u * v), self.threshold - self.centre
        square, high, both = (a - b) ** 2, ((a > mark) * 0.5 + (b > mark) * 0.5), (a > mark) & (b > mark)
        values = (np.ones(a.shape), square, square**2, high, both, a, b, a * a, b * b, a * b)
        return [float((weight * value).sum()) for value in values]  # BLAS threads cost more than they gain here


def _pairs(shape: tuple[int, ...], lags: list[int]) -> Iterator[tuple[int, int, int]]:
    """Axis, index of the lag and lag, where pairs lie within half of the axis."""
    return ((axis, i, lag) for axis, n in enumerate(shape) for i, lag in enumerate(lags) if 2 * lag <= n)
