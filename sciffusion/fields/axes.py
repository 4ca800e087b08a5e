"""One axis of a grid: where its cells end, whether it wraps around, which axis is latitude or longitude.

Coordinates may ascend or descend; what is returned runs in the same direction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cftime
import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError

__all__ = [
    "Auxiliary",
    "at_positions",
    "attributes",
    "auxiliary",
    "cell_edges",
    "check_coordinate",
    "contiguous_bounds",
    "cyclic_columns",
    "find_axis",
    "latitude_edges",
    "positions",
    "wraps_around",
]

Auxiliary = tuple[tuple[str, ...], np.ndarray, dict[str, Any]]

_NAMING_OTHERS = ("bounds", "climatology", "cell_measures", "ancillary_variables")
_EPOCH = np.datetime64(0, "ns")
_CLUES = {
    "latitude": {
        "standard_name": {"latitude"},
        "units": {"degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"},
        "name": {"lat", "latitude", "nav_lat", "xlat", "lats"},
    },
    "longitude": {
        "standard_name": {"longitude"},
        "units": {"degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"},
        "name": {"lon", "longitude", "nav_lon", "xlong", "lons"},
    },
}


def find_axis(kind: str, dims: Sequence[str], attributes: Sequence[Mapping[str, Any]]) -> int | None:
    """Index of the ``latitude`` or ``longitude`` dim: by standard_name, by units, by name; None if there is none."""
    clues = _CLUES[kind]
    for key in ("standard_name", "units"):
        for index, attrs in enumerate(attributes):
            if str(attrs.get(key, "")).lower() in clues[key]:
                return index
    for index, dim in enumerate(dims):
        if dim.lower() in clues["name"]:
            return index
    return None


def positions(values: np.ndarray) -> np.ndarray:
    """A coordinate as float64: numbers as they are, times in seconds since 1970 in their own calendar."""
    if values.dtype.kind in "mM":
        since = values - _EPOCH if values.dtype.kind == "M" else values
        seconds: np.ndarray = since / np.timedelta64(1, "s")
        return seconds
    if values.dtype == object:
        return np.asarray(cftime.date2num(values, "seconds since 1970-01-01", values[0].calendar), np.float64)
    return values.astype(np.float64)


def at_positions(numbers: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The inverse of `positions`: the coordinate of the kind of ``like`` at ``numbers``."""
    if like.dtype.kind in "mM":
        since = np.round(numbers * 1e9).astype("timedelta64[ns]")
        return np.asarray(_EPOCH + since if like.dtype.kind == "M" else since)
    if like.dtype == object:
        return np.asarray(cftime.num2date(numbers, "seconds since 1970-01-01", like[0].calendar))
    return numbers


def check_coordinate(name: str, values: np.ndarray) -> None:
    """Raise SciffusionError unless the coordinate is one-dimensional, finite and strictly monotonic."""
    if values.ndim != 1:
        raise SciffusionError(f"coordinate {name!r} has {values.ndim} dimensions", "a grid dim needs a 1-D coordinate")
    steps = np.diff(positions(values))
    if not np.isfinite(steps).all() or (len(values) == 1 and values.dtype.kind == "f" and np.isnan(values[0])):
        raise SciffusionError(f"coordinate {name!r} has missing values", "give every row and column a coordinate")
    if (steps == 0).any():
        at = values[int(np.flatnonzero(steps == 0)[0])]
        raise SciffusionError(f"coordinate {name!r} has {at} twice", "drop the duplicates")
    if not ((steps > 0).all() or (steps < 0).all()):
        raise SciffusionError(f"coordinate {name!r} is not monotonic", f"sort the data by {name!r}")


def cell_edges(centres: np.ndarray, lone: float = 1.0) -> np.ndarray:
    """Edges (n + 1,) of cells around ``centres`` (n,): midpoints, and half a step beyond the ends.

    A single cell has the width ``lone``.
    """
    if len(centres) == 1:
        return np.array([centres[0] - lone / 2, centres[0] + lone / 2])
    inner = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - inner[0], 2 * centres[-1] - inner[-1]
    return np.concatenate([[first], inner, [last]])


def latitude_edges(centres: np.ndarray) -> np.ndarray:
    """`cell_edges` of latitudes in degrees, clipped at the poles.

    Gaussian latitudes end short of the poles; an end cell that leaves less than half a step open is closed there.
    """
    if np.abs(centres).max() > 90 + 1e-4:
        raise SciffusionError(f"a latitude of {centres[np.abs(centres).argmax()]:g}", "latitudes are degrees north")
    edges: np.ndarray = np.clip(cell_edges(centres), -90.0, 90.0)
    for end, inner in ((0, 1), (-1, -2)):
        half = abs(centres[end] - edges[inner])
        if 0 < 90 - abs(edges[end]) < half * (1 - 1e-3):
            edges[end] = np.copysign(90.0, edges[end])
    return edges


def wraps_around(centres: np.ndarray, period: float = 360.0) -> bool:
    """Whether the cells cover one whole period, once: longitudes 0..359, but neither 0..360 nor 0..350.

    Two or more cells, whose steps may vary; a tenth of a step of rounding is allowed.
    """
    if len(centres) < 2:
        return False
    centres = centres.astype(np.float64)
    steps = np.abs(np.diff(centres))
    gap = period - abs(centres[-1] - centres[0])
    return bool(0.9 * steps.min() <= gap <= 1.1 * steps.max())


def cyclic_columns(centres: np.ndarray, period: float = 360.0) -> int:
    """How many columns at the end repeat those at the start (1 for longitudes 0, ..., 360): drop them before use."""
    centres = centres.astype(np.float64)
    if len(centres) < 3:
        return 0
    step = np.abs(np.diff(centres)).mean()
    beyond = np.abs(centres - centres[0]) > period - 0.1 * step
    return int(beyond.sum())


def attributes(variable: xr.Variable | xr.DataArray) -> dict[str, Any]:
    """Attributes of a variable, but not those that name others which are not carried along, such as its bounds."""
    return {str(name): value for name, value in variable.attrs.items() if name not in _NAMING_OTHERS}


def contiguous_bounds(ds: xr.Dataset | xr.DataArray, coord: xr.Variable) -> np.ndarray | None:
    """Edges (n + 1,) from the CF bounds variable, if there is one and its cells touch."""
    name = coord.attrs.get("bounds", coord.encoding.get("bounds"))
    if name is None or not isinstance(ds, xr.Dataset) or name not in ds.variables:
        return None
    bounds = ds.variables[name].values
    if bounds.shape != (*coord.shape, 2) or bounds.dtype.kind not in "fiu":
        return None
    rising = (coord.values[-1] > coord.values[0]) == (bounds[0, 1] > bounds[0, 0])
    bounds = bounds if rising or len(bounds) == 1 else bounds[:, ::-1]
    if not np.allclose(bounds[1:, 0], bounds[:-1, 1], atol=1e-3 * np.abs(bounds[0, 1] - bounds[0, 0])):
        return None
    return np.concatenate([bounds[:, 0], bounds[-1:, 1]]).astype(np.float64)


def auxiliary(ds: xr.Dataset | xr.DataArray, dims: Sequence[str]) -> dict[str, Auxiliary]:
    """Coordinates on grid dims only that are not the dims' own."""
    return {
        str(name): (tuple(map(str, coord.dims)), coord.values, attributes(coord))
        for name, coord in ds.coords.items()
        if name not in ds.dims and coord.dims and set(coord.dims) <= set(dims)
    }
