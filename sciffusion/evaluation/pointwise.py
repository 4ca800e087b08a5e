"""Scores of cells one by one, kept as area-weighted sums per region: CRPS, errors of the ensemble mean, spread.

Spread/skill is sqrt((m + 1) / m) sqrt(mean variance) / RMSE of the mean (Fortin et al. 2014,
doi:10.1175/JHM-D-14-0008.1): 1 for a perfect ensemble of any size, since the mean of m members errs by (m + 1) / m
times their variance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.crps import Estimator, crps
from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["METRICS", "Metric", "Pointwise"]

Named = Mapping[str, np.ndarray]
Metric = Callable[[Named], np.ndarray]


@dataclass(frozen=True)
class Pointwise:
    """Sums per region of ``regions`` (*grid) integers, weighted by ``weights`` (*grid).

    With one member the fair CRPS does not exist; the absolute error is taken and the attributes of the result say so.
    """

    weights: np.ndarray
    regions: np.ndarray
    estimator: Estimator = "fair"

    def measure(self, pair: Pair) -> Sums:
        """Sums (region,) of one case, and maps (*grid) that add up over cases."""
        cells = self._cells(pair)
        sums = {name: self._by_region(value, pair.valid) for name, value in cells.items()}
        maps = {name: np.where(pair.valid, np.nan_to_num(cells[name]), 0) for name in ("crps", "error", "variance")}
        return Sums(
            by_case=sums, total={f"map_{name}": value for name, value in maps.items()} | {"map_count": 1.0 * pair.valid}
        )

    def _cells(self, pair: Pair) -> dict[str, np.ndarray]:
        error, variance, count = pair.moments
        single = len(pair.members) == 1
        score = np.abs(error) if single else crps(pair.members, pair.truth, self.estimator, backend=pair.backend)
        with np.errstate(invalid="ignore", divide="ignore"):
            corrected = variance * (count + 1) / count
        spread = np.isfinite(variance)
        truth = pair.truth.astype(np.float64)
        return {
            "weight": np.ones_like(error),
            "crps": score,
            "crps_weight": 1.0 * np.isfinite(score),
            "error": error,
            "absolute_error": np.abs(error),
            "squared_error": error**2,
            "variance": variance,
            "corrected_variance": corrected,
            "spread_weight": 1.0 * spread,
            "spread_squared_error": np.where(spread, error**2, 0),
            "truth": truth,
            "squared_truth": truth**2,
        }

    def _by_region(self, value: np.ndarray, valid: np.ndarray) -> np.ndarray:
        weighted = np.where(valid & np.isfinite(value), value, 0) * self.weights
        return np.bincount(self.regions.reshape(-1), weighted.reshape(-1), minlength=int(self.regions.max()) + 1)


def _rmse(s: Named) -> np.ndarray:
    return np.sqrt(s["squared_error"] / s["weight"])


def _spread(s: Named) -> np.ndarray:
    return np.sqrt(s["variance"] / s["spread_weight"])


def _spread_skill(s: Named) -> np.ndarray:
    return np.sqrt(s["corrected_variance"] / s["spread_squared_error"])


METRICS: dict[str, Metric] = {
    "crps": lambda s: s["crps"] / s["crps_weight"],
    "mae": lambda s: s["absolute_error"] / s["weight"],
    "rmse": _rmse,
    "bias": lambda s: s["error"] / s["weight"],
    "spread": _spread,
    "spread_skill": _spread_skill,
}
