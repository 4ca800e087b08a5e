"""A first look at a data set: which variables are fields, on which dims, and what a few samples of them are like.

Reads samples only (a window of a few cases, for at most a given time), so a store of terabytes is surveyed in seconds.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.axes import cyclic_columns
from sciffusion.fields.facts import FieldFacts, facts_of, wraps_like_its_interior
from sciffusion.fields.roles import HORIZONTAL, geometry_of, role_of, roles, wraps_around

__all__ = ["Layout", "Survey", "central_window", "layout_of", "sample_indices", "survey"]

_CASE_NAMES = {"sample", "samples", "case", "cases", "batch", "run", "index", "n", "i", "event", "snapshot", "scenario"}
_BOX_NAMES = {"z", "k", "zc", "zt", "nz", "z_dim"}
CASES, CELLS, SECONDS = 8, 2**20, 20.0


@dataclass(frozen=True)
class Layout:
    """How a data set is laid out: its fields, their grid, channel and case dims, its static fields and the rest."""

    fields: tuple[str, ...]
    static: tuple[str, ...]
    left_out: dict[str, str]
    dims: tuple[str, ...]
    channel_dims: tuple[str, ...]
    case_dims: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """A layout with the geometry of its grid and the facts of its fields."""

    ds: xr.Dataset
    layout: Layout
    geometry: Literal["plane", "sphere"]
    periodic: tuple[str, ...]
    facts: dict[str, FieldFacts] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Grid shape."""
        return tuple(int(self.ds.sizes[dim]) for dim in self.layout.dims)

    @property
    def masked(self) -> bool:
        """Whether any field has cells that are NaN in every sample."""
        return any(fact.permanent > 0 for fact in self.facts.values())


def survey(ds: xr.Dataset, variables: Sequence[str] | None = None, dims: Sequence[str] | None = None) -> Survey:
    """Look at ``ds``: its layout, geometry, periodic dims and the statistics of a few samples.

    Raises SciffusionError when no field is found or the grid dims cannot be told.
    """
    layout = layout_of(ds, variables, dims)
    ds = _without_repeated_columns(ds.transpose(..., *layout.dims, missing_dims="ignore"), layout.dims)
    geometry = geometry_of(ds, layout.dims)
    samples = _samples(ds, layout)
    facts = {name: facts_of(ds[name], stack) for name, stack in samples.items()}
    return Survey(ds, layout, geometry, _periodic(ds, layout, geometry, samples), facts)


def _without_repeated_columns(ds: xr.Dataset, dims: Sequence[str]) -> xr.Dataset:
    """Drop longitudes at the end that repeat the first ones, as training does."""
    for dim in dims:
        if dim in ds.coords and role_of(ds, dim) == "longitude" and (repeated := cyclic_columns(ds[dim].values)):
            ds = ds.isel({dim: slice(0, -repeated)})
    return ds


def layout_of(ds: xr.Dataset, variables: Sequence[str] | None = None, dims: Sequence[str] | None = None) -> Layout:
    """Which variables are fields, and what their dims are. ``variables`` and ``dims`` decide where given."""
    left_out = {str(name): why for name in ds.data_vars if (why := _no_field(ds, str(name)))}
    names = [str(name) for name in ds.data_vars if str(name) not in left_out] if variables is None else list(variables)
    grid = tuple(dims) if dims else _grid_dims(ds, names)
    on_grid = [name for name in names if set(grid) <= set(map(str, ds[name].dims))]
    left_out |= {name: f"not on ({', '.join(grid)})" for name in names if name not in on_grid}
    if not on_grid:
        raise SciffusionError(
            f"no variable has the grid dims ({', '.join(grid)})", f"give --dims; there is {dict(ds.sizes)}"
        )
    case = {name: tuple(dim for dim in _others(ds, name, grid) if not _is_level(ds, dim)) for name in on_grid}
    most = max(case.values(), key=len)
    fields = tuple(name for name in on_grid if case[name] or not most)
    static = tuple(name for name in on_grid if name not in fields)
    channel = dict.fromkeys(dim for name in fields for dim in _others(ds, name, grid) if _is_level(ds, dim))
    return Layout(fields, static, left_out, grid, tuple(channel), most)


def _no_field(ds: xr.Dataset, name: str) -> str:
    """Why a variable is no field; "" when it may be one."""
    variable = ds[name]
    bounds = {str(other.attrs.get("bounds") or other.encoding.get("bounds", "")) for other in ds.variables.values()}
    if variable.dtype.kind not in "biuf":
        return f"dtype {variable.dtype}"
    if variable.ndim == 0 or "grid_mapping_name" in variable.attrs:
        return "no field"
    if name in bounds or name.lower().endswith(("_bnds", "_bounds", "_vertices")):
        return "cell bounds"
    if variable.ndim == 2 and role_of(ds, name) in ("latitude", "longitude"):
        return "coordinate"
    return ""


