"""What must not happen: values beyond what the truth knows (negative rain), and masks that differ from the truth's."""

from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["Extent"]


@dataclass(frozen=True)
class Extent:
    """Area of all cells, of negative members, and of cells that only the truth or only the members lack."""

    weights: np.ndarray

    def measure(self, pair: Pair) -> Sums:
        """Sums of one case; members count 1/m each."""
        truth = np.isfinite(pair.truth)
        names = ("extent_area", "extent_negative", "extent_filled", "extent_missing")
        sums = dict.fromkeys(names, 0.0)
        for member in pair.members:
            there = np.isfinite(member)
            areas = (truth | there, there & (np.nan_to_num(member) < 0), there & ~truth, truth & ~there)
            for name, where in zip(names, areas, strict=True):
                sums[name] += float(self.weights[where].sum()) / len(pair.members)
        sums["extent_negative_truth"] = float(self.weights[truth & (np.nan_to_num(pair.truth) < 0)].sum())
        return Sums(total={name: np.asarray(value) for name, value in sums.items()})
