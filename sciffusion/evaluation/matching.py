"""Lining up one variable of an ensemble with its reference, and reading both block by block.

Dims are matched by name (or by meaning, where there is no doubt), cells and cases by coordinate labels. Grid cells must
be the same; of times, those that both have are used. A reference without a dim of the ensemble serves all along it.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import prod
from typing import Literal

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.grids import cells_of
from sciffusion.evaluation.layout import Layout, check_deterministic, member_dim
from sciffusion.evaluation.ranks import scrambled
from sciffusion.evaluation.source import Source, on_cells
from sciffusion.fields.grid import Grid
from sciffusion.fields.roles import role_of
from sciffusion.fields.units import conversion

__all__ = ["Matched", "Slices", "Weights", "byte_count", "grid_of", "match"]

Slices = dict[str, slice]
Weights = Literal["area", "equal"] | xr.DataArray
HELD = 1 << 25  # bytes of members in a block when the data are in memory already
SHARE = 4  # a block that is read takes this part of the memory allowed: chunks are held beside it
SHIFTING = ("time", "lead_time")  # roles of dims along which labels that both have are used
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@dataclass(frozen=True)
class Matched:
    """``ensemble`` (with its ``member`` dim), ``reference`` and ``extras`` (climatology, baseline) on the same labels.

    ``scale`` are slope and offset to the reference's units, applied as blocks are read.
    """

    ensemble: xr.DataArray
    reference: xr.DataArray
    member: str
    scale: tuple[float, float] = (1.0, 0.0)
    units: str = ""
    extras: Mapping[str, xr.DataArray] = field(default_factory=dict)
    grid: Grid | None = None

    @property
    def dims(self) -> tuple[str, ...]:
        """All dims but the members', in the ensemble's order."""
        return tuple(str(dim) for dim in self.ensemble.dims if dim != self.member)

    @property
    def members(self) -> int:
        """How many members there are."""
        return self.ensemble.sizes[self.member]

    @property
    def in_memory(self) -> bool:
        """Whether the ensemble is there already, so that reading a block costs nothing."""
        return not _is_lazy(self.ensemble)

    def blocks(self, memory: int, whole: Sequence[str] = (), members: int | None = None) -> Iterator[Slices]:
        """Slices of the dims; a block of ``members`` (all) of them fits ``memory``. Dims in ``whole`` are not cut."""
        size = self._block_size(memory, whole, members or self.members)
        starts = [range(0, self.ensemble.sizes[dim], size[dim]) for dim in self.dims]
        for corner in product(*starts):
            yield {dim: slice(start, start + size[dim]) for dim, start in zip(self.dims, corner, strict=True)}

    def _block_size(self, memory: int, whole: Sequence[str], members: int) -> dict[str, int]:
        """Cut between chunks first, within them only where it has to be; slow dims before fast ones."""
        lazy = _is_lazy(self.ensemble)
        limit = (memory // SHARE if lazy else min(memory, HELD)) // (members * self.ensemble.dtype.itemsize)
        size = {dim: self.ensemble.sizes[dim] for dim in self.dims}
        chunks = _chunks(self.ensemble)
        for unit in (chunks, {}):
            for dim in self.dims:
                if prod(size.values()) > limit and dim not in whole:
                    fits = max(1, limit * size[dim] // prod(size.values()))
                    step = min(unit.get(dim, 1), size[dim])
                    size[dim] = max(step, fits // step * step)
        return size

    def read(self, cut: Slices, members: slice = slice(None)) -> np.ndarray:
        """Members (member, *dims) of a block, in the reference's units."""
        block = self.ensemble.isel({**cut, self.member: members}).transpose(self.member, *self.dims)
        return _scaled(np.asarray(block.values), self.scale)

    def truth(self, cut: Slices) -> np.ndarray:
        """The reference (*dims) of a block."""
        return self.spread(self.reference, cut)

    def extra(self, name: str, cut: Slices) -> np.ndarray:
        """An extra field (*dims), or (member, *dims) when it has the ensemble's member dim, of a block."""
        array = self.extras[name]
        if self.member not in array.dims:
            return self.spread(array, cut)
        first = array.transpose(self.member, ...)
        return np.stack([self.spread(first[i], cut) for i in range(first.sizes[self.member])])

    def spread(self, array: xr.DataArray, cut: Slices) -> np.ndarray:
        """``array``, which may lack some dims, over a block (*dims)."""
        part = array.isel({dim: piece for dim, piece in cut.items() if dim in array.dims})
        own = [dim for dim in self.dims if dim in part.dims]
        values = np.asarray(part.transpose(*own).values)
        shape = [len(range(*cut[dim].indices(self.ensemble.sizes[dim]))) for dim in self.dims]
        places = [n if dim in own else 1 for dim, n in zip(self.dims, shape, strict=True)]
        return np.broadcast_to(values.reshape(places), shape)

    def numbers(self, cut: Slices) -> np.ndarray:
        """A number for every cell of a block (cell,), by its labels alone: for random draws that do not move.

        The same for any order of the dims and any part of the data. Without labels positions serve.
        """
        along = [self._label_numbers[dim][cut[dim]] for dim in self.dims]
        total = np.zeros((1,) * len(along), dtype=np.uint64)
        for numbers in np.ix_(*along):
            total = total + numbers
        return total.reshape(-1)

    @cached_property
    def _label_numbers(self) -> dict[str, np.ndarray]:
        return {dim: _hashed(dim, self.ensemble[dim].values) for dim in self.dims}

    def weights(self, given: Weights) -> xr.DataArray:
        """Cell weights: areas with mean 1 (``area``), ones (``equal``), or those given."""
        if isinstance(given, xr.DataArray):
            unknown = set(given.dims) - set(self.dims)
            if unknown or bool((given < 0).any()):
                raise SciffusionError("the weights do not fit", f"give weights of zero or more along {self.dims}")
            labelled = [dim for dim in given.dims if dim in given.indexes and dim in self.ensemble.indexes]
            found = given.reindex({dim: self.ensemble[dim] for dim in labelled}, method="nearest", tolerance=1e-6)
            if bool(found.isnull().any()):
                raise SciffusionError("the weights are not known everywhere", "give weights for all of the ensemble")
            return found
        if given not in ("area", "equal"):
            raise SciffusionError(f"no weights are called {given!r}", "use area, equal, or give an array")
        if given == "equal" or self.grid is None:
            return xr.DataArray(1.0)
        return xr.DataArray(self.grid.cell_area(), dims=self.grid.dims)


