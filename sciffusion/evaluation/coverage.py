"""Coverage under conditions: how often the truth lies beyond all members, by intensity.

Classes are of the mean of members and truth together. Classes of the truth are biased by construction, and so are those
of the ensemble mean, which is high where the members happen to be; a number in which all take part alike is not
(Bellier et al. 2017, doi:10.1175/MWR-D-16-0487.1). The truth then lies below, and above, all members with probability
1 / (m + 1) each.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["CLASSES", "Coverage"]

CLASSES = (-np.inf, -2.0, -1.0, 0.0, 1.0, 2.0, np.inf)  # edges, in sd of the truth from its mean


@dataclass(frozen=True)
class Coverage:
    """Area below, above and in all, per class of (mean of all - ``centre``) / ``scale``; cells that tie count half."""

    weights: np.ndarray
    centre: float
    scale: float

    def measure(self, pair: Pair) -> Sums:
        """Sums (class,) of one case."""
        error, _, count = pair.moments
        mean = pair.truth + error * count / (count + 1)
        low, high = (reduce(extreme, pair.members) for extreme in (np.fmin, np.fmax))
        beyond = {
            "below": (pair.truth < low) + 0.5 * (pair.truth == low),
            "above": (pair.truth > high) + 0.5 * (pair.truth == high),
            "area": np.ones_like(mean),
        }
        use = pair.valid & np.isfinite(mean)
        place = np.digitize((mean[use] - self.centre) / self.scale, CLASSES[1:-1])
        sums = {
            name: np.bincount(place, (self.weights * value)[use], len(CLASSES) - 1) for name, value in beyond.items()
        }
        return Sums(by_case={f"coverage_{name}": value for name, value in sums.items()})
