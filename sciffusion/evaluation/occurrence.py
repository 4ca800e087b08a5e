"""How well the ensemble's probabilities foretell events: counts for reliability, ROC, Brier and fractions skill scores.

Events are values below the 1 % and above the 99 % quantile of the first truth, whose thresholds are fixed before the
first case. The measures themselves are those of `events` and `whole_fields`.
"""

from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums
from sciffusion.evaluation.whole_fields import squared_fractions

__all__ = ["EVENTS", "WINDOWS", "Occurrence"]

EVENTS = (0.01, 0.99)  # quantiles: below the first, above the second
WINDOWS = (1, 3, 9, 27)  # cells along each axis


@dataclass(frozen=True)
class Occurrence:
    """Area of non-events and events per forecast probability (event, 2, m + 1), and sums of the FSS (event, window)."""

    weights: np.ndarray
    periodic: tuple[bool, ...]
    thresholds: tuple[float, ...]
    members: int

    def measure(self, pair: Pair) -> Sums:
        """Sums of one case."""
        signs = [-1.0 if quantile < 0.5 else 1.0 for quantile in EVENTS]
        found = [self._event(pair, sign, mark) for sign, mark in zip(signs, self.thresholds, strict=True)]
        return Sums(total={name: np.stack([one[name] for one in found]) for name in found[0]})

    def _event(self, pair: Pair, sign: float, threshold: float) -> dict[str, np.ndarray]:
        """Sums of one event: values times ``sign`` above ``threshold`` times ``sign``."""
        count, beyond = np.zeros(pair.truth.shape), np.zeros(pair.truth.shape)
        for member in pair.members:
            count += np.isfinite(member)
            beyond += sign * member > sign * threshold
        happened = sign * pair.truth > sign * threshold
        table = self._table(beyond / np.maximum(count, 1), happened, pair.valid & (count > 0))
        fractions = [self._fractions(beyond / len(pair.members), happened, pair, window) for window in WINDOWS]
        difference, squares = (np.array(column) for column in zip(*fractions, strict=True))
        return {"event_table": table, "fss_difference": difference, "fss_squares": squares}

    def _table(self, probability: np.ndarray, happened: np.ndarray, use: np.ndarray) -> np.ndarray:
        """Cells with fewer members count at the nearest of the m + 1 probabilities."""
        size = self.members + 1
        category = np.rint(probability * self.members).astype(int) + size * happened
        return np.bincount(category[use], self.weights[use], minlength=2 * size).reshape(2, size)

    def _fractions(self, forecast: np.ndarray, happened: np.ndarray, pair: Pair, window: int) -> tuple[float, float]:
        if window > min(self.weights.shape):
            return 0.0, 0.0
        return squared_fractions(forecast, happened, pair.complete, self.weights, window, self.periodic)
