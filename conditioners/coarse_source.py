"""What the data of a coarse condition look like: grid, channels, names and units, symmetries and transforms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import xarray as xr

from sciffusion import config
from sciffusion.conditioners.base import Training
from sciffusion.errors import SciffusionError
from sciffusion.fields import transforms
from sciffusion.fields.grid import Grid
from sciffusion.fields.roles import wraps_around
from sciffusion.fields.template import Template

__all__ = ["Channels", "CoarseSource", "periodic_dims"]

Channels = tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class CoarseSource:
    """Description of coarse data, as a model keeps it.

    grid : their grid; coarse, fine : names, units and coordinates of data on it and on the target's grid;
    target : (variable, index) of the target's channels; odd : variable -> dims along which it is odd;
    transforms : variable -> what the network sees it through; gaps : whether training had missing values.
    """

    variables: tuple[str, ...]
    grid: Grid
    coarse: Template
    fine: Template
    target: Channels
    odd: Mapping[str, Sequence[str]]
    transforms: Mapping[str, transforms.Transform]
    gaps: bool = False

    @classmethod
    def of(cls, settings: config.CoarseField, data: xr.Dataset, training: Training) -> Self:
        """Describe ``data``; variables that the target has too share its parity and its transform."""
        grid = _coarse_grid(settings, data, training)
        shared = {name: how for name, how in training.target.variables.items() if name in settings.variables}
        return cls(
            variables=tuple(settings.variables),
            grid=grid,
            coarse=_template(settings, data, training, grid),
            fine=_template(settings, data, training, training.grid),
            target=training.channels,
            odd={name: list(how.odd_along) for name, how in shared.items()},
            transforms={name: transforms.of_settings(how) for name, how in shared.items()},
        )

    @cached_property
    def names(self) -> Channels:
        """(variable, index) of every channel."""
        template = self.coarse
        sizes = {
            name: [template.sizes[dim] for dim in template.channel_dims if dim in template.fields[name].dims]
            for name in self.variables
        }
        return tuple((name, index) for name, size in sizes.items() for index in range(int(np.prod(size))))

    def transformed(self, x: np.ndarray) -> np.ndarray:
        """Each channel of ``x`` (channel, ...) through its variable's transform."""
        plain = transforms.Standardise()
        rows = [self.transforms.get(name, plain).forward(row) for row, (name, _) in zip(x, self.names, strict=True)]
        return np.stack(rows)

    def fitted(self, sample: Sequence[np.ndarray]) -> "CoarseSource":
        """Choose the open parameters of transforms; a field without any positive value goes without transform."""
        chosen = dict(self.transforms)
        for name, transform in self.transforms.items():
            rows = [index for index, (variable, _) in enumerate(self.names) if variable == name]
            try:
                chosen[name] = transform.fitted(np.concatenate([x[rows].ravel() for x in sample]))
            except SciffusionError:
                chosen[name] = transforms.Standardise()
        return replace(self, transforms=chosen)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain JSON."""
        return {
            "variables": list(self.variables),
            "grid": self.grid.to_json(),
            "coarse": self.coarse.to_json(),
            "fine": self.fine.to_json(),
            "target": [list(channel) for channel in self.target],
            "odd": {name: list(dims) for name, dims in self.odd.items()},
            "transforms": {name: transform.to_json() for name, transform in self.transforms.items()},
            "gaps": self.gaps,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            variables=tuple(entry["variables"]),
            grid=Grid.from_json(entry["grid"]),
            coarse=Template.from_json(entry["coarse"]),
            fine=Template.from_json(entry["fine"]),
            target=tuple((str(variable), int(index)) for variable, index in entry["target"]),
            odd=entry["odd"],
            transforms={name: transforms.from_json(transform) for name, transform in entry["transforms"].items()},
            gaps=bool(entry["gaps"]),
        )


def _coarse_grid(settings: config.CoarseField, data: xr.Dataset, training: Training) -> Grid:
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


def _template(settings: config.CoarseField, data: xr.Dataset, training: Training, grid: Grid) -> Template:
    """What the variables of ``data`` look like on ``grid``; no values are read."""
    fields = data[settings.variables]
    levels = [dim for dim in training.target.channel_dims if dim in fields.dims]
    sizes = {str(dim): size for dim, size in fields.sizes.items()} | dict(zip(grid.dims, grid.shape, strict=True))
    spread = {
        str(name): (array.dims, np.broadcast_to(np.float32(0), [sizes[str(dim)] for dim in array.dims]), array.attrs)
        for name, array in fields.variables.items()
        if name in settings.variables
    }
    coords = {dim: fields[dim] for dim in levels if dim in fields.coords} | dict(grid.coords_dataset().coords)
    return Template.of(xr.Dataset(spread, coords=coords), grid.dims, levels)
