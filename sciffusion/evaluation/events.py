"""Measures of events, values above a threshold: Brier score, ROC, reliability, and the PIT histogram.

Scores of single forecasts come from the library `scores`. An ensemble of m members gives m + 1 probabilities k/m, so
the weight of events and of non-events per probability is all that ROC, reliability and the Brier score of a whole
need, exactly. Cells with fewer members count at the nearest of the m + 1.
"""

from dataclasses import dataclass
from operator import gt, lt
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from scipy.optimize import isotonic_regression

from sciffusion.evaluation.cells import Cells, Named
from sciffusion.evaluation.measure import Measure, Units
from sciffusion.evaluation.ranks import rank_counts

__all__ = ["PIT", "ROC", "Brier", "Event", "ProbabilityTable", "ROCArea", "Reliability", "brier_of_table"]


@dataclass(frozen=True)
class Event(Measure):
    """Values above (``upper``) or below each of ``thresholds``."""

    units: ClassVar[Units] = "1"
    thresholds: tuple[float, ...] = ()
    upper: bool = True

    def coords(self, members: int) -> dict[str, Any]:
        """Thresholds."""
        return {"threshold": list(self.thresholds)}

    def attributes(self, members: int) -> dict[str, Any]:
        """The side."""
        return {"event": f"{'above' if self.upper else 'below'} the threshold"}


@dataclass(frozen=True)
class Brier(Event):
    """Brier score by `scores`, fair in the number of members by default (Ferro 2014, doi:10.1002/qj.2270)."""

    title: ClassVar[str] = "Brier score"
    fair: bool = True

    def attributes(self, members: int) -> dict[str, Any]:
        """The estimator."""
        return super().attributes(members) | {"estimator": "fair" if self.fair and members > 1 else "standard"}

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """Sums per threshold."""
        from scores.probability import brier_score_for_ensemble

        score = brier_score_for_ensemble(
            xr.DataArray(cells.members, dims=("member", "cell")),
            xr.DataArray(cells.truth, dims="cell"),
            "member",
            sorted(self.thresholds),
            preserve_dims="all",
            fair_correction=self.fair,
            event_threshold_operator=gt if self.upper else lt,
        )
        return cells.mean_of(score.sel(threshold=list(self.thresholds)).transpose("threshold", "cell").values)


@dataclass(frozen=True)
class ProbabilityTable(Event):
    """Weight of non-events and events (..., threshold, 2, m + 1) per forecast probability."""

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """The table."""
        tables = [self._table(cells, threshold) for threshold in self.thresholds]
        return {"table": np.stack(tables, axis=-2).reshape(*cells.kept, len(tables), 2, -1)}

    def _table(self, cells: Cells, threshold: float) -> np.ndarray:
        size = cells.complete + 1
        beyond = np.greater if self.upper else np.less
        m, k = np.zeros(cells.truth.shape, int), np.zeros(cells.truth.shape, int)
        for member in cells.members:
            m += np.isfinite(member).reshape(-1)
            k += beyond(member, threshold).reshape(-1)
        level = np.rint(k / np.maximum(m, 1) * (size - 1)).astype(int)
        category = np.where((m > 0) & np.isfinite(cells.truth), level + size * beyond(cells.truth, threshold), -1)
        return cells.counts(category, 2 * size)


@dataclass(frozen=True)
class ROC(ProbabilityTable):
    """Relative operating characteristic: hit rate against false alarm rate of every probability."""

    title: ClassVar[str] = "relative operating characteristic"

    def coords(self, members: int) -> dict[str, Any]:
        """Thresholds, probabilities from which on an event is forecast, and which rate it is."""
        steps = [k / members for k in range(members + 1)]
        return super().coords(members) | {"probability": [*steps, np.inf], "rate": ["hits", "false alarms"]}

    def result(self, s: Named) -> np.ndarray:
        """Both rates (..., threshold, probability, 2)."""
        return np.asarray(np.moveaxis(_rates(s["table"])[..., ::-1, :], -2, -1))


