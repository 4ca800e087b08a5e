"""Whole years of daily data: yearly indices and extremes, cell by cell.

Runs of days and yearly extremes need the days of a year together, in order, so they are not sums over cases: after all
cases are judged the data are read once more, a year of one variable and system at a time, at evenly spread cells, at
most ``CELLS`` along each axis, and for the first ``MEMBERS`` members. A cell counts on the days that the truth has.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from sciffusion.evaluation.layout import Case, Field
from sciffusion.evaluation.measures.indices import INDICES, Kind, climate_indices, is_trajectory, kind_of
from sciffusion.evaluation.panel import Panel
from sciffusion.evaluation.source import Source

__all__ = ["EXTREMES", "TRUTH", "Climate", "Yearly", "climate", "whole_years"]

log = logging.getLogger("sciffusion")
TRUTH = ""
MEMBERS = 8
CELLS = {1: 4096, 2: 96, 3: 24}  # along each axis, by rank
LEAST_DAYS = 350  # of a year; a calendar may have 360
EXTREMES = {"lowest": np.fmin, "highest": np.fmax}
Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Yearly:
    """Of one field: ``values`` (member, year, *cells) by system (``TRUTH`` among them) and by index or extreme.

    ``weights`` (*cells) are cell areas, ``units`` those of the indices.
    """

    values: dict[str, Values]
    weights: np.ndarray
    units: dict[str, str]
    years: int


@dataclass(frozen=True)
class Climate:
    """Yearly values by field; ``reasons`` say of what there are none, and why; ``excerpt`` what was not read."""

    fields: dict[str, Yearly] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    excerpt: str = ""


def climate(panel: Panel, fields: Sequence[Field], cases: Sequence[Case], *, forced: bool = False) -> Climate:
    """Of all whole years among ``cases``; ``forced``: runs of days also of members that are not trajectories."""
    years = whole_years(cases)
    if not years:
        return Climate(reasons=("indices and return levels by cell: they need whole years of daily data with dates",))
    found = {one.label: _yearly(panel, one, years, forced) for one in fields}
    kinds = [kind_of(panel.truth.ds[one.variable]) for one in fields]
    reasons = list(_refused(panel)) if "precipitation" in kinds and not forced else []
    if not any(kinds):
        reasons.append("indices: no variable is known as daily precipitation or daily maximum temperature")
    known = {label: one for label, one in found.items() if one is not None}
    return Climate(known, tuple(reasons), "; ".join(_excerpt(panel)))


def _steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One cell in so many is read, along each axis."""
    return tuple(-(-n // CELLS[len(shape)]) for n in shape)


def _excerpt(panel: Panel) -> Iterator[str]:
    """Of which cells and members the numbers are, where that is not all."""
    grid = panel.domain.grid
    thinned = [
        f"one in {step} along {dim}" for dim, step in zip(grid.dims, _steps(grid.shape), strict=True) if step > 1
    ]
    if thinned:
        yield f"cells: {', '.join(thinned)}"
    large = [name for name, one in panel.systems.items() if one.member and one.ds.sizes[one.member] > MEMBERS]
    if large:
        yield f"members: the first {MEMBERS} of {', '.join(large)}"


def whole_years(cases: Sequence[Case]) -> list[list[Case]]:
    """The cases of every whole year (of every scenario), in order; none where dates are not about a day apart."""
    found: dict[tuple[str, int], list[tuple[Any, Case]]] = {}
    for case in cases:
        dates = [dim for dim, value in case.values.items() if hasattr(value, "year")]
        if len(dates) != 1:
            return []
        date = case.values[dates[0]]
        rest = ", ".join(f"{dim}={value}" for dim, value in case.values.items() if dim != dates[0])
        found.setdefault((rest, date.year), []).append((date, case))
    years = [sorted(rows, key=lambda row: row[0]) for _, rows in sorted(found.items()) if len(rows) >= LEAST_DAYS]
    steps = [np.diff([(date - rows[0][0]).total_seconds() / 86400 for date, _ in rows]) for rows in years]
    if any(step.min() < 0.99 for step in steps):
        return []
    return [[case for _, case in rows] for rows in years]


def _refused(panel: Panel) -> Iterator[str]:
    runs = " and ".join(index.title for index in INDICES.values() if index.sequence)
    for name, source in panel.systems.items():
        if not is_trajectory(source.ds):
            yield f"{runs} of {name}: its members are not trajectories (see time_coherence), and it was not forced"


def _yearly(panel: Panel, one: Field, years: Sequence[Sequence[Case]], forced: bool) -> Yearly | None:
    """None where the truth or every system lacks a day."""
    cells = tuple(slice(None, None, step) for step in _steps(panel.domain.grid.shape))
    template = panel.truth.ds[one.variable]
    sources = {TRUTH: panel.truth, **{name: source.only(slice(MEMBERS)) for name, source in panel.systems.items()}}
    rows, units = {name: list[Values]() for name in sources}, dict[str, str]()
    for place, year in enumerate(years):
        log.info("%s: whole year %d of %d", one.label, place + 1, len(years))
        truth = _days(panel.truth, one, year, cells)
        if truth is None:
            return None
        for name, source in sources.items():
            days = truth if name == TRUTH else _days(source, one, year, cells)
            chosen = _chosen(kind_of(template), forced or name == TRUTH or is_trajectory(source.ds))
            if days is not None:
                rows[name].append(_of_year(np.where(np.isfinite(truth), days, np.nan), year, template, chosen, units))
    whole = {name: own for name, own in rows.items() if len(own) == len(years)}
    values = {name: {key: np.stack([row[key] for row in own], axis=1) for key in own[0]} for name, own in whole.items()}
    return Yearly(values, panel.domain.weights[cells], units, len(years)) if len(values) > 1 else None


def _chosen(kind: Kind | None, in_sequence: bool) -> list[str]:
    """The indices of such a variable."""
    return [
        name
        for name, index in INDICES.items()
        if kind == ("precipitation" if index.rain else "temperature") and (in_sequence or not index.sequence)
    ]


def _of_year(
    days: np.ndarray, year: Sequence[Case], template: xr.DataArray, chosen: Sequence[str], units: dict[str, str]
) -> Values:
    """Indices and extremes (member, *cells) of one year (day, member, *cells); adds to ``units``."""
    found = {name: function.reduce(days, axis=0) for name, function in EXTREMES.items()}
    if not chosen:
        return found
    dates = [value for case in year for value in case.values.values() if hasattr(value, "year")]
    flat = xr.DataArray(days.reshape(*days.shape[:2], -1), {"time": dates}, ("time", "member", "cell"), "field")
    rain = INDICES[chosen[0]].rain
    ds = flat.assign_attrs(units=template.attrs.get("units", "")).to_dataset()
    names = ("field", None) if rain else (None, "field")
    for name, index in climate_indices(ds, *names, indices=chosen).items():
        found[str(name)] = index.transpose("year", "member", "cell").values[0].reshape(days.shape[1:])
        units[str(name)] = str(index.attrs["units"])
    return found


def _days(source: Source, one: Field, year: Sequence[Case], cells: tuple[slice, ...]) -> np.ndarray | None:
    """(day, member, *cells); None where a day is missing."""
    held = source.held(one, year, dict(zip(source.layout.grid, cells, strict=True)))
    if held is None:
        return None
    days = [day for case in year if (day := held.read(one, case)) is not None]
    return np.stack(days) if len(days) == len(year) else None
