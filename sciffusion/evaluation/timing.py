"""Do the members of a case belong to it? Small sketches of every case, compared across cases.

A sketch is a field in at most eight block means along each axis. The truth of a case should be nearest to the ensemble
mean of the same case as often as a member is nearest to the mean of its fellows; where another case fits better, cases
are shuffled. Members that have nothing in common with their fellows, nor with the truth, ignore the condition.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["Sketch", "Timing", "timing"]

BLOCKS = {1: 64, 2: 8, 3: 4}  # along each axis, by rank
MEMBERS = 8  # whose sketches are kept
MOST_CASES = 2000
LEAST_CASES = 5
RELATED = 0.5  # correlation of members with their fellows, over cases, that must be excluded


@dataclass(frozen=True)
class Sketch:
    """Block means of one case, (block,) of truth and mean, (MEMBERS, block) of members; NaN where nothing is known."""

    weights: np.ndarray

    def measure(self, pair: Pair) -> Sums:
        """Sketches of one case."""
        area = self.weights * pair.valid
        kept = [self._blocks(member, area) for member in pair.members[:MEMBERS]]
        blank = np.full_like(kept[0], np.nan)
        mean = pair.moments[0] + pair.truth
        return Sums(
            by_case={
                "sketch_truth": self._blocks(pair.truth, area),
                "sketch_mean": self._blocks(mean, area),
                "sketch_members": np.stack([*kept, *[blank] * (MEMBERS - len(kept))]),
            }
        )

    def _blocks(self, field: np.ndarray, area: np.ndarray) -> np.ndarray:
        weight = np.where(np.isfinite(field), area, 0)
        total, share = (_pool(values) for values in (np.where(weight > 0, field, 0) * weight, weight))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(total / share).reshape(-1)


def _pool(values: np.ndarray) -> np.ndarray:
    """Sums over at most ``BLOCKS`` even parts of every axis."""
    for axis, n in enumerate(values.shape):
        parts = min(BLOCKS[values.ndim], n)
        values = np.add.reduceat(values, np.arange(parts) * n // parts, axis=axis)
    return values


class Timing(NamedTuple):
    """``truth_hits`` and ``member_hits``: how often truth and members are nearest to their own case; ``belongs``
    (case,) to which case the truth's is nearest; correlations over cases of the ensemble mean with the truth and of
    members with their fellows; ``p_shuffled`` and ``p_unrelated``: the chance of this if cases are in order, and if
    members and their fellows correlate by ``RELATED`` or more.
    """

    truth_hits: float
    member_hits: float
    belongs: np.ndarray
    correlation: float
    fellow_correlation: float
    p_shuffled: float
    p_unrelated: float


def timing(truth: np.ndarray, mean: np.ndarray, members: np.ndarray, size: int, length: int = 1) -> Timing | None:
    """Compare sketches ``truth``, ``mean`` (case, block) and ``members`` (case, MEMBERS, block) across cases.

    ``size`` is the number of members behind ``mean``, ``length`` how many cases hang together. None with few cases or
    members.
    """
    truth, mean, members = truth[:MOST_CASES], mean[:MOST_CASES], members[:MOST_CASES]
    known = np.isfinite(truth).all(axis=0) & np.isfinite(mean).all(axis=0)
    kept = np.isfinite(members[..., known]).all(axis=(0, 2))
    if len(truth) < LEAST_CASES or size < 2 or not known.any() or not kept.any():
        return None
    scale = truth[:, known].std(axis=0)
    scale = np.where(scale > 0, scale, np.inf)
    level = mean[:, known].mean(axis=0)
    one, all_, each = (
        (truth[:, known] - truth[:, known].mean(axis=0)) / scale,
        (mean[:, known] - level) / scale,
        (members[:, kept][..., known] - level) / scale,
    )
    fellows = (size * all_[:, None] - each) / (size - 1)
    near = _distance(one, all_)
    own = [
        _hits(_distance(each[:, j], all_), ((each[:, j] - fellows[:, j]) ** 2).sum(axis=1)) for j in range(kept.sum())
    ]
    belongs = near.argmin(axis=1)
    hits, member_hits = float((belongs == np.arange(len(one))).mean()), float(np.mean(own))
    related = _correlation(one, all_), _correlation(each, fellows)
    return Timing(
        *(hits, member_hits, belongs, *related),
        _chance_of_misses(len(one) / length, 1 - hits, 1 - member_hits, kept.sum()),
        _chance_of_little(related[1], len(one) * _independent(each.reshape(-1, each.shape[-1]))),
    )


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    square = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None] - 2 * first @ second.T
    return np.asarray(np.maximum(square, 0))


def _hits(distance: np.ndarray, own: np.ndarray) -> float:
    """How often a member is nearest to its own case, where its own part in the mean is taken out."""
    np.fill_diagonal(distance, own)
    return float((distance.argmin(axis=1) == np.arange(len(distance))).mean())


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    product = (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())
    return float(product) if np.isfinite(product) else float("nan")


def _independent(anomaly: np.ndarray) -> float:
    """Participation ratio of the covariance of (case, block): how many independent blocks a case has."""
    gram = anomaly.T @ anomaly
    return float(np.trace(gram) ** 2 / (gram**2).sum())


def _chance_of_misses(cases: float, missed: float, usual: float, members: int) -> float:
    """The chance of so many misses if the truth misses as often as a member; a miss more is granted to the members."""
    rate = min(1.0, usual + 1 / (cases * members + 1))
    return float(stats.binom.sf(np.floor(missed * cases) - 1, round(cases), rate))


def _chance_of_little(correlation: float, independent: float) -> float:
    """Fisher's z: the chance of so small a correlation if it is ``RELATED``."""
    z = (np.arctanh(np.clip(correlation, -0.999, 0.999)) - np.arctanh(RELATED)) * np.sqrt(max(independent - 3, 0))
    return float(special.ndtr(z))