def _others(ds: xr.Dataset, name: str, grid: Sequence[str]) -> list[str]:
    return [str(dim) for dim in ds[name].dims if dim not in grid]


def _is_level(ds: xr.Dataset, dim: str) -> bool:
    return role_of(ds, dim) == "vertical"


def _grid_dims(ds: xr.Dataset, names: Sequence[str]) -> tuple[str, ...]:
    """The horizontal dims of the field with most dims; in boxes also z; without known names the last unknown ones."""
    if not names:
        raise SciffusionError("the data have no fields", f"there is: {', '.join(map(str, ds.variables)) or 'nothing'}")
    largest = max(names, key=lambda name: (ds[name].ndim, ds[name].size))
    dims = [str(dim) for dim in ds[largest].dims]
    known = roles(ds, dims)
    horizontal = [dim for dim in dims if known[dim] in HORIZONTAL]
    if horizontal:
        box = [dim for dim in dims if known[dim] is None and dim.lower() in _BOX_NAMES]
        return tuple(dim for dim in dims if dim in horizontal or dim in box)[-3:]
    unknown = [dim for dim in dims if known[dim] is None and dim.lower() not in _CASE_NAMES]
    grid = unknown or [dim for dim in dims if known[dim] == "vertical"]
    if not grid:
        raise SciffusionError(
            f"cannot tell which dims of {largest!r} ({', '.join(dims)}) are the grid", "give --dims y,x"
        )
    return tuple(grid[-3:])


def sample_indices(ds: xr.Dataset, dims: Sequence[str], count: int = CASES) -> list[dict[Any, int]]:
    """Up to ``count`` positions along ``dims``, the middle first, the others spread over the longest dim's range."""
    total = int(np.prod([ds.sizes[dim] for dim in dims], dtype=np.int64)) if dims else 1
    flat = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))
    order = [flat[len(flat) // 2], *np.delete(flat, len(flat) // 2)]
    shape = tuple(ds.sizes[dim] for dim in dims)
    return [
        dict(zip(dims, map(int, np.unravel_index(position, shape)), strict=True)) if dims else {} for position in order
    ]


def _samples(ds: xr.Dataset, layout: Layout) -> dict[str, np.ndarray]:
    """Per field, (sample, *window): the same window of a few cases and levels, within SECONDS altogether."""
    deadline = time.monotonic() + SECONDS
    stacks = {}
    for name in layout.fields:
        window = central_window(ds[name], layout.dims)
        blocks: list[np.ndarray] = []
        for index in sample_indices(ds, _others(ds, name, layout.dims)):
            if blocks and time.monotonic() > deadline:
                break
            blocks.append(np.asarray(ds[name].isel({**index, **window}).values, dtype=np.float64))
        stacks[name] = np.stack(blocks)
    return stacks


def central_window(array: xr.DataArray, dims: Sequence[str], cells: int = CELLS) -> dict[Any, slice]:
    """The whole grid if reading it is cheap, else a central window of at most ``cells`` cells.

    What is read is whole chunks: of a store with many times per chunk, sixteen times ``cells`` at most.
    """
    chunk: dict[Any, int] = array.encoding.get("preferred_chunks") or {}
    depth = float(np.prod([chunk.get(dim, 1) for dim in array.dims if dim not in dims]))
    size = {dim: array.sizes[dim] for dim in dims}

    def touched() -> float:
        return depth * float(np.prod([-(-size[dim] // chunk.get(dim, 1)) * chunk.get(dim, 1) for dim in dims]))

    while max(size.values()) > 16 and (np.prod(list(map(float, size.values()))) > cells or touched() > 16 * cells):
        widest = max(size, key=lambda dim: size[dim])
        size[widest] = max(16, size[widest] // 2)
    starts = {dim: (array.sizes[dim] - size[dim]) // 2 for dim in dims}
    return {dim: slice(starts[dim], starts[dim] + size[dim]) for dim in dims}


def _periodic(ds: xr.Dataset, layout: Layout, geometry: str, samples: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Longitudes that close the circle; on the plane, dims whose two ends fit together as neighbours inside do."""
    if geometry == "sphere":
        return tuple(dim for dim in layout.dims if wraps_around(ds, dim))
    shape = tuple(ds.sizes[dim] for dim in layout.dims)
    if any(stack.shape[1:] != shape for stack in samples.values()) or any(
        role_of(ds, dim) in ("latitude", "longitude") for dim in layout.dims
    ):
        return ()
    return tuple(
        dim
        for axis, dim in enumerate(layout.dims)
        if all(wraps_like_its_interior(stack, axis - len(layout.dims)) for stack in samples.values())
    )
