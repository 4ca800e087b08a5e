"""What a model remembers of the data it was trained with, apart from values: names, units, dims, grid coordinates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from sciffusion.fields.roles import HORIZONTAL, role_of

__all__ = ["FieldInfo", "Template", "as_template"]

_KEPT = ("units", "standard_name", "long_name")


@dataclass(frozen=True)
class FieldInfo:
    """Dims of a variable in its file's order, and the attributes that say what it is."""

    dims: tuple[str, ...]
    attrs: dict[str, str] = field(default_factory=dict)

    @property
    def units(self) -> str:
        """The units attribute, or ""."""
        return self.attrs.get("units", "")


@dataclass(frozen=True)
class Template:
    """Names, units, grid and channel dims of a data set, as plain data that fit in a model's JSON.

    Attributes
    ----------
    fields
        Variable name -> dims and attributes.
    dims
        Grid dims, slowest first.
    channel_dims
        Dims stacked into channels; their labels must be found in new data.
    sizes
        Length of the grid and channel dims.
    coords
        Coordinate values of those among them that have one, with their attributes in ``coord_attrs``.
    """

    fields: dict[str, FieldInfo]
    dims: tuple[str, ...]
    channel_dims: tuple[str, ...]
    sizes: dict[str, int]
    coords: dict[str, np.ndarray]
    coord_attrs: dict[str, dict[str, str]]

    @classmethod
    def of(cls, ds: xr.Dataset, dims: Sequence[str], channel_dims: Sequence[str] = ()) -> "Template":
        """Describe ``ds`` with these grid dims."""
        kept = [str(dim) for dim in (*dims, *channel_dims) if dim in ds.dims]
        return cls(
            fields={str(name): _info(array) for name, array in ds.data_vars.items()},
            dims=tuple(dims),
            channel_dims=tuple(channel_dims),
            sizes={dim: int(ds.sizes[dim]) for dim in kept},
            coords={dim: np.asarray(ds[dim].values) for dim in kept if dim in ds.coords},
            coord_attrs={dim: _attributes(ds[dim].attrs, "axis") for dim in kept if dim in ds.coords},
        )

    def dataset(self) -> xr.Dataset:
        """The grid and channel coordinates as a Dataset without variables (dims without coordinates are absent)."""
        return xr.Dataset(coords={dim: (dim, values, self.coord_attrs[dim]) for dim, values in self.coords.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and texts."""
        return {
            "fields": {name: {"dims": list(info.dims), "attrs": info.attrs} for name, info in self.fields.items()},
            "dims": list(self.dims),
            "channel_dims": list(self.channel_dims),
            "sizes": self.sizes,
            "coords": {dim: values.tolist() for dim, values in self.coords.items()},
            "coord_attrs": self.coord_attrs,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Template":
        """The inverse of ``to_json``."""
        return cls(
            fields={name: FieldInfo(tuple(info["dims"]), dict(info["attrs"])) for name, info in data["fields"].items()},
            dims=tuple(data["dims"]),
            channel_dims=tuple(data["channel_dims"]),
            sizes=dict(data["sizes"]),
            coords={dim: np.asarray(values) for dim, values in data["coords"].items()},
            coord_attrs={dim: dict(attrs) for dim, attrs in data["coord_attrs"].items()},
        )


def as_template(like: "Template | xr.Dataset", dims: Sequence[str] | None = None) -> Template:
    """``like`` itself, or the description of a Dataset; its grid dims are the horizontal ones unless given."""
    if isinstance(like, Template):
        return like
    horizontal = [str(dim) for dim in like.dims if role_of(like, dim) in HORIZONTAL]
    return Template.of(like, dims or horizontal)


def _info(array: xr.DataArray) -> FieldInfo:
    return FieldInfo(tuple(map(str, array.dims)), _attributes(array.attrs))


def _attributes(attrs: Mapping[Any, Any], *more: str) -> dict[str, str]:
    return {name: str(attrs[name]) for name in (*_KEPT, *more) if name in attrs}
