"""Target variables: what of a dataset must survive the way through tensors: names, levels, attributes, dtypes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Self

import numpy as np
import xarray as xr

from sciffusion import config
from sciffusion.errors import SciffusionError
from sciffusion.fields import transforms
from sciffusion.fields.arrays import attributes_to_json
from sciffusion.fields.axes import Auxiliary, attributes
from sciffusion.fields.grid import Grid

__all__ = ["TargetVariable", "channel_coords", "stack", "target_variables", "unstack"]


@dataclass(frozen=True)
class TargetVariable:
    """One variable of the target: ``prod(channel_shape)`` channels, each with statistics of its own.

    ``core_dims`` are its channel and grid dims in the file's order, in which it is written; ``transform`` may lack a
    scale until it is fitted.
    """

    name: str
    transform: transforms.Transform
    core_dims: tuple[str, ...]
    channel_dims: tuple[str, ...] = ()
    channel_shape: tuple[int, ...] = ()
    dtype: str = "float32"
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Number of channels: one per combination of levels and the like."""
        return prod(self.channel_shape)

    def ordered(self, values: np.ndarray, grid_dims: Sequence[str]) -> np.ndarray:
        """``values`` (*channel dims, *grid) with their axes in the file's order."""
        given = (*self.channel_dims, *grid_dims)
        return values.transpose([given.index(dim) for dim in self.core_dims])

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain JSON."""
        return {
            "name": self.name,
            "transform": self.transform.to_json(),
            "core_dims": list(self.core_dims),
            "channel_dims": list(self.channel_dims),
            "channel_shape": list(self.channel_shape),
            "dtype": self.dtype,
            "attrs": attributes_to_json(self.attrs),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        tuples = {name: tuple(entry[name]) for name in ("core_dims", "channel_dims", "channel_shape")}
        transform = transforms.from_json(entry["transform"])
        return cls(entry["name"], transform, dtype=entry["dtype"], attrs=dict(entry["attrs"]), **tuples)


def target_variables(
    ds: xr.Dataset, settings: Mapping[str, config.Variable], grid_dims: Sequence[str], channel_dims: Sequence[str] = ()
) -> tuple[TargetVariable, ...]:
    """Describe the variables of ``settings`` as they are in ``ds``, the whole target. Needs every grid dim."""
    return tuple(_describe(ds[name], how, tuple(grid_dims), tuple(channel_dims)) for name, how in settings.items())


def _describe(
    array: xr.DataArray, how: config.Variable, grid_dims: tuple[str, ...], channel_dims: tuple[str, ...]
) -> TargetVariable:
    if missing := [dim for dim in grid_dims if dim not in array.dims]:
        raise SciffusionError(
            f"{array.name}: no dim {missing[0]!r} among {', '.join(map(str, array.dims))}", "check target.dims"
        )
    own = tuple(dim for dim in channel_dims if dim in array.dims)
    packed = np.dtype(array.encoding.get("dtype", array.dtype)).kind in "iu"
    return TargetVariable(
        name=str(array.name),
        transform=transforms.of_settings(how),
        core_dims=tuple(str(dim) for dim in array.dims if dim in grid_dims or dim in own),
        channel_dims=own,
        channel_shape=tuple(array.sizes[dim] for dim in own),
        dtype="float64" if array.dtype == np.float64 and not packed else "float32",
        attrs=attributes(array),
    )


def channel_coords(ds: xr.Dataset, grid: Grid, channel_dims: Sequence[str]) -> dict[str, Auxiliary]:
    """Coordinates that neither the grid nor a case dim carries: of levels, and scalars such as a height (not times)."""
    core = {*grid.dims, *channel_dims}
    return {
        str(name): (tuple(map(str, coord.dims)), coord.values, attributes(coord))
        for name, coord in ds.coords.items()
        if set(coord.dims) <= core
        and not (coord.dims and set(coord.dims) <= set(grid.dims))
        and (coord.dims or coord.dtype.kind in "fiubU")
    }


def stack(
    ds: xr.Dataset, variables: Sequence[TargetVariable], grid: Grid, window: Sequence[slice] | None = None
) -> np.ndarray:
    """One case of ``ds`` as float32 (channel, *grid), or only the ``window`` of it; NaN where data are missing.

    Nothing outside the window is read. Raises SciffusionError when a variable or a dim is missing or is left over.
    """
    parts = [_channels(ds, variable, grid, window) for variable in variables]
    return np.concatenate(parts).astype(np.float32, copy=False)


def _channels(ds: xr.Dataset, variable: TargetVariable, grid: Grid, window: Sequence[slice] | None) -> np.ndarray:
    if variable.name not in ds:
        raise SciffusionError(f"no variable {variable.name!r}", f"there are {', '.join(map(str, ds.data_vars))}")
    array, wanted = ds[variable.name], (*variable.channel_dims, *grid.dims)
    if set(array.dims) != set(wanted):
        raise SciffusionError(f"{variable.name}: dims {array.dims}, expected {wanted}", "select one case")
    sizes = tuple(array.sizes[dim] for dim in wanted)
    if sizes != (*variable.channel_shape, *grid.shape):
        expected = (*variable.channel_shape, *grid.shape)
        raise SciffusionError(f"{variable.name}: shape {sizes}, expected {expected}", "bring it to the target's grid")
    if window is not None:
        array = array.isel(dict(zip(grid.dims, window, strict=True)))
    values = array.transpose(*wanted).values
    return values.reshape(variable.channels, *values.shape[len(variable.channel_dims) :])


def unstack(
    arrays: Mapping[str, np.ndarray],
    leading: Mapping[str, Any],
    variables: Sequence[TargetVariable],
    grid: Grid,
    coords: Mapping[str, Auxiliary],
) -> xr.Dataset:
    """Arrays (*leading, *channel dims, *grid) as a Dataset; see `sciffusion.fields.codec.FieldCodec.dataset`."""
    made: dict[str, Any] = {}
    for variable in variables:
        dims = (*leading, *variable.channel_dims, *grid.dims)
        array = xr.Variable(dims, arrays[variable.name], variable.attrs)
        made[variable.name] = array.transpose(*leading, *variable.core_dims)
    own = {dim: _coordinate(dim, values) for dim, values in leading.items() if values is not None}
    return xr.Dataset(made, coords=own | dict(coords) | dict(grid.coords_dataset().coords))


def _coordinate(dim: str, values: Any) -> Any:
    return values.variable if isinstance(values, xr.DataArray) else xr.Variable((dim,), *_with_attributes(values))


def _with_attributes(values: Any) -> tuple[Any, ...]:
    return (values.values, values.attrs) if isinstance(values, xr.Variable) else (np.asarray(values),)
