"""Velocities and their increments: vorticity, divergence, helicity, structure functions.

Derivatives are centred differences of second order (one-sided at open ends) in the coordinates' own units of length;
on a sphere with the metric of the Earth, in metres. An increment over a distance r is f(x + r) - f(x).
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.increments import lags_of
from sciffusion.evaluation.lags import lagged
from sciffusion.evaluation.measures.places import grid_of, mapped, with_distances
from sciffusion.evaluation.spectra import EARTH_RADIUS
from sciffusion.fields.grid import Grid

__all__ = ["divergence", "helicity", "longitudinal_increments", "structure_function", "vorticity"]


def vorticity(
    u: xr.DataArray, v: xr.DataArray, dims: Sequence[str] | None = None, *, periodic: Sequence[str] | None = None
) -> xr.DataArray:
    """dv/dx - du/dy of a horizontal flow; ``dims`` are (y, x) or (latitude, longitude)."""
    grid = grid_of(u, dims, periodic)
    cosine, (north, east) = _metric(grid), _horizontal(grid)
    ahead = _derivative(v, grid, east) / cosine
    across = _derivative(u * cosine, grid, north) / cosine
    return (ahead - across).assign_attrs(long_name="vorticity")


def divergence(
    u: xr.DataArray, v: xr.DataArray, dims: Sequence[str] | None = None, *, periodic: Sequence[str] | None = None
) -> xr.DataArray:
    """du/dx + dv/dy of a horizontal flow; ``dims`` are (y, x) or (latitude, longitude)."""
    grid = grid_of(u, dims, periodic)
    cosine, (north, east) = _metric(grid), _horizontal(grid)
    total = _derivative(u, grid, east) / cosine + _derivative(v * cosine, grid, north) / cosine
    return total.assign_attrs(long_name="divergence")


def helicity(velocity: Mapping[str, xr.DataArray], *, periodic: Sequence[str] | None = None) -> xr.DataArray:
    """Velocity times its curl, of a flow in a box; ``velocity`` maps the three dims to the components along them."""
    dims = list(velocity)
    if len(dims) != 3:
        raise SciffusionError(f"helicity of {len(dims)} components", "give the component along each of three dims")
    grid = grid_of(velocity[dims[0]], dims, periodic)
    total = xr.zeros_like(velocity[dims[0]])
    sign = _orientation(dims)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        curl = _derivative(velocity[dims[k]], grid, j) - _derivative(velocity[dims[j]], grid, k)
        total = total + sign * velocity[dims[i]] * curl
    return total.assign_attrs(long_name="helicity density")


def _orientation(dims: Sequence[str]) -> int:
    """1 if x, y, z come in cyclic order, -1 if not; other names are taken as given."""
    places = ["xyz".find(dim[0].lower()) for dim in dims]
    return -1 if sorted(places) == [0, 1, 2] and places in ([2, 1, 0], [1, 0, 2], [0, 2, 1]) else 1


def structure_function(
    field: xr.DataArray,
    lags: Sequence[int] | None = None,
    orders: Sequence[float] = (2,),
    dims: Sequence[str] | None = None,
    *,
    periodic: Sequence[str] | None = None,
    absolute: bool = True,
) -> xr.DataArray:
    """Mean of |f(x + r) - f(x)|^p along every dim; signed powers with ``absolute=False``.

    Parameters
    ----------
    lags
        Cells; default: 1, 2, 4, ... up to a quarter of the shortest dim.
    orders
        p.

    Returns
    -------
    DataArray (..., direction, order, lag) with the coordinate ``distance`` (direction, lag). Pairs with a NaN are left
    out.
    """
    grid = grid_of(field, dims, periodic)
    steps = lags_of(grid.shape) if lags is None else list(lags)
    sizes = {"direction": grid.rank, "order": len(orders), "lag": len(steps)}
    function = partial(_moments, grid.periodic, steps, orders, absolute)
    return with_distances(mapped(function, [field], grid.dims, sizes), grid, steps).assign_coords(order=list(orders))


def longitudinal_increments(
    velocity: Mapping[str, xr.DataArray],
    lags: Sequence[int] | None = None,
    orders: Sequence[float] = (2, 3, 4),
    *,
    periodic: Sequence[str] | None = None,
) -> xr.DataArray:
    """Signed moments of u_i(x + r e_i) - u_i(x), mean over the directions i, (..., order, lag).

    ``velocity`` maps grid dims to the components along them. In isotropic turbulence the third is -4/5 of the
    dissipation times r (Kolmogorov 1941). All dims must have the same spacing. Skewness and flatness follow from the
    moments: S3 / S2^1.5, S4 / S2^2.
    """
    dims = list(velocity)
    grid = grid_of(next(iter(velocity.values())), dims, periodic)
    if not np.allclose(grid.spacing, grid.spacing[0], rtol=1e-6):
        raise SciffusionError("the spacings of the dims differ", "take structure_function of each component")
    found = [
        structure_function(velocity[dim], lags, orders, dims, periodic=periodic, absolute=False).isel(direction=i)
        for i, dim in enumerate(dims)
    ]
    total: xr.DataArray = sum(one.drop_vars("direction") for one in found) / len(found)  # type: ignore[assignment]
    return total.assign_attrs(long_name="moments of longitudinal increments")


def _moments(
    periodic: Sequence[bool], lags: Sequence[int], orders: Sequence[float], absolute: bool, field: np.ndarray
) -> np.ndarray:
    found = np.full((field.ndim, len(orders), len(lags)), np.nan)
    for axis, wraps in enumerate(periodic):
        for j, lag in enumerate(lags):
            if lag >= field.shape[axis]:
                continue
            first, second = lagged(field.astype(np.float64), axis, lag, wraps)
            step = second - first
            step = np.abs(step) if absolute else step
            found[axis, :, j] = [np.nanmean(step**order) for order in orders]
    return found


def _horizontal(grid: Grid) -> tuple[int, int]:
    """Axes of y and x."""
    if grid.latitude_axis is not None and grid.longitude_axis is not None:
        return grid.latitude_axis, grid.longitude_axis
    if grid.rank != 2:
        raise SciffusionError(f"{grid.rank} dims for a horizontal flow", "give dims=(y, x)")
    return 0, 1


def _metric(grid: Grid) -> xr.DataArray | float:
    """Cosine of the latitude on a sphere, 1 on a plane; never zero, so that poles stay finite."""
    if grid.geometry != "sphere" or grid.latitude_axis is None:
        return 1.0
    cosine = np.cos(np.deg2rad(grid.positions(grid.latitude_axis)))
    return xr.DataArray(np.maximum(cosine, 1e-6), dims=grid.dims[grid.latitude_axis])


def _derivative(field: xr.DataArray, grid: Grid, axis: int) -> xr.DataArray:
    """Derivative along an axis, in metres on the sphere."""
    positions, dim = grid.positions(axis), grid.dims[axis]
    if grid.geometry == "sphere":
        positions = np.deg2rad(positions) * EARTH_RADIUS * 1e3
    function = partial(_difference, positions, grid.periodic[axis])
    found: xr.DataArray = xr.apply_ufunc(
        function, field, input_core_dims=[[dim]], output_core_dims=[[dim]], dask="allowed", keep_attrs=False
    )
    return found.transpose(*field.dims)


def _difference(positions: np.ndarray, wraps: bool, values: np.ndarray) -> np.ndarray:
    if not wraps:
        return np.asarray(np.gradient(values, positions, axis=-1))
    step = positions[1] - positions[0]
    return np.asarray((np.roll(values, -1, -1) - np.roll(values, 1, -1)) / (2 * step))
