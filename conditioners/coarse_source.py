"""What the data of a coarse condition look like: their grid, their channels, their names and units."""

import numpy as np
import xarray as xr

from sciffusion import config
from sciffusion.conditioners.base import Training
from sciffusion.fields.conventions import Template, wraps_around
from sciffusion.fields.grid import Grid

__all__ = ["Channels", "channel_names", "coarse_grid", "periodic_dims", "templates_of"]

Channels = tuple[tuple[str, int], ...]


def coarse_grid(settings: config.CoarseField, data: xr.Dataset, training: Training) -> Grid:
    """The grid of the source, or the target's coarsened by ``factor`` when ``data`` are the target's own."""
    grid, dims = training.grid, training.grid.dims
    if settings.source is None:
        factor = settings.factor
        return grid.coarsened(factor if isinstance(factor, dict) else dict.fromkeys(dims, float(factor or 1)))
    return Grid.from_dataset(data, dims, grid.geometry, periodic_dims(data, grid), like=grid)


def periodic_dims(data: xr.Dataset, grid: Grid) -> list[str]:
    """Dims along which ``data`` wrap around: longitudes by their own extent, other dims where the target's do."""
    own = [dim for axis, dim in enumerate(grid.dims) if grid.periodic[axis] and axis != grid.longitude_axis]
    return own + [dim for dim in grid.dims if dim not in own and wraps_around(data, dim)]


def templates_of(
    settings: config.CoarseField, data: xr.Dataset, training: Training, coarse: Grid
) -> tuple[Template, Template]:
    """What data on the coarse grid and on the fine grid look like."""
    fields = data[settings.variables]
    levels = [dim for dim in training.target.channel_dims if dim in fields.dims]
    bare = fields.isel({dim: 0 for dim in training.grid.dims}, drop=True)
    both = []
    for grid in (coarse, training.grid):
        sizes = dict(zip(grid.dims, grid.shape, strict=True))
        spread = {
            name: (
                tuple(map(str, fields[name].dims)),
                np.broadcast_to(np.float32(0), [sizes.get(str(d), fields.sizes[d]) for d in fields[name].dims]),
                bare[name].attrs,
            )
            for name in settings.variables
        }
        kept = {dim: fields[dim] for dim in levels if dim in fields.coords}
        both.append(
            Template.of(xr.Dataset(spread, coords=kept | dict(grid.coords_dataset().coords)), grid.dims, levels)
        )
    return both[0], both[1]


def channel_names(variables: list[str], template: Template) -> Channels:
    """(variable, index) of every channel of ``variables``."""
    sizes = {
        name: int(np.prod([template.sizes[dim] for dim in template.channel_dims if dim in template.fields[name].dims]))
        for name in variables
    }
    return tuple((name, index) for name in variables for index in range(sizes[name]))
