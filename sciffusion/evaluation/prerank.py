"""Pre-ranks: where a single number of the truth's field stands among the same number of the members.

Members exchangeable with the truth make the position uniform for any such number, exactly, without a model of the data
(Gneiting et al. 2008, doi:10.1007/s11749-008-0114-x; Allen et al. 2024, doi:10.1007/s00477-023-02601-3). Here the
highest and the lowest value, which show a cut tail however rare the extremes are.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["EXTREMES", "Extremes", "chance_of_few", "chance_of_mean", "position"]

EXTREMES = ("lowest", "highest")
MEMBERS = 8  # whose extremes are kept one by one


@dataclass(frozen=True)
class Extremes:
    """By case: lowest and highest value of truth and members (mean), and position of the truth's, (2,).

    The values of the first ``MEMBERS`` members are kept as well, (2, MEMBERS), NaN where there are fewer.
    """

    def measure(self, pair: Pair) -> Sums:
        """Sums of one case."""
        truth = _ends(pair.truth[pair.valid])
        members = np.stack([_ends(member[pair.valid]) for member in pair.members])
        values = list(zip(truth, members.T, strict=True))
        each = np.full((2, MEMBERS), np.nan)
        each[:, : len(members)] = members[:MEMBERS].T
        return Sums(
            by_case={
                "extreme_each": each,
                "extreme_truth": np.array([one for one, _ in values]),
                "extreme_members": np.array([np.nanmean(them) for _, them in values]),
                "extreme_position": np.array(
                    [position(one, them, pair.seed + i) for i, (one, them) in enumerate(values)]
                ),
            }
        )


def _ends(values: np.ndarray) -> np.ndarray:
    return np.array([np.nanmin(values), np.nanmax(values)], dtype=np.float64)


def position(truth: float, members: np.ndarray, seed: int) -> float:
    """Position of a number in [0, 1) among those of the members (member,), ties broken at random."""
    generator = np.random.default_rng(seed)
    below, equal = int((members < truth).sum()), int((members == truth).sum())
    return float((below + generator.integers(equal + 1) + generator.random()) / (len(members) + 1))


def chance_of_mean(mean: float, cases: float) -> float:
    """Two-sided chance of so unequal a mean of ``cases`` independent uniform positions (normal approximation)."""
    return float(2 * special.ndtr(-abs(mean - 0.5) * np.sqrt(12 * cases)))


def chance_of_few(count: int, rates: np.ndarray) -> float:
    """The chance that at most ``count`` of independent events of these ``rates`` (case,) happen (Poisson binomial)."""
    law = np.ones(1)
    for rate in rates[rates > 0]:
        law = np.convolve(law, [1 - rate, rate])
    return float(min(1.0, law[: count + 1].sum()))
