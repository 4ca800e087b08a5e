"""Reliability, ROC, Brier and fractions skill scores of two rare events, with intervals by resampling cases."""

from functools import partial
from typing import NamedTuple

import numpy as np
import xarray as xr

from sciffusion.evaluation.bootstrap import LEAST_BLOCKS
from sciffusion.evaluation.cells import Named
from sciffusion.evaluation.events import ROC, Reliability, ROCArea, brier_of_table
from sciffusion.evaluation.occurrence import EVENTS, WINDOWS, event_fractions, event_tables
from sciffusion.evaluation.results import BOUNDS, Metric, Read, Results
from sciffusion.evaluation.tally import Tally
from sciffusion.evaluation.whole_fields import FSS

__all__ = ["tables"]

DIMS = ("system", "variable", "event")
LEAST = 1e-6  # share of the area in which an event has to happen


class Number(NamedTuple):
    """What it is in words, how it follows from which sums, and its dim besides the event."""

    text: str
    metric: Metric
    read: Read = event_tables
    dim: str | None = None


def _part(measure: Reliability | ROC, part: int, s: Named) -> np.ndarray:
    """One of the numbers of a measure at the probabilities k / m."""
    found = measure.result(s)
    return np.asarray(found[..., : s["table"].shape[-1], part])


CURVE = "level_of_forecast"
NUMBERS = {
    "observed_frequency": Number(
        "frequency of the event when it had that probability", partial(_part, Reliability(), 0), dim=CURVE
    ),
    "isotonic_frequency": Number("the same by isotonic regression (CORP)", partial(_part, Reliability(), 1), dim=CURVE),
    "forecast_share": Number("share of the area with that probability", partial(_part, Reliability(), 2), dim=CURVE),
    "hit_rate": Number(
        "share of the events that were forecast with at least that probability", partial(_part, ROC(), 0), dim=CURVE
    ),
    "false_alarm_rate": Number(
        "share of the non-events that were forecast with at least that probability", partial(_part, ROC(), 1), dim=CURVE
    ),
    "roc_area": Number(ROCArea.title, ROCArea().result),
    "event_brier": Number("fair Brier score of the event", lambda s: brier_of_table(s["table"])),
    "fractions_skill": Number(
        "fractions skill score of the event in windows of cells", FSS().result, event_fractions, "window"
    ),
}


def tables(results: Results) -> list[xr.Dataset]:
    """Curves by forecast probability, numbers by event and window, each with its interval."""
    found = (tally for key, tally in results.panel.tallies.items() if key[0] == results.sample)
    most = max((event_tables(tally)["table"].shape[-1] for tally in found), default=0)
    if not most:
        return []
    ds = xr.Dataset(coords={**results.coords, "event": list(EVENTS), "window": list(WINDOWS), "bound": BOUNDS})
    levels = results.table(partial(_levels, results), (len(EVENTS), most))
    words = {"long_name": "probability of the event in the ensemble", "units": "1"}
    ds["forecast_probability"] = ((*DIMS, CURVE), levels, words)
    sizes = {CURVE: most, "window": len(WINDOWS)}
    for name, one in NUMBERS.items():
        own = () if one.dim is None else (one.dim,)
        shape = (len(EVENTS), *(sizes[dim] for dim in own))
        values = results.table(partial(_value, results, one), shape)
        ends = results.table(partial(_interval, results, one), (*shape, 2))
        ds[name] = ((*DIMS, *own), values, {"long_name": one.text, "units": "1"})
        text = f"95 % interval of {name}, by resampling cases; withheld when under ten cases carry the event"
        ds[f"{name}_interval"] = ((*DIMS, *own, "bound"), ends, {"long_name": text, "units": "1"})
    return [ds]


def _levels(results: Results, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    if tally is None:
        return None
    size = event_tables(tally)["table"].shape[-1]
    return np.tile(np.arange(size) / (size - 1), (len(EVENTS), 1))


def _value(results: Results, one: Number, system: str, field: str) -> np.ndarray | None:
    tally, found = results.tally(system, field), results.of_all(one.metric, one.read, system, field)
    if tally is None or found is None:
        return None
    happened, area = _happened(tally), event_tables(tally)["table"].sum()
    return _only(happened.sum(axis=0) > LEAST * area / len(EVENTS), found)


def _interval(results: Results, one: Number, system: str, field: str) -> np.ndarray | None:
    tally, found = results.tally(system, field), results.of_cases(one.metric, one.read, system, field)
    if tally is None or found is None:
        return None
    blocks = [results.resampling[field].effective_blocks(event[:, None]) for event in _happened(tally).T]
    return _only(np.array(blocks) >= LEAST_BLOCKS, found)


def _happened(tally: Tally) -> np.ndarray:
    """Area of the events (case, event)."""
    return np.asarray(event_tables(tally)["table"][:, :, 1].sum(axis=-1))


def _only(events: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``values`` (event, ...) of these ``events`` (event,), NaN of the others."""
    return np.where(events.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)
