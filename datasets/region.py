"""Cutting a coarse model's domain down to the target's, with a margin for the interpolation."""

import numpy as np
import xarray as xr

from sciffusion.fields.grid import Grid

__all__ = ["cut_to"]

MARGIN = 3  # coarse cells beyond the target's edge: what cubic interpolation and the filling of gaps look at


def cut_to(ds: xr.Dataset, grid: Grid) -> xr.Dataset:
    """``ds`` without the cells far from ``grid``, along axes on which both have a coordinate; lazily.

    A region across the date line or the zero meridian is put together from both ends.
    """
    for axis, dim in enumerate(grid.dims):
        numeric = dim in ds.coords and grid.coords[axis] is not None and ds[dim].dtype.kind in "iuf"
        if numeric and not grid.periodic[axis] and ds.sizes[dim] > 2 * MARGIN:
            ds = _cut(ds, grid, axis)
    return ds


def _cut(ds: xr.Dataset, grid: Grid, axis: int) -> xr.Dataset:
    dim, edges = grid.dims[axis], grid.axis_bounds(axis)
    values = ds[dim].values.astype(np.float64)
    margin = MARGIN * np.abs(np.diff(values)).max()
    if axis == grid.longitude_axis:
        middle = (edges[0] + edges[-1]) / 2
        values = middle + np.mod(values - middle + 180, 360) - 180
    inside = np.flatnonzero((values >= edges.min() - margin) & (values <= edges.max() + margin))
    if not inside.size or inside.size == values.size:
        return ds
    ascending = bool(ds[dim].values[-1] > ds[dim].values[0])
    order = inside[np.argsort(values[inside] if ascending else -values[inside])]
    contiguous = bool((np.diff(order) == 1).all())
    place = slice(int(order[0]), int(order[-1]) + 1) if contiguous else order
    return ds.isel({dim: place}).assign_coords({dim: (dim, values[order], ds[dim].attrs)})
