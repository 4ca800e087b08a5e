"""Measures of single cells: CRPS, quantiles, errors of the mean, and the skill of any measure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from sciffusion.evaluation.cells import Cells, Named
from sciffusion.evaluation.crps import Estimator, check_estimator, crps, threshold_weighted_crps
from sciffusion.evaluation.measure import Measure, Units

__all__ = ["ACC", "CRPS", "ErrorOfMean", "QuantileScore", "Skill", "Streamed", "ThresholdCRPS"]


@dataclass(frozen=True)
class CRPS(Measure):
    """Continuous ranked probability score; of one member, the absolute error."""

    title: ClassVar[str] = "continuous ranked probability score"
    estimator: Estimator = "fair"
    alpha: float = 0.95

    def __post_init__(self) -> None:
        check_estimator(self.estimator)

    def attributes(self, members: int) -> dict[str, Any]:
        """The estimator."""
        share = {"fair_share": self.alpha} if self.estimator == "almost fair" else {}
        return {"estimator": self.estimator if members > 1 else "absolute error of a single member", **share}

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """Sums of the score and its weight."""
        if len(cells.members) == 1:
            return cells.mean_of(np.abs(cells.moments[0]))
        return cells.mean_of(crps(cells.members, cells.truth, self.estimator, alpha=self.alpha, backend=cells.backend))


@dataclass(frozen=True)
class Streamed(CRPS):
    """Fair CRPS with ``at_a_time`` members in memory: an unbiased estimate, with its standard error per cell.

    For members that cannot be read cell by cell: each is read once. See `streaming`.
    """

    at_a_time: int = 50

    def attributes(self, members: int) -> dict[str, Any]:
        """The estimator."""
        return {"estimator": f"fair, streamed: distances between members within blocks of {self.at_a_time} only"}

    def streamed_sums(self, cells: Cells, score: np.ndarray, error: np.ndarray) -> dict[str, np.ndarray]:
        """Sums of the score, its weight and its squared standard error, all (cell,)."""
        return cells.mean_of(score) | {"squared_error": cells.total(error**2)}

    def remarks(self, s: Named) -> dict[str, Any]:
        """The standard error of a cell's score, for want of distances between blocks."""
        return {"streaming_error": float(np.sqrt(s["squared_error"].sum() / s["weight"].sum()))}


@dataclass(frozen=True)
class ThresholdCRPS(Measure):
    """Fair CRPS of values above (``upper``) or below each of ``thresholds``."""

    title: ClassVar[str] = "threshold-weighted CRPS"
    thresholds: tuple[float, ...] = ()
    upper: bool = True

    def coords(self, members: int) -> dict[str, Any]:
        """Thresholds."""
        return {"threshold": list(self.thresholds)}

    def attributes(self, members: int) -> dict[str, Any]:
        """The estimator and the side."""
        return {"estimator": "fair", "weighted_values": "above the threshold" if self.upper else "below the threshold"}

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """Sums per threshold."""
        return cells.mean_of(np.stack([self._score(cells, threshold) for threshold in self.thresholds]))

    def _score(self, cells: Cells, threshold: float) -> np.ndarray:
        x, y = cells.members, cells.truth
        return np.asarray(threshold_weighted_crps(x, y, threshold, upper=self.upper, backend=cells.backend))


@dataclass(frozen=True)
class QuantileScore(Measure):
    """Pinball loss of the ensemble's quantiles: (1{y < q} - a) (q - y).

    Quantiles are those of plotting positions k / (m + 1) (Weibull), at which the truth is as likely to lie below the
    k-th member of a perfect ensemble.
    """

    title: ClassVar[str] = "quantile score"
    levels: tuple[float, ...] = (0.05, 0.5, 0.95)

    def coords(self, members: int) -> dict[str, Any]:
        """Levels."""
        return {"level": list(self.levels)}

    def attributes(self, members: int) -> dict[str, Any]:
        """The plotting positions."""
        return {"quantiles": "plotting positions k / (m + 1)"}

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """Sums per level."""
        x = np.asarray(cells.members, dtype=np.float64)
        some = np.isfinite(x).any(axis=0)
        quantiles = np.full((len(self.levels), x.shape[1]), np.nan)
        pick = np.nanquantile if np.isnan(x[:, some]).any() else np.quantile
        quantiles[:, some] = pick(x[:, some], self.levels, axis=0, method="weibull")
        over = quantiles - cells.truth
        level = np.array(self.levels)[:, None]
        return cells.mean_of(np.where(over > 0, 1 - level, -level) * over)


