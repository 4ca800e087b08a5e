"""What the dimensions of a data set mean: latitude, time, level, ...; by CF attributes, then units, then names.

Sources: CF conventions 1.12, chapter 4 (coordinate types); the names are those in common use where files carry no
attributes. ``rlat``/``rlon`` of a rotated pole are ``y``/``x``: they are not geographic.
"""

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

__all__ = [
    "FRAME",
    "HORIZONTAL",
    "Role",
    "auxiliary_coordinates",
    "find_axis",
    "geometry_of",
    "is_degrees",
    "mend_of_missing_dim",
    "role_of",
    "roles",
    "spacing_of",
    "wraps_around",
]

FRAME = "frame"  # the axis of times within a window, as `sciffusion windows` writes it
Role = Literal["latitude", "longitude", "y", "x", "vertical", "time", "lead_time", "realization"]
HORIZONTAL: tuple[Role, ...] = ("latitude", "longitude", "y", "x")

_STANDARD_NAMES: dict[str, Role] = {
    "latitude": "latitude",
    "longitude": "longitude",
    "grid_latitude": "y",
    "grid_longitude": "x",
    "projection_y_coordinate": "y",
    "projection_x_coordinate": "x",
    "time": "time",
    "forecast_reference_time": "time",
    "forecast_period": "lead_time",
    "realization": "realization",
    "air_pressure": "vertical",
    "altitude": "vertical",
    "height": "vertical",
    "depth": "vertical",
    "model_level_number": "vertical",
    "atmosphere_hybrid_sigma_pressure_coordinate": "vertical",
    "atmosphere_sigma_coordinate": "vertical",
    "ocean_sigma_coordinate": "vertical",
    "ocean_s_coordinate": "vertical",
}
_UNITS: dict[Role, str] = {
    "latitude": r"degrees?_?(north|n)$",
    "longitude": r"degrees?_?(east|e)$",
    "time": r"(seconds?|minutes?|hours?|days?|weeks?|months?|years?|[smhd]) since ",
    "vertical": r"(hpa|pa|millibars?|mbar|dbar|bar)$",
}
_AXIS: dict[str, Role] = {"T": "time", "Z": "vertical", "E": "realization"}
_NAMES: dict[Role, str] = {
    "latitude": r"lats?|latitudes?|nav_lat|nlat|g0_lat_\d",
    "longitude": r"lons?|longs?|longitudes?|nav_lon|nlon|g0_lon_\d",
    "y": r"y|rlat|yc|yt?_?dim|ny|south_north|projection_y_coordinate|grid_latitude|northing|y_[a-z0-9]+",
    "x": r"x|rlon|xc|xt?_?dim|nx|west_east|projection_x_coordinate|grid_longitude|easting|x_[a-z0-9]+",
    "lead_time": r"lead|lead_?time|prediction_timedelta|forecast_(period|hour)|leadtime|step",
    "time": r"time|times|valid_time|init_time|initialization_time|forecast_reference_time|date|datetime|t|time_\w+",
    "vertical": r"levels?|lev|plev\w*|pressure\w*|isobaric\w*|heights?|altitude|depth\w*|olevel|s_rho|sigma|"
    r"hybrid|model_level\w*|bottom_top|nz|soil_?lay\w*",
    "realization": r"reali[sz]ations?|members?|ensembles?|ens|number|ensemble_member|source_member|run",
}


def role_of(ds: xr.Dataset, name: Hashable) -> Role | None:
    """What the dimension or coordinate ``name`` of ``ds`` means, or None when nothing tells."""
    variable = ds.variables.get(name)
    if variable is not None:
        found = _role_by_attributes(variable)
        if found:
            return found
    for role, pattern in _NAMES.items():
        if re.fullmatch(pattern, str(name).lower()):
            return role
    return None


def _role_by_attributes(variable: xr.Variable) -> Role | None:
    attributes: dict[str, Any] = {**variable.encoding, **variable.attrs}
    standard = str(attributes.get("standard_name", "")).lower()
    if standard in _STANDARD_NAMES:
        return _STANDARD_NAMES[standard]
    if np.issubdtype(variable.dtype, np.datetime64) or "calendar" in attributes:
        return "time"
    units = str(attributes.get("units", "")).strip().lower()
    for role, pattern in _UNITS.items():
        if re.match(pattern, units):
            return role
    return _AXIS.get(str(attributes.get("axis", "")).upper())


def roles(ds: xr.Dataset, dims: Iterable[Hashable] | None = None) -> dict[str, Role | None]:
    """The role of each dimension of ``ds`` (or of ``dims``)."""
    return {str(dim): role_of(ds, dim) for dim in (ds.dims if dims is None else dims)}


def find_axis(ds: xr.Dataset, role: Role, dims: Iterable[Hashable] | None = None) -> str | None:
    """The first dimension of ``ds`` with this role."""
    return next((dim for dim, found in roles(ds, dims).items() if found == role), None)


def auxiliary_coordinates(ds: xr.Dataset) -> tuple[str, str] | None:
    """Names of the two-dimensional (latitude, longitude) of a projected or curvilinear grid."""
    found: dict[Role, str] = {}
    for name, variable in ds.variables.items():
        role = role_of(ds, name) if variable.ndim == 2 else None
        if role in ("latitude", "longitude"):
            found.setdefault(role, str(name))
    return (found["latitude"], found["longitude"]) if len(found) == 2 else None


def mend_of_missing_dim(ds: xr.Dataset, rename: str) -> str:
    """What to do about a grid dim that ``ds`` lacks: ``rename``, unless its grid is of another kind."""
    other_kind = auxiliary_coordinates(ds) or {"latitude", "longitude"} <= {role_of(ds, dim) for dim in ds.dims}
    return "bring the data to coordinates of the same kind first (cdo remapcon, xesmf)" if other_kind else rename


def is_degrees(ds: xr.Dataset, dim: Hashable) -> bool:
    """Whether the coordinate of ``dim`` is an angle in degrees: by units, or by being a latitude or longitude."""
    if dim not in ds.coords:
        return False
    units = str(ds[dim].attrs.get("units", "")).strip().lower()
    return units.startswith("deg") or (not units and role_of(ds, dim) in ("latitude", "longitude"))


def geometry_of(ds: xr.Dataset, dims: Sequence[str]) -> Literal["plane", "sphere"]:
    """``sphere`` when the grid dims have a latitude and a longitude coordinate, else ``plane`` (rotated poles too)."""
    found = roles(ds, [dim for dim in dims if dim in ds.coords])
    return "sphere" if {"latitude", "longitude"} <= set(found.values()) else "plane"


def spacing_of(ds: xr.Dataset, dim: Hashable) -> float | None:
    """Mean spacing of a numeric coordinate (positive), or None without one."""
    if dim not in ds.coords or ds.sizes[dim] < 2 or not np.issubdtype(ds[dim].dtype, np.number):
        return None
    values = np.asarray(ds[dim].values, dtype=np.float64)
    return float(abs(values[-1] - values[0]) / (values.size - 1))


def wraps_around(ds: xr.Dataset, dim: Hashable) -> bool:
    """Whether a longitude covers the whole circle, also where its first column is repeated at the end."""
    spacing = spacing_of(ds, dim)
    if spacing is None or role_of(ds, dim) != "longitude" or not is_degrees(ds, dim):
        return False
    span = spacing * (ds.sizes[dim] - 1)
    return min(abs(span + spacing - 360.0), abs(span - 360.0)) < 0.25 * spacing