def match(
    ensemble: xr.DataArray,
    reference: xr.DataArray,
    member: str | None = None,
    extras: Mapping[str, xr.DataArray] | None = None,
) -> Matched:
    """Line the two up. Raises SciffusionError when their grids differ, no time is shared, or units do not convert."""
    others = {"reference": reference, **(extras or {})}
    for name, array in {"ensemble": ensemble, **others}.items():
        _check_array(name, array)
    known = member_dim(ensemble.to_dataset(name="members"), member)
    axis = known or "member"
    if known is None:
        ensemble = ensemble.expand_dims(axis)
    if axis in reference.dims:
        raise SciffusionError(f"the reference has the ensemble dim {axis!r}", "give one truth, or select a member")
    grid = grid_of(ensemble, axis)
    named = {name: _lined_up(name, array, ensemble, axis, grid) for name, array in others.items()}
    if known is None:
        check_deterministic(ensemble.isel({axis: 0}).sizes, named["reference"].dims)
    arrays = xr.align(ensemble, *named.values(), join="inner", exclude=[axis], copy=False)
    _check_labels(ensemble, arrays[0], axis)
    aligned = dict(zip(named, arrays[1:], strict=True))
    units = str(reference.attrs.get("units", ensemble.attrs.get("units", "")))
    converted = {name: _converted(array, units) for name, array in aligned.items() if name != "reference"}
    return Matched(arrays[0], aligned["reference"], axis, _scale(ensemble, units), units, converted, grid)


def grid_of(array: xr.DataArray, member: str) -> Grid | None:
    """The grid of the horizontal dims; without any, of those that are neither members, times nor levels."""
    ds = array.to_dataset(name="members")
    try:
        dims = Layout.of(ds, ["members"], (), member).grid
    except SciffusionError:
        return None
    return cells_of(ds, dims)


