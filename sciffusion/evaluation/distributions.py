"""The distribution of all values: density, quantiles to 99.99 %, and distances between distributions.

Values are counted in fixed bins, equal steps of asinh((x - centre) / scale): 1/200 of ``scale`` near the centre and
half a per cent of the distance from it in the tails. Counting is additive and one pass, and no tail is cut off. Case by
case the counts are kept in wider bins, for intervals.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["LEVELS", "WIDER", "Distribution", "kolmogorov_smirnov", "wasserstein"]

STEP = 0.005
REACH = 12.0  # asinh of the farthest value: 80 000 scales
WIDER = 8  # bins that make one of those kept case by case
LEVELS = np.array([0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999])


@dataclass(frozen=True)
class Distribution:
    """Area per bin of the values of the members (each counts 1/m) and of the truth."""

    weights: np.ndarray
    centre: float
    scale: float

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins, in the variable's units."""
        steps = round(REACH / STEP)
        return np.asarray(self.centre + self.scale * np.sinh(STEP * np.arange(-steps, steps + 1)))

    def edges_of(self, bins: int) -> np.ndarray:
        """Edges of as many bins: all of them, or wider ones."""
        return self.edges[:: (len(self.edges) - 1) // bins]

    def measure(self, pair: Pair) -> Sums:
        """Sums (bin,) of one case, kept in total, and the extreme values."""
        valid = pair.valid
        truth = self._count(pair.truth, valid)
        members = np.zeros_like(truth)
        for member in pair.members:
            members += self._count(member, valid & np.isfinite(member))
        counts = {"values_members": members / len(pair.members), "values_truth": truth}
        extremes = _extremes(pair.members, valid, "members") | _extremes([pair.truth], valid, "truth")
        wide = {f"wide_{name}": count.reshape(-1, WIDER).sum(axis=1) for name, count in counts.items()}
        return Sums(by_case=wide, total=counts, maximum=extremes)

    def _count(self, field: np.ndarray, valid: np.ndarray) -> np.ndarray:
        steps = round(REACH / STEP)
        values = field[valid] - field.dtype.type(self.centre)
        position = np.arcsinh(values / field.dtype.type(self.scale)) / field.dtype.type(STEP) + field.dtype.type(steps)
        index = np.clip(position.astype(np.int32), 0, 2 * steps - 1)
        return np.bincount(index, self.weights[valid], minlength=2 * steps)

    def quantiles(self, counts: np.ndarray, levels: np.ndarray = LEVELS) -> np.ndarray:
        """Values below which each level's share of the area lies, linear within a bin; of wider bins too."""
        edges = self.edges_of(len(counts))
        cumulative = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
        upper = np.clip(np.searchsorted(cumulative, levels, side="left"), 1, len(counts))
        low, high = cumulative[upper - 1], cumulative[upper]
        share = np.divide(levels - low, high - low, out=np.zeros_like(levels), where=high > low)
        return np.asarray(edges[upper - 1] + share * np.diff(edges)[upper - 1])

    def classes(self, counts: np.ndarray, most: int = 80) -> np.ndarray:
        """Indices of the edges of ``counts`` (bin,) that cut the range of the values into ``most`` classes or fewer.

        Of shape (class + 1,); all classes but the last hold equally many bins.
        """
        held = np.flatnonzero(counts)
        width = max(1, -(-(held[-1] + 1 - held[0]) // most))
        return np.append(np.arange(held[0], held[-1] + 1, width), held[-1] + 1)

    def density(self, counts: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Probability density (..., class) of ``counts`` (..., bin), which are 0 outside the classes."""
        area = np.add.reduceat(counts, classes[:-1], axis=-1)
        return np.asarray(area / counts.sum(axis=-1, keepdims=True) / np.diff(self.edges_of(counts.shape[-1])[classes]))


def wasserstein(first: np.ndarray, second: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Area between two cumulative distributions (Wasserstein-1) of counts (..., bin), in the units of ``edges``."""
    return np.asarray((np.abs(_cumulative(first) - _cumulative(second)) * np.diff(edges)).sum(axis=-1))


def kolmogorov_smirnov(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Largest distance between two cumulative distributions of counts (..., bin)."""
    return np.asarray(np.abs(_cumulative(first) - _cumulative(second)).max(axis=-1))


def _cumulative(counts: np.ndarray) -> np.ndarray:
    return np.asarray(np.cumsum(counts, axis=-1) / counts.sum(axis=-1, keepdims=True))


def _extremes(fields: Iterable[np.ndarray], valid: np.ndarray, name: str) -> dict[str, np.ndarray]:
    ends = [(np.nanmax(field[valid]), np.nanmin(field[valid])) for field in fields if np.isfinite(field[valid]).any()]
    highest, lowest = np.array(ends).T
    return {f"highest_{name}": np.asarray(highest.max()), f"minus_lowest_{name}": -np.asarray(lowest.min())}
