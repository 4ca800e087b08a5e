"""Dependence: between cells, between variables, between successive times. NaN are left out in pairs."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.increments import lags_of
from sciffusion.evaluation.lags import lagged
from sciffusion.evaluation.measures.places import grid_of, mapped, with_distances

__all__ = ["lag_correlation", "spatial_autocorrelation", "variable_correlation"]


def spatial_autocorrelation(
    field: xr.DataArray,
    lags: Sequence[int] | None = None,
    dims: Sequence[str] | None = None,
    *,
    periodic: Sequence[str] | None = None,
) -> xr.DataArray:
    """Correlation of cells ``lags`` cells apart along every dim, (..., direction, lag), about the mean of each field.

    The sum of products of pairs over the mean of their squares; ``distance`` (direction, lag) is a coordinate.
    """
    grid = grid_of(field, dims, periodic)
    steps = lags_of(grid.shape) if lags is None else list(lags)
    sizes = {"direction": grid.rank, "lag": len(steps)}
    found = mapped(partial(_autocorrelation, grid.periodic, steps), [field], grid.dims, sizes)
    return with_distances(found, grid, steps).assign_attrs(long_name="spatial autocorrelation", units="1")


def lag_correlation(field: xr.DataArray, lag: int = 1, dim: str = "time") -> xr.DataArray:
    """Correlation of every cell with itself ``lag`` steps later (Pearson, of the two overlapping parts)."""
    n = field.sizes[dim]
    if not 0 < lag < n - 1:
        raise SciffusionError(f"a lag of {lag} in a series of {n}", f"give 1 to {n - 2}")
    labels = range(n - lag)
    first, second = (field.isel({dim: slice(i, i + n - lag)}).assign_coords({dim: labels}) for i in (0, lag))
    return xr.corr(first, second, dim).assign_attrs(long_name=f"autocorrelation at lag {lag}", units="1")


def variable_correlation(ds: xr.Dataset, dims: Sequence[str] = ("time",)) -> xr.DataArray:
    """Correlation of every pair of variables over ``dims``, (variable, other, ...)."""
    names = [str(name) for name in ds.data_vars]
    rows = [xr.concat([xr.corr(ds[a], ds[b], list(dims)) for b in names], "other") for a in names]
    table = xr.concat(rows, "variable").assign_coords(variable=names, other=names)
    return table.assign_attrs(long_name="correlation between variables", units="1")


def _autocorrelation(periodic: Sequence[bool], lags: Sequence[int], field: np.ndarray) -> np.ndarray:
    found = np.full((field.ndim, len(lags)), np.nan)
    anomaly = field.astype(np.float64) - np.nanmean(field, dtype=np.float64)
    for axis, wraps in enumerate(periodic):
        for j, lag in enumerate(lags):
            if lag < field.shape[axis]:
                a, b = lagged(anomaly, axis, lag, wraps)
                use = np.isfinite(a) & np.isfinite(b)
                found[axis, j] = 2 * (a[use] * b[use]).sum() / (a[use] ** 2 + b[use] ** 2).sum()
    return found
