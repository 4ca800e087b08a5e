"""Reliability, ROC, Brier and fractions skill scores of two rare events."""

from collections.abc import Callable
from functools import partial

import numpy as np
import xarray as xr

from sciffusion.evaluation.events import ROC, Reliability, ROCArea
from sciffusion.evaluation.occurrence import EVENTS, WINDOWS
from sciffusion.evaluation.results import Results
from sciffusion.evaluation.tally import Tally

__all__ = ["tables"]

Read = Callable[[Tally], np.ndarray]
PAIR = ("system", "variable")
LEAST = 1e-6  # share of the area in which an event has to happen


def tables(results: Results) -> list[xr.Dataset]:
    """Curves by forecast probability, numbers by event and window."""
    most = max((t.total["event_table"].shape[-1] for t in _tallies(results)), default=0)
    if not most:
        return []
    coords = {**results.coords, "event": list(EVENTS), "window": list(WINDOWS)}
    ds = xr.Dataset(coords=coords)
    curves: dict[str, tuple[Read, str]] = {
        "forecast_probability": (_probability, "probability of the event in the ensemble"),
        "observed_frequency": (partial(_reliability, 0), "frequency of the event when it had that probability"),
        "isotonic_frequency": (partial(_reliability, 1), "the same by isotonic regression (CORP)"),
        "forecast_share": (partial(_reliability, 2), "share of the area with that probability"),
        "hit_rate": (partial(_roc, 0), "share of the events that were forecast with at least that probability"),
        "false_alarm_rate": (partial(_roc, 1), "share of the non-events that were"),
    }
    for name, (read, text) in curves.items():
        values = results.table(partial(_padded, results, read, most), (len(EVENTS), most))
        ds[name] = ((*PAIR, "event", "level_of_forecast"), values, {"long_name": text, "units": "1"})
    area = results.table(partial(_cell, results, _area), (len(EVENTS),))
    ds["roc_area"] = ((*PAIR, "event"), area, {"long_name": ROCArea.title, "units": "1"})
    skill = results.table(partial(_cell, results, _fss), (len(EVENTS), len(WINDOWS)))
    text = "fractions skill score of the event in windows of cells"
    ds["fractions_skill"] = ((*PAIR, "event", "window"), skill, {"long_name": text, "units": "1"})
    return [ds]


def _tallies(results: Results) -> list[Tally]:
    found = (t for key, t in results.panel.tallies.items() if key[0] == results.sample)
    return [tally for tally in found if "event_table" in tally.total]


def _cell(results: Results, read: Read, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    if tally is None or "event_table" not in tally.total:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        return read(tally)


def _padded(results: Results, read: Read, size: int, system: str, field: str) -> np.ndarray | None:
    """(event, size): systems of fewer members have NaN at the end."""
    found = _cell(results, read, system, field)
    return None if found is None else np.pad(found, ((0, 0), (0, size - found.shape[1])), constant_values=np.nan)


def _table(tally: Tally) -> np.ndarray:
    """The counts (event, 2, m + 1), without events that hardly happen, of which there is nothing to say."""
    table = tally.total["event_table"].astype(np.float64)
    rare = table[:, 1].sum(axis=-1) <= LEAST * table.sum(axis=(1, 2))
    return np.where(rare[:, None, None], np.nan, table)


def _known(tally: Tally, measure: Reliability | ROC | ROCArea) -> np.ndarray:
    """``measure`` of the events that happened, NaN of the others."""
    table = _table(tally)
    happened = np.isfinite(table).all(axis=(1, 2))
    found = np.asarray(measure.result({"table": table[happened]}))
    filled = np.full((len(table), *found.shape[1:]), np.nan)
    filled[happened] = found
    return filled


def _probability(tally: Tally) -> np.ndarray:
    size = tally.total["event_table"].shape[-1]
    return np.tile(np.arange(size) / (size - 1), (len(EVENTS), 1))


def _reliability(part: int, tally: Tally) -> np.ndarray:
    return np.asarray(_known(tally, Reliability())[..., part])


def _roc(part: int, tally: Tally) -> np.ndarray:
    """Rates of probabilities k / m and above."""
    return np.asarray(_known(tally, ROC())[..., :-1, part])


def _area(tally: Tally) -> np.ndarray:
    return _known(tally, ROCArea())


def _fss(tally: Tally) -> np.ndarray:
    return np.asarray(1 - tally.total["fss_difference"] / tally.total["fss_squares"])