def byte_count(memory: int | str) -> int:
    """``2GB`` -> 2 000 000 000. Raises SciffusionError for what is no amount of memory."""
    text = str(memory).strip().lower().replace("ib", "b")
    number = text.rstrip("kmgtb")
    try:
        count = int(float(number) * _UNITS[text[len(number) :]])
    except (ValueError, KeyError):
        count = 0
    if count <= 0:
        raise SciffusionError(f"{memory!r} is no amount of memory", "write it like 2GB or 500MB")
    return count


def _lined_up(name: str, array: xr.DataArray, ensemble: xr.DataArray, member: str, grid: Grid | None) -> xr.DataArray:
    """``array`` with the ensemble's names of dims, its cells and their exact coordinates."""
    dims = tuple(str(dim) for dim in ensemble.dims if dim != member)
    ds = Source.renamed(array.to_dataset(name="values"), Layout(member, dims, (), ()))
    unknown = [str(dim) for dim in ds["values"].dims if dim not in ensemble.dims]
    if unknown:
        raise SciffusionError(
            f"the {name} has a dimension {unknown[0]!r} that the ensemble has not", f"select one {unknown[0]}"
        )
    if grid is None:
        return ds["values"]
    for axis, dim in enumerate(grid.dims):
        ds = on_cells(f"the {name}", ds, grid, axis, dim)
    exact = {dim: ensemble[dim] for dim in grid.dims if dim in ds.dims and dim in ensemble.coords}
    return ds["values"].assign_coords(exact)


def _check_array(name: str, array: object) -> None:
    if not isinstance(array, xr.DataArray):
        raise SciffusionError(
            f"the {name} is a {type(array).__name__} and not a DataArray",
            'label it, for example xr.DataArray(values, dims=("member", "time", "lat", "lon")), or give two Datasets',
        )
    if array.dtype.kind not in "fiub":
        raise SciffusionError(f"the {name} holds no real numbers but {array.dtype}", "convert it first")
    for dim in array.indexes:
        if not array.indexes[dim].is_unique:
            raise SciffusionError(f"the {name} has the same {dim} twice", f"drop the duplicate {dim} values")


def _check_labels(before: xr.DataArray, after: xr.DataArray, member: str) -> None:
    ds = before.to_dataset(name="members")
    for dim in before.dims:
        lost = before.sizes[dim] - after.sizes[dim]
        if after.sizes[dim] == 0:
            raise SciffusionError(
                f"the ensemble and the reference have no {dim} in common", f"give data of the same {dim}"
            )
        if lost and dim != member and role_of(ds, dim) not in SHIFTING:
            raise SciffusionError(
                f"the reference lacks {lost} of the ensemble's {before.sizes[dim]} labels along {dim!r}",
                "bring both to the same grid first (sciffusion.fields.coarsen.regrid), or select what both have",
            )


def _scale(array: xr.DataArray, units: str) -> tuple[float, float]:
    have = str(array.attrs.get("units", ""))
    return conversion(have, units) if have and units else (1.0, 0.0)


def _converted(array: xr.DataArray, units: str) -> xr.DataArray:
    slope, offset = _scale(array, units)
    return array if (slope, offset) == (1.0, 0.0) else array * slope + offset


def _scaled(values: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    return values if scale == (1.0, 0.0) else np.asarray(values * scale[0] + scale[1])


def _hashed(dim: str, labels: np.ndarray) -> np.ndarray:
    """64-bit numbers of the labels along a dim, which differ from dim to dim."""
    start = np.uint64(zlib.crc32(dim.encode()))
    kinds = {"i": np.float64, "u": np.float64, "f": np.float64, "M": np.int64, "m": np.int64}
    if labels.dtype.kind in kinds:
        return scrambled(labels.astype(kinds[labels.dtype.kind]).view(np.uint64) + start)
    return scrambled(np.array([zlib.crc32(str(label).encode()) for label in labels], dtype=np.uint64) + start)


def _is_lazy(array: xr.DataArray) -> bool:
    return array.chunks is not None or not array.variable._in_memory


def _chunks(array: xr.DataArray) -> dict[str, int]:
    if array.chunks is not None:
        return {str(dim): max(sizes) for dim, sizes in zip(array.dims, array.chunks, strict=True)}
    preferred = array.encoding.get("preferred_chunks", {})
    return {str(dim): int(size) for dim, size in preferred.items() if _is_lazy(array)}
