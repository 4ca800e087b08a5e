"""Do the members agree with the coarse field they were given? Their conservative coarsening against it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.tally import Sums

__all__ = ["METRICS", "SUMS", "CoarseConsistency"]

NAMES = ("weight", "difference", "squared", "coarse", "squared_coarse")

Coarsen = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class CoarseConsistency:
    """Sums of the difference C(member) - coarse over cells of the coarse grid, ``weights`` (*coarse grid)."""

    coarsen: Coarsen
    weights: np.ndarray

    def measure(self, members: Iterable[np.ndarray], coarse: np.ndarray) -> Sums:
        """Sums of one case: ``members`` (member, *grid), ``coarse`` (*coarse grid). NaN cells are left out."""
        total, largest = dict.fromkeys(NAMES, np.zeros(())), np.zeros(())
        for member in members:
            d = self.coarsen(member.astype(np.float64)) - coarse
            use = np.isfinite(d)
            values = (np.ones(int(use.sum())), d[use], d[use] ** 2, coarse[use], coarse[use].astype(np.float64) ** 2)
            total = {n: total[n] + (v * self.weights[use]).sum() for n, v in zip(NAMES, values, strict=True)}
            largest = np.fmax(largest, np.abs(d[use]).max(initial=0))
        sums = {f"coarse_{name}": np.asarray(value) for name, value in total.items()}
        return Sums(by_case=sums, maximum={"coarse_largest": largest})


def _sd(s: Mapping[str, np.ndarray]) -> np.ndarray:
    mean = s["coarse_coarse"] / s["coarse_weight"]
    return np.asarray(np.sqrt(np.maximum(s["coarse_squared_coarse"] / s["coarse_weight"] - mean**2, 0)))


SUMS = tuple(f"coarse_{name}" for name in NAMES)
METRICS: dict[str, tuple[Callable[[Mapping[str, np.ndarray]], np.ndarray], str]] = {
    "coarse_rms": (
        lambda s: np.sqrt(s["coarse_squared"] / s["coarse_weight"]) / _sd(s),
        "rms of coarsened member minus coarse input, in sd of the coarse input",
    ),
    "coarse_bias": (
        lambda s: s["coarse_difference"] / s["coarse_weight"] / _sd(s),
        "mean of coarsened member minus coarse input, in sd of the coarse input",
    ),
    "coarse_largest": (
        lambda s: s["coarse_largest"] / _sd(s),
        "largest |coarsened member minus coarse input|, in sd of the coarse input",
    ),
}
