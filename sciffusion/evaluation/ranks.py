"""The rank histogram (Talagrand diagram): where the truth falls among the sorted members.

Ties are broken at random (Hamill 2001, doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2), else a variable with many
equal values, such as precipitation, shows a spike that is no fault. A cell with fewer members is spread over the bins
of the full ensemble, which keeps the histogram of a perfect ensemble flat.
"""

from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["RankHistogram", "ranks"]

MOST_BINS = 101


@dataclass(frozen=True)
class RankHistogram:
    """Area of each rank per region. More than 100 members share ``MOST_BINS`` bins."""

    weights: np.ndarray
    regions: np.ndarray
    members: int

    @property
    def bins(self) -> int:
        """One more than there are members, up to ``MOST_BINS``."""
        return min(self.members + 1, MOST_BINS)

    def measure(self, pair: Pair) -> Sums:
        """Sums (bin, region) of the area of cells."""
        position = ranks(pair)
        column = np.minimum((position * self.bins).astype(int), self.bins - 1)
        count = int(self.regions.max()) + 1
        index = (column * count + self.regions)[pair.valid]
        area = np.bincount(index, self.weights[pair.valid], minlength=self.bins * count)
        return Sums(by_case={"ranks": area.reshape(self.bins, count)})


def ranks(pair: Pair) -> np.ndarray:
    """Position of the truth in [0, 1) among the members, uniform if they are exchangeable with it; float64 (*grid).

    With ``b`` members below and ``e`` equal among ``m``: (b + U{0..e} + U[0, 1)) / (m + 1).
    """
    below, equal, count = (np.zeros(pair.truth.shape) for _ in range(3))
    for member in pair.members:
        below += member < pair.truth
        equal += member == pair.truth
        count += np.isfinite(member)
    generator = np.random.default_rng(pair.seed)
    tie = np.floor(generator.random(below.shape) * (equal + 1))
    return (below + tie + generator.random(below.shape)) / (count + 1)
