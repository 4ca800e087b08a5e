"""Climate indices of CORDEX-ML-Bench (arXiv:2606.29172), by year: Rx1day, SDII, CDD, CWD, TXx, TXn.

Runs of days mean something only where consecutive days of a member belong to one evolution. Members whose noise is
independent between days say so in the attribute ``time_coherence``, and are refused for CDD and CWD unless forced.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from xarray.core.groupby import DataArrayGroupBy

from sciffusion.errors import SciffusionError
from sciffusion.fields.units import conversion

__all__ = ["INDICES", "WET", "climate_indices", "is_trajectory", "kind_of"]

WET = 1.0  # mm per day: ETCCDI's wet day
RAIN_NAMES = ("pr", "tp", "rr", "prcp", "precip", "precipitation", "rain", "rainfall")
RAIN_STANDARD = re.compile(r"(precipitation|rainfall)_(flux|amount|rate)|thickness_of_(precipitation|rainfall)_amount")
WARM_NAMES = ("tasmax", "tmax", "tx", "mx2t", "t2m_max")
Kind = Literal["precipitation", "temperature"]


def climate_indices(
    ds: xr.Dataset,
    precipitation: str | None = None,
    temperature: str | None = None,
    dim: str = "time",
    *,
    indices: Sequence[str] | None = None,
    forced: bool = False,
) -> xr.Dataset:
    """Indices of daily data, (..., year).

    Parameters
    ----------
    ds
        Daily data with dates along ``dim``; its attribute ``time_coherence`` says whether members are trajectories.
    precipitation
        Name of daily precipitation, for rx1day, sdii, cdd and cwd, in any unit of it (mm d-1 if it has none).
    temperature
        Name of daily maximum temperature, for txx and txn.
    indices
        Which; default: all that the variables allow.

    Runs do not go on into the next year, and end at a missing day.

    Raises
    ------
    SciffusionError
        For steps shorter than a day, units that are no precipitation, or cdd and cwd of members that are not
        trajectories, unless ``forced``.
    """
    allowed = [name for name, one in INDICES.items() if (precipitation if one.rain else temperature) is not None]
    chosen = allowed if indices is None else list(indices)
    if not chosen or set(chosen) - set(allowed):
        raise SciffusionError(f"no data for the indices {', '.join(chosen) or 'asked for'}", "name the variables")
    _daily(ds, dim)
    _coherent(ds, chosen, forced)
    fields = {True: _millimetres(ds[precipitation])} if precipitation is not None else {}
    fields |= {False: ds[temperature]} if temperature is not None else {}
    return xr.Dataset({name: _index(INDICES[name], fields[INDICES[name].rain], dim) for name in chosen})


def kind_of(field: xr.DataArray) -> Kind | None:
    """Whether the indices know a variable: precipitation, or daily maximum temperature; by CF attributes, then name."""
    name, standard = str(field.name).lower(), str(field.attrs.get("standard_name", ""))
    if RAIN_STANDARD.search(standard) or name in RAIN_NAMES:
        try:
            _millimetres(field.isel(dict.fromkeys(field.dims, slice(0, 0))))
        except SciffusionError:
            return None
        return "precipitation"
    warmest = "maximum" in str(field.attrs.get("cell_methods", ""))
    return "temperature" if name in WARM_NAMES or (standard == "air_temperature" and warmest) else None


def is_trajectory(ds: xr.Dataset) -> bool:
    """Whether consecutive days of a member belong to one evolution; taken for granted unless the attributes deny it."""
    return not str(ds.attrs.get("time_coherence", "")).startswith("none")


def _index(index: "Index", field: xr.DataArray, dim: str) -> xr.DataArray:
    found = index.of(field.groupby(field[dim].dt.year), dim)
    return found.assign_attrs(long_name=index.text, units=index.units or str(field.attrs.get("units", "")))


def _wet_mean(years: DataArrayGroupBy, dim: str) -> xr.DataArray:
    return years.map(lambda one: one.where(one >= WET).mean(dim))


def _run(wet: bool, years: DataArrayGroupBy, dim: str) -> xr.DataArray:
    return years.map(lambda one: _longest((one >= WET if wet else one < WET).where(one.notnull()), dim))


class Index(NamedTuple):
    """Its usual name, what it is of, in words, its units, how it is computed from a field grouped by year, whether days
    must be in sequence.
    """

    title: str
    rain: bool
    text: str
    units: str
    of: Callable[[DataArrayGroupBy, str], xr.DataArray]
    sequence: bool = False


INDICES = {
    "rx1day": Index("Rx1day", True, "highest precipitation of one day", "mm", lambda years, dim: years.max(dim)),
    "sdii": Index("SDII", True, "mean precipitation of wet days", "mm d-1", _wet_mean),
    "cdd": Index("CDD", True, "most consecutive dry days", "d", partial(_run, False), sequence=True),
    "cwd": Index("CWD", True, "most consecutive wet days", "d", partial(_run, True), sequence=True),
    "txx": Index("TXx", False, "highest daily maximum temperature", "", lambda years, dim: years.max(dim)),
    "txn": Index("TXn", False, "lowest daily maximum temperature", "", lambda years, dim: years.min(dim)),
}


def _longest(flags: xr.DataArray, dim: str) -> xr.DataArray:
    """The longest run of ones along ``dim``; a missing value ends a run, NaN where all are missing."""
    found: xr.DataArray = xr.apply_ufunc(
        _longest_run,
        flags,
        input_core_dims=[[dim]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"allow_rechunk": True},
    )
    return found


def _longest_run(flags: np.ndarray) -> np.ndarray:
    """Along the last axis: how many ones there were so far, less how many before the last that was none."""
    count = np.cumsum(flags == 1, axis=-1)
    run = count - np.maximum.accumulate(np.where(flags == 1, 0, count), axis=-1)
    return np.where(np.isnan(flags).all(axis=-1), np.nan, run.max(axis=-1))


def _coherent(ds: xr.Dataset, chosen: Sequence[str], forced: bool) -> None:
    runs = [name for name in chosen if INDICES[name].sequence]
    if runs and not forced and not is_trajectory(ds):
        raise SciffusionError(
            f"{' and '.join(runs)} of members that are not trajectories (time_coherence: {ds.attrs['time_coherence']})",
            "choose other indices, or pass forced=True",
        )


def _daily(ds: xr.Dataset, dim: str) -> None:
    if dim not in ds.coords or ds[dim].dtype.kind not in "MO":
        raise SciffusionError(f"{dim} has no dates", "give daily data with dates")
    steps = np.diff(ds[dim].values)
    days = np.array(
        [step / np.timedelta64(1, "D") if isinstance(step, np.timedelta64) else step.days for step in steps]
    )
    if (days < 0.99).any():
        raise SciffusionError(f"the steps of {dim} are shorter than a day", "aggregate to days first")


def _millimetres(field: xr.DataArray) -> xr.DataArray:
    units = str(field.attrs.get("units", "mm d-1"))
    units = {"mm": "mm d-1", "m": "m d-1", "kg m-2": "kg m-2 d-1"}.get(units, units)
    slope, offset = conversion(units, "mm d-1")
    return (field * slope + offset).assign_attrs(units="mm d-1")
