"""How often values beyond fixed thresholds occur, in members and in the truth: the tails, with an interval.

Thresholds are quantiles of the first truth, fixed before the first case; counts are kept per case and region, so the
ratio of frequencies is resampled like every other score.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["QUANTILES", "Exceedance", "ratio", "thresholds"]

QUANTILES = (0.001, 0.01, 0.99, 0.999)  # below the first two, above the last two


def thresholds(truth: np.ndarray) -> tuple[float, ...]:
    """The values of ``QUANTILES`` in one field, NaN left out."""
    return tuple(float(value) for value in np.nanquantile(truth, QUANTILES))


@dataclass(frozen=True)
class Exceedance:
    """Area per region beyond each threshold; members count 1/m each."""

    weights: np.ndarray
    regions: np.ndarray
    thresholds: tuple[float, ...]

    def measure(self, pair: Pair) -> Sums:
        """Sums (region,) per threshold of one case."""
        sums = {}
        for index, (quantile, threshold) in enumerate(zip(QUANTILES, self.thresholds, strict=True)):
            beyond = np.less if quantile < 0.5 else np.greater
            share = np.zeros(pair.truth.shape)
            for member in pair.members:
                share += beyond(member, threshold)
            sums[f"beyond_members_{index}"] = self._by_region(share / len(pair.members), pair.valid)
            sums[f"beyond_truth_{index}"] = self._by_region(beyond(pair.truth, threshold), pair.valid)
        return Sums(by_case=sums)

    def _by_region(self, value: np.ndarray, valid: np.ndarray) -> np.ndarray:
        weighted = np.where(valid, value, 0) * self.weights
        return np.bincount(self.regions.reshape(-1), weighted.reshape(-1), minlength=int(self.regions.max()) + 1)


def ratio(index: int) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """The metric of threshold ``index``: frequency in members over frequency in the truth."""
    return partial(_ratio, index)


def _ratio(index: int, s: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(s[f"beyond_members_{index}"] / s[f"beyond_truth_{index}"])
