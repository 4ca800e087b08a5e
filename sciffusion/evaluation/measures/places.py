"""The grid of a field that a function was given, and arrays with the grid's dims last."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from sciffusion.evaluation.domain import length_unit
from sciffusion.evaluation.grids import cells_of
from sciffusion.evaluation.layout import Layout
from sciffusion.fields.grid import Grid

__all__ = ["grid_of", "mapped", "with_distances"]


def grid_of(field: xr.DataArray, dims: Sequence[str] | None = None, periodic: Sequence[str] | None = None) -> Grid:
    """The grid of ``field``: ``dims``, else its horizontal dims; ``periodic`` dims, else those that go round the Earth.

    Raises SciffusionError when the grid cannot be told.
    """
    ds = field.to_dataset(name="field")
    space = tuple(dims) if dims is not None else Layout.of(ds, ["field"]).grid
    return cells_of(ds, space, periodic)


def mapped(
    function: Callable[..., np.ndarray], fields: Sequence[xr.DataArray], dims: Sequence[str], out: dict[str, int]
) -> xr.DataArray:
    """``function`` of every field (*dims) by itself to an array (*out); other dims are broadcast, dask stays lazy."""
    result: xr.DataArray = xr.apply_ufunc(
        function,
        *fields,
        input_core_dims=[list(dims)] * len(fields),
        output_core_dims=[list(out)],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": out, "allow_rechunk": True},
        keep_attrs=False,
    )
    return result


def with_distances(values: xr.DataArray, grid: Grid, lags: Sequence[int]) -> xr.DataArray:
    """``values`` (..., direction, lag) with the names of the directions and the distances in units of length."""
    factor, units = length_unit(grid, 0)
    return values.assign_coords(
        direction=list(grid.dims),
        lag=("lag", list(lags), {"units": "cells"}),
        distance=(("direction", "lag"), factor * np.outer(grid.spacing, lags), {"units": units}),
    )
