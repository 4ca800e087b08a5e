"""The grid of given data: as a store of ours recorded it, else from dims, coordinates and what wraps around."""

import json
from collections.abc import Sequence
from typing import Any

import xarray as xr

from sciffusion.fields.grid import Grid
from sciffusion.fields.roles import geometry_of, wraps_around

__all__ = ["cells_of", "recorded_grid"]


def recorded_grid(ds: xr.Dataset) -> dict[str, Any]:
    """What a store of ours wrote about its grid: ``Grid.to_json``, as an attribute or in its identity."""
    try:
        identity = json.loads(str(ds.attrs.get("sciffusion_identity", "{}")))
        entry = json.loads(str(ds.attrs["sciffusion_grid"])) if "sciffusion_grid" in ds.attrs else identity.get("grid")
    except json.JSONDecodeError:
        return {}
    return dict(entry) if isinstance(entry, dict) and "dims" in entry else {}


def cells_of(ds: xr.Dataset, dims: Sequence[str], periodic: Sequence[str] | None = None) -> Grid:
    """The grid of ``ds`` along ``dims``; ``periodic`` dims, else those that go round the Earth."""
    recorded = recorded_grid(ds)
    if recorded and tuple(recorded["dims"]) == tuple(dims) and periodic is None:
        return Grid.from_json(recorded)
    wraps = [dim for dim in dims if wraps_around(ds, dim)] if periodic is None else list(periodic)
    return Grid.from_dataset(ds, dims, geometry_of(ds, dims), wraps)