@dataclass(frozen=True)
class ROCArea(ProbabilityTable):
    """Area under the ROC curve: 1/2 is no better than chance."""

    title: ClassVar[str] = "area under the relative operating characteristic"

    def result(self, s: Named) -> np.ndarray:
        """The area (..., threshold), by trapezoids."""
        alarms, hits = np.moveaxis(_rates(s["table"]), -2, 0)
        area: np.ndarray = np.trapezoid(hits[..., ::-1], alarms[..., ::-1], axis=-1)
        return area


def _rates(table: np.ndarray) -> np.ndarray:
    """Share of non-events and of events with at least each probability, and with more than 1, (..., 2, m + 2)."""
    beyond = np.cumsum(table[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray(np.concatenate([beyond, 0 * beyond[..., :1]], axis=-1) / beyond[..., :1])


def brier_of_table(table: np.ndarray) -> np.ndarray:
    """Fair Brier score (...) of such tables (..., 2, m + 1): the mean of (k/m - o)^2 - k (m - k) / (m^2 (m - 1))."""
    m = table.shape[-1] - 1
    share = np.arange(m + 1) / m
    unfair = share * (1 - share) / (m - 1) if m > 1 else 0.0
    score = (share - np.arange(2.0)[:, None]) ** 2 - unfair
    return np.asarray((table * score).sum(axis=(-2, -1)) / table.sum(axis=(-2, -1)))


@dataclass(frozen=True)
class Reliability(ProbabilityTable):
    """How often the event follows each forecast probability: as observed, and by isotonic regression.

    The latter is free of the choice of bins (CORP; Dimitriadis et al. 2021, doi:10.1073/pnas.2016191118).
    """

    title: ClassVar[str] = "observed frequency of the event by forecast probability"

    def coords(self, members: int) -> dict[str, Any]:
        """Thresholds, forecast probabilities, and which number it is."""
        steps = [k / members for k in range(members + 1)]
        return super().coords(members) | {"probability": steps, "quantity": ["observed", "isotonic", "share"]}

    def result(self, s: Named) -> np.ndarray:
        """Observed frequency, its isotonic fit, and share of the forecasts (..., threshold, probability, 3)."""
        weight, events = s["table"].sum(axis=-2), s["table"][..., 1, :]
        share = weight / weight.sum(axis=-1, keepdims=True)
        observed = events / weight
        rows = [_isotonic(o, w) for o, w in zip(_rows(observed), _rows(weight), strict=True)]
        return np.stack([observed, np.reshape(rows, observed.shape), share], axis=-1)


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


def _isotonic(observed: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Nearest rising sequence; NaN where nothing was forecast."""
    use, fit = weight > 0, np.full(observed.shape, np.nan)
    if use.any():
        fit[use] = isotonic_regression(observed[use], weights=weight[use]).x
    return fit


@dataclass(frozen=True)
class PIT(Measure):
    """Histogram of the probability integral transform, relative to a flat one.

    The transform of a truth with b members below and e equal is uniform on [b / m, (b + e) / m], as in `scores.Pit`.
    Without ties it is a step, and a rank histogram shows more; with many equal values it needs no random numbers.
    """

    title: ClassVar[str] = "probability integral transform: density relative to a flat histogram"
    units: ClassVar[Units] = "1"
    bins: int = 10

    def coords(self, members: int) -> dict[str, Any]:
        """Middles of the bins."""
        return {"probability": [(i + 0.5) / self.bins for i in range(self.bins)]}

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """Weight per bin (left, right]; 0 belongs to the first."""
        below, equal, m = rank_counts(cells.members, cells.truth, cells.backend)
        present = (m > 0) & np.isfinite(cells.truth)
        m = np.where(present, m, np.nan)
        low, high = below / m, (below + equal) / m
        edges = np.arange(self.bins + 1) / self.bins
        cumulative = [_share_up_to(edge, low, high) for edge in edges]
        cumulative[0] = 0 * low
        return {"bins": cells.total(np.diff(cumulative, axis=0))}

    def result(self, s: Named) -> np.ndarray:
        """Relative to a flat histogram."""
        return np.asarray(s["bins"] / s["bins"].mean(axis=-1, keepdims=True))


def _share_up_to(edge: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Share of the uniform distribution on [low, high] that lies at or below ``edge``."""
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = np.clip((edge - low) / (high - low), 0, 1)
    step = np.where(np.isnan(low), np.nan, 1.0 * (low <= edge))
    return np.where(high > low, inside, step)