_ERRORS: dict[str, tuple[str, Units, Callable[[np.ndarray], np.ndarray]]] = {
    "rmse": ("root mean squared error of the ensemble mean", "same", np.square),
    "mse": ("mean squared error of the ensemble mean", "squared", np.square),
    "mae": ("mean absolute error of the ensemble mean", "same", np.abs),
    "bias": ("mean error of the ensemble mean", "same", np.asarray),
}


@dataclass(frozen=True)
class ErrorOfMean(Measure):
    """RMSE, MSE, MAE or bias of the ensemble mean."""

    kind: Literal["rmse", "mse", "mae", "bias"] = "rmse"

    @property
    def title(self) -> str:  # type: ignore[override]
        """Which of them."""
        return _ERRORS[self.kind][0]

    @property
    def units(self) -> Units:  # type: ignore[override]
        """Those of the data, or their square."""
        return _ERRORS[self.kind][1]

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """Sums of the errors."""
        return cells.mean_of(_ERRORS[self.kind][2](cells.moments[0]))

    def result(self, s: Named) -> np.ndarray:
        """The mean, or its root."""
        mean = s["score"] / s["weight"]
        return np.asarray(np.sqrt(mean) if self.kind == "rmse" else mean)


@dataclass(frozen=True)
class ACC(Measure):
    """Anomaly correlation of the ensemble mean: of anomalies from ``climatology``, less their mean if ``centred``."""

    title: ClassVar[str] = "anomaly correlation of the ensemble mean"
    units: ClassVar[Units] = "1"
    extras: ClassVar[tuple[str, ...]] = ("climatology",)
    centred: bool = True

    def attributes(self, members: int) -> dict[str, Any]:
        """Which definition."""
        return {"centred": str(self.centred)}

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """First and second moments of both anomalies."""
        b = cells.truth - np.asarray(cells.extras["climatology"], dtype=np.float64)
        a = cells.moments[0] + b
        b = np.where(np.isfinite(a), b, np.nan)
        values = {"weight": 0 * a + 1, "a": a, "b": b, "aa": a * a, "bb": b * b, "ab": a * b}
        return {name: cells.total(value) for name, value in values.items()}

    def result(self, s: Named) -> np.ndarray:
        """The correlation."""
        share = 1 / s["weight"] if self.centred else 0.0
        cross, one, two = (s[x + y] - share * s[x] * s[y] for x, y in ("ab", "aa", "bb"))
        return np.asarray(cross / np.sqrt(one * two))


@dataclass(frozen=True)
class Skill(Measure):
    """1 - score / score of the ``baseline``, on the cells that both have; paired in every resample."""

    units: ClassVar[Units] = "1"
    extras: ClassVar[tuple[str, ...]] = ("baseline",)
    measure: Measure = CRPS()

    @property
    def title(self) -> str:  # type: ignore[override]
        """Of what."""
        return f"skill: 1 - {self.measure.title} over that of the baseline"

    def coords(self, members: int) -> dict[str, Any]:
        """Those of the score."""
        return self.measure.coords(members)

    def attributes(self, members: int) -> dict[str, Any]:
        """Those of the score."""
        return self.measure.attributes(members)

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """Sums of both."""
        other = cells.extras["baseline"]
        other = other if other.ndim == 2 else other[None]
        both = np.isfinite(other).any(axis=0) & np.isfinite(cells.members).any(axis=0)
        truth = np.where(both, cells.truth, np.nan)
        ours, theirs = (self.measure.sums(cells.of(x, truth)) for x in (cells.members, other))
        return {f"ours_{n}": v for n, v in ours.items()} | {f"theirs_{n}": v for n, v in theirs.items()}

    def result(self, s: Named) -> np.ndarray:
        """1 minus the ratio."""
        ours, theirs = (
            self.measure.result({n.removeprefix(who): v for n, v in s.items() if n.startswith(who)})
            for who in ("ours_", "theirs_")
        )
        return np.asarray(1 - ours / theirs)
