"""Empirical distributions cell by cell, read as normal scores: s = Phi^-1(F(x)) and back.

``n`` order statistics q_1 <= ... <= q_n of a sample stand at the scores s_i = Phi^-1((i - 1/2) / n) (Hazen's plotting
positions); between them both maps are linear, beyond them they go on with the sample's sd per unit of score, so that
values beyond the sample's range are neither cut off nor made up. Equal values share the mean of their scores.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

__all__ = ["QuantileTable", "normal_scores"]

FARTHEST = 6.0  # largest score; a cell that was constant knows no other


def normal_scores(count: int) -> np.ndarray:
    """Scores (count,) of the order statistics of ``count`` values."""
    return np.asarray(ndtri((np.arange(count) + 0.5) / count))


@dataclass(frozen=True)
class QuantileTable:
    """``values`` (level, ...) rising along the first axis, one distribution per place."""

    values: np.ndarray

    @classmethod
    def of(cls, sample: np.ndarray, levels: int) -> "QuantileTable":
        """``levels`` quantiles of ``sample`` (case, ...), NaN left out; the order statistics where there are as many.

        A place without any value gets zeros.
        """
        ordered = np.sort(sample, axis=0)  # NaN last
        count = np.isfinite(ordered).sum(axis=0)
        chances = (np.arange(levels) + 0.5) / levels
        place = np.clip(np.multiply.outer(chances, count) - 0.5, 0, np.maximum(count - 1, 0))
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(count - 1, 0))
        low, high = (np.nan_to_num(np.take_along_axis(ordered, index, axis=0)) for index in (below, above))
        return cls((low + (place - below) * (high - low)).astype(np.float32))

    @property
    def scores(self) -> np.ndarray:
        """Normal scores (level,) of the values."""
        return normal_scores(len(self.values))

    @property
    def slope(self) -> np.ndarray:
        """Values per unit of score beyond the ends."""
        return np.asarray(self.values.std(axis=0) / max(float(self.scores.std()), 1e-12))

    def score_of(self, x: np.ndarray) -> np.ndarray:
        """Normal scores of ``x`` (...)."""
        below, upto = (sum(compare(row, x).astype(np.int64) for row in self.values) for compare in _COMPARE)
        last, scores = len(self.values) - 1, self.scores
        low, high = (self._at(np.clip(index, 0, last)) for index in (below - 1, below))
        share = np.divide(x - low, high - low, out=np.zeros(x.shape), where=high > low)
        lower, upper = scores[np.clip(below - 1, 0, last)], scores[np.clip(below, 0, last)]
        sums = np.concatenate([[0.0], np.cumsum(scores)])
        tied = (sums[upto] - sums[below]) / np.maximum(upto - below, 1)
        score = np.where(upto > below, tied, lower + share * (upper - lower))
        beyond = np.where(below == 0, np.minimum(x - low, 0), np.where(below > last, x - high, 0))
        with np.errstate(invalid="ignore", divide="ignore"):
            score = score + np.where(beyond == 0, 0, beyond / self.slope)
        return np.asarray(np.clip(score, -FARTHEST, FARTHEST))

    def value_of(self, score: np.ndarray) -> np.ndarray:
        """Values (...) at normal scores."""
        scores, last = self.scores, len(self.values) - 1
        above = np.clip(np.searchsorted(scores, score), 1, max(last, 1))
        first, second = above - 1, np.minimum(above, last)
        gap = scores[second] - scores[first]
        share = np.clip(np.divide(score - scores[first], gap, out=np.zeros(score.shape), where=gap > 0), 0, 1)
        low, high = self._at(first), self._at(second)
        beyond = score - np.clip(score, scores[0], scores[-1])
        return np.asarray(low + share * (high - low) + beyond * self.slope)

    def _at(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(np.take_along_axis(self.values, index[None], axis=0)[0].astype(np.float64))


_COMPARE = (np.less, np.less_equal)
