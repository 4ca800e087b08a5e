"""Measures of whole fields: energy and variogram scores, CRPS of pooled fields, fractions skill score."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sciffusion.evaluation.cells import Named
from sciffusion.evaluation.crps import Estimator, check_estimator
from sciffusion.evaluation.measure import Measure, Units
from sciffusion.evaluation.multivariate import LAGS, energy_score, pooled_crps, variogram_score
from sciffusion.evaluation.score import Pair

__all__ = ["FSS", "Energy", "FieldMeasure", "PooledCRPS", "Variogram", "squared_fractions"]


@dataclass(frozen=True)
class FieldMeasure(Measure):
    """Sees one case at a time, on the whole grid."""

    def field_sums(self, pair: Pair, weights: np.ndarray, periodic: tuple[bool, ...]) -> dict[str, np.ndarray]:
        """Sums of one case, named (*own dims); ``weights`` (*grid)."""
        raise NotImplementedError


def _one(score: float) -> dict[str, np.ndarray]:
    """A number that counts once, or not at all when it is NaN."""
    return {"score": np.nan_to_num(np.asarray(score)), "weight": np.asarray(1.0 * np.isfinite(score))}


@dataclass(frozen=True)
class Energy(FieldMeasure):
    """Fair energy score, per square root of the area: a uniform error of 1 scores 1."""

    title: ClassVar[str] = "energy score of whole fields, per square root of the area"

    def attributes(self, members: int) -> dict[str, Any]:
        """The estimator."""
        return {"estimator": "fair" if members > 1 else "distance of a single member"}

    def field_sums(self, pair: Pair, weights: np.ndarray, periodic: tuple[bool, ...]) -> dict[str, np.ndarray]:
        """The score of one case; cells that any member lacks are left out."""
        return _one(energy_score(pair.members, pair.truth, weights * pair.complete, pair.backend))


@dataclass(frozen=True)
class Variogram(FieldMeasure):
    """Fair variogram score of pairs of cells at lags of 1, 2 and 4 cells along every axis."""

    title: ClassVar[str] = "variogram score"
    units: ClassVar[Units] = "1"
    order: float = 0.5

    def attributes(self, members: int) -> dict[str, Any]:
        """Order and lags."""
        return {"estimator": "fair", "order": self.order, "lags": list(LAGS)}

    def field_sums(self, pair: Pair, weights: np.ndarray, periodic: tuple[bool, ...]) -> dict[str, np.ndarray]:
        """The score of one case; cells that any member lacks are left out."""
        return _one(variogram_score(pair.members, pair.truth, weights * pair.complete, periodic, self.order))


@dataclass(frozen=True)
class PooledCRPS(FieldMeasure):
    """CRPS after averaging over blocks of ``sizes`` cells along each axis."""

    title: ClassVar[str] = "CRPS after averaging over blocks of cells"
    sizes: tuple[int, ...] = (1, 2, 4, 8)
    estimator: Estimator = "fair"

    def __post_init__(self) -> None:
        check_estimator(self.estimator)

    def coords(self, members: int) -> dict[str, Any]:
        """Sizes."""
        return {"pool": list(self.sizes)}

    def attributes(self, members: int) -> dict[str, Any]:
        """The estimator."""
        return {"estimator": self.estimator if members > 1 else "absolute error of a single member"}

    def field_sums(self, pair: Pair, weights: np.ndarray, periodic: tuple[bool, ...]) -> dict[str, np.ndarray]:
        """Sums over blocks; cells that any member lacks are left out."""
        found = [pooled_crps(pair, weights * pair.complete, size, self.estimator) for size in self.sizes]
        score, weight = (np.array(column) for column in zip(*found, strict=True))
        return {"score": score, "weight": weight}


@dataclass(frozen=True)
class FSS(FieldMeasure):
    """Fractions skill score of values above (``upper``) or below ``thresholds`` in ``windows`` of cells.

    Roberts & Lean 2008, doi:10.1175/2007MWR2123.1, with the ensemble's fractions (Schwartz et al. 2010,
    doi:10.1175/2009WAF2222267.1). Windows lie inside the domain, or wrap around; those with a masked cell are left out.
    """

    title: ClassVar[str] = "fractions skill score"
    units: ClassVar[Units] = "1"
    thresholds: tuple[float, ...] = ()
    windows: tuple[int, ...] = (1, 3, 9)
    upper: bool = True

    def coords(self, members: int) -> dict[str, Any]:
        """Thresholds and cells along each side of a window."""
        return {"threshold": list(self.thresholds), "window": list(self.windows)}

    def field_sums(self, pair: Pair, weights: np.ndarray, periodic: tuple[bool, ...]) -> dict[str, np.ndarray]:
        """Sums over windows of the squared difference of fractions, and of their squares."""
        fitting = [min(window, *weights.shape) == window for window in self.windows]
        found = np.zeros((2, len(self.thresholds), len(self.windows)))
        beyond = np.greater if self.upper else np.less
        for i, threshold in enumerate(self.thresholds):
            forecast, event = np.zeros(pair.truth.shape), beyond(pair.truth, threshold)
            for member in pair.members:
                forecast += beyond(member, threshold) / len(pair.members)
            for j, window in enumerate(self.windows):
                if fitting[j]:
                    found[:, i, j] = squared_fractions(forecast, event, pair.complete, weights, window, periodic)
        return {"difference": found[0], "squares": found[1]}

    def result(self, s: Named) -> np.ndarray:
        """1 minus the ratio."""
        return np.asarray(1 - s["difference"] / s["squares"])


def squared_fractions(
    forecast: np.ndarray,
    event: np.ndarray,
    complete: np.ndarray,
    weights: np.ndarray,
    window: int,
    periodic: tuple[bool, ...],
) -> tuple[float, float]:
    """Sums over windows without a masked cell: squared difference of the two fractions, and of their squares."""
    one, two, share, area = (
        box_mean(1.0 * values, window, periodic) for values in (forecast, event, complete, weights)
    )
    area = np.where(share > 1 - 1e-9, area, 0)
    return float((area * (one - two) ** 2).sum()), float((area * (one**2 + two**2)).sum())


def box_mean(values: np.ndarray, window: int, periodic: tuple[bool, ...]) -> np.ndarray:
    """Means over all windows of ``window`` cells along each axis that lie inside, or wrap around periodic axes."""
    for axis, wraps in enumerate(periodic):
        if wraps:
            values = np.concatenate([values, np.take(values, range(window - 1), axis)], axis)
        sums = np.cumsum(values, axis=axis)
        sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), sums], axis)
        n = sums.shape[axis]
        values = (np.take(sums, range(window, n), axis) - np.take(sums, range(n - window), axis)) / window
    return values
