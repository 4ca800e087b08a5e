"""What a score is: a measure of one case, and a result from the sums of many."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from sciffusion.evaluation.tally import Sums

__all__ = ["Pair", "Score", "ensemble_moments"]


@dataclass(frozen=True)
class Pair:
    """One case of one variable: ``members`` (member, *grid), ``truth`` (*grid), both in the same units.

    ``valid`` (*grid) marks the cells to score: the truth and at least one member of every compared system are there.
    ``seed`` makes random ties reproducible, whatever the order of the cases.
    """

    members: np.ndarray
    truth: np.ndarray
    valid: np.ndarray
    seed: int = 0

    @classmethod
    def of(cls, members: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None, seed: int = 0) -> "Pair":
        """Drop members that are missing altogether, and mark the cells where truth and a member are both present."""
        present = np.array([bool(np.isfinite(member).any()) for member in members])
        members = members if present.all() else members[present]
        seen = np.isfinite(truth)
        seen &= np.logical_or.reduce([np.isfinite(member) for member in members]) if len(members) else False
        return cls(members, truth, seen if valid is None else seen & valid, seed)

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Error of the mean, unbiased variance (NaN under two members) and number of members, per cell (*grid)."""
        return ensemble_moments(self.members, self.truth)


class Score(Protocol):
    """A score has no state of its own: measuring gives sums, a tally adds them up, the result reads them."""

    def measure(self, pair: Pair) -> Sums:
        """Sums of one case."""


def ensemble_moments(members: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Error of the mean, unbiased variance (NaN under two members) and number of members, per cell, float64 (*grid).

    Members are reduced one at a time after the truth is subtracted, so that neither memory nor digits are wasted.
    """
    count, total, square = (np.zeros(truth.shape) for _ in range(3))
    y = truth.astype(np.float64)
    for member in members:
        d = member - y
        here = np.isfinite(d)
        d[~here] = 0
        count += here
        total += d
        square += d * d
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / count
        variance = np.maximum(square - count * mean**2, 0) / (count - 1)
    return mean, np.where(count > 1, variance, np.nan), count
