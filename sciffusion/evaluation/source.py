"""Reading one case of one field at a time from data that line up with the ensemble, whatever their order and names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import prod

import numpy as np
import pandas as pd
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.layout import Case, Field, Layout, member_dim
from sciffusion.evaluation.spool import Members, Spool
from sciffusion.fields.grid import Grid
from sciffusion.fields.roles import role_of
from sciffusion.fields.units import conversion

__all__ = ["Source", "on_cells"]

TOLERANCE = 1e-3  # of a cell: coordinates that differ by less are the same


@dataclass(frozen=True)
class Source:
    """Data called ``name`` in messages, with dims named as the ensemble's and cells in its order.

    ``member`` is its own ensemble axis, None for a deterministic field.
    """

    name: str
    ds: xr.Dataset
    member: str | None
    layout: Layout

    @classmethod
    def of(cls, name: str, ds: xr.Dataset, layout: Layout, grid: Grid, *, deterministic: bool = False) -> "Source":
        """Line ``ds`` up with an ensemble of this layout and grid. Raises SciffusionError when their cells differ."""
        ds = Source.renamed(ds, layout)
        member = None if deterministic else member_dim(ds, layout.member if layout.member in ds.dims else None)
        for axis, dim in enumerate(grid.dims):
            ds = on_cells(name, ds, grid, axis, dim)
        return cls(name, ds, member, layout)

    @staticmethod
    def renamed(ds: xr.Dataset, layout: Layout) -> xr.Dataset:
        """Dims that mean the same get the ensemble's names (lat, latitude, y ...), when there is no doubt which."""
        names: dict[str, str] = {}
        for dim in (*layout.grid, *layout.channels, *layout.cases):
            role = role_of(ds, dim)
            if dim in ds.dims or role is None or role == "realization":
                continue
            same = [str(d) for d in ds.dims if role_of(ds, d) == role and d not in (*layout.grid, *layout.cases)]
            if len(same) == 1:
                names[same[0]] = dim
        return ds.rename(names) if names else ds

    def read(self, field: Field, case: Case) -> np.ndarray | None:
        """Members (member, *grid) of one case, or None when the case or the variable is not there."""
        places = self._places(field, case)
        if places is None:
            return None
        array = self.ds[field.variable].isel(places)
        array = array.squeeze([dim for dim in array.dims if array.sizes[dim] == 1 and dim not in self._kept], drop=True)
        extra = [str(dim) for dim in array.dims if dim not in self._kept]
        if extra and extra[0] == self.layout.member:
            raise SciffusionError(
                f"{self.name} has the ensemble dim {extra[0]!r}", "give one field, or select a member"
            )
        if extra:
            raise SciffusionError(
                f"{self.name} has a dimension {extra[0]!r} that the ensemble has not", f"select one {extra[0]}"
            )
        if self.member is None or self.member not in array.dims:
            return np.asarray(array.transpose(*self.layout.grid).values)[None]
        return np.ascontiguousarray(array.transpose(self.member, *self.layout.grid).values)

    def members(self, field: Field, case: Case, budget: int) -> Members | None:
        """``read``, by way of a file on disk when the members take more than ``budget`` bytes."""
        count = 1 if self.member is None else self.ds.sizes[self.member]
        array = self.ds.get(field.variable)
        if array is None or count < 2 or self.member not in array.dims:
            return self.read(field, case)
        size = array.dtype.itemsize * prod(self.ds.sizes[dim] for dim in self.layout.grid)
        if size * count <= budget:
            return self.read(field, case)
        step = max(1, budget // (2 * size))
        blocks = (self.only(slice(i, i + step)).read(field, case) for i in range(0, count, step))
        first = next(blocks)
        if first is None:
            return None
        return Spool(member for block in chain([first], blocks) if block is not None for member in block)

    def held(self, field: Field, cases: Sequence[Case], cells: Mapping[str, slice]) -> "Source | None":
        """Some cells of these cases in memory, read at once; None when a case or the variable is not there.

        Where a chunk holds many cases, reading them one by one reads all of it for each.
        """
        if field.variable not in self.ds:
            return None
        ds = self.ds[[field.variable]].isel(cells, missing_dims="ignore")
        for dim in cases[0].values.keys() & set(ds.indexes):  # positions along others are counted from the first
            values = {case.values[dim] for case in cases}
            places = [place for value in values if (place := self._place(dim, value)) is not None]
            if len(places) < len(values):
                return None
            ds = ds.isel({dim: slice(min(places), max(places) + 1)})
        return replace(self, ds=ds.compute())

    def only(self, members: slice) -> "Source":
        """Some of the members."""
        return self if self.member is None else replace(self, ds=self.ds.isel({self.member: members}))

    @property
    def _kept(self) -> tuple[str | None, ...]:
        return (self.member, *self.layout.grid)

    def has(self, field: Field, case: Case) -> bool:
        """Whether ``read`` has something to read, by the labels alone."""
        return self._places(field, case) is not None

    def _places(self, field: Field, case: Case) -> dict[str, int] | None:
        """Where the case is along the dims of the variable; None when it is not there."""
        if field.variable not in self.ds:
            return None
        dims, wanted = self.ds[field.variable].dims, {**field.level, **case.values}
        found = {dim: self._place(dim, value) for dim, value in wanted.items() if dim in dims}
        places = {dim: place for dim, place in found.items() if place is not None}
        return places if len(places) == len(found) else None

    def _place(self, dim: str, value: object) -> int | None:
        if dim not in self.ds.indexes:
            return int(value) if isinstance(value, int) and value < self.ds.sizes[dim] else None
        index = self.ds.indexes[dim]
        if not index.is_unique:
            raise SciffusionError(f"{self.name} has the same {dim} twice", f"drop the duplicate {dim} values")
        try:
            return int(index.get_loc(value))
        except (KeyError, TypeError, pd.errors.InvalidIndexError):  # the last for dates of another calendar
            return None

    def in_units_of(self, template: xr.Dataset) -> "Source":
        """Convert variables whose units differ from the template's. Raises SciffusionError when they cannot be."""
        ds = self.ds
        for name in [str(name) for name in ds.data_vars if name in template]:
            have, want = (str(data[name].attrs.get("units", "")) for data in (ds, template))
            if have and want and have != want:
                slope, offset = conversion(have, want)
                if (slope, offset) != (1.0, 0.0):
                    ds = ds.assign({name: (ds[name] * slope + offset).assign_attrs(ds[name].attrs, units=want)})
        return Source(self.name, ds, self.member, self.layout)


def on_cells(name: str, ds: xr.Dataset, grid: Grid, axis: int, dim: str) -> xr.Dataset:
    """The cells of ``ds`` along ``dim`` in the grid's order: reversed, shifted by 360 degrees, or cut out."""
    if dim not in ds.dims:
        return ds
    if grid.coords[axis] is None or dim not in ds.coords:
        if ds.sizes[dim] != grid.shape[axis]:
            raise SciffusionError(
                f"{name} has {ds.sizes[dim]} cells along {dim!r}, the ensemble {grid.shape[axis]}", _MEND
            )
        return ds
    place, far = _nearest(grid.positions(axis), np.asarray(ds[dim].values, dtype=np.float64), grid.period(axis))
    if far.max() > TOLERANCE * grid.spacing[axis]:
        worst = int(far.argmax())
        raise SciffusionError(
            f"{name} and the ensemble are on different grids: it has no {dim} = {grid.positions(axis)[worst]:g}", _MEND
        )
    if np.array_equal(place, np.arange(ds.sizes[dim])):
        return ds
    return ds.isel({dim: place})


_MEND = "bring both to the same grid first (sciffusion.fields.coarsen.regrid), or select the cells that both have"


def _nearest(wanted: np.ndarray, have: np.ndarray, period: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest of ``have`` to each ``wanted``, and how far it is."""
    shifts: Sequence[float] = (0.0,) if period is None else (0.0, -period, period)
    copies = np.concatenate([have + shift for shift in shifts])
    order = np.argsort(copies)
    right = (
        np.clip(np.searchsorted(copies[order], wanted), 1, len(copies) - 1)
        if len(copies) > 1
        else np.zeros(len(wanted), int)
    )
    left = np.maximum(right - 1, 0)
    nearer = np.where(np.abs(copies[order][left] - wanted) <= np.abs(copies[order][right] - wanted), left, right)
    return order[nearer] % len(have), np.abs(copies[order][nearer] - wanted)
