"""Whose dimension is which: members, cases, levels and the grid of anybody's ensemble, and how other data line up.

The ensemble axis is the argument, else the coordinate whose standard_name is "realization", else the first of
``MEMBER_NAMES``. Every dimension that is neither that nor the grid's is a case (time, scenario, ...) or,
when vertical, a channel: each level is a field of its own.
"""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.roles import role_of

__all__ = ["Case", "Field", "Layout", "check_deterministic", "member_dim", "scored_variables", "with_cases"]

MEMBER_NAMES = ("member", "number", "realization", "ensemble", "members", "realisation", "ens", "ensemble_member")
CASE_ROLES = ("time", "lead_time", "realization")
CASE_NAMES = ("case", "sample", "scenario", "experiment", "batch")


@dataclass(frozen=True)
class Case:
    """One case: its ``label`` in words, the coordinate values that name it, and its position in the ensemble."""

    label: str
    values: dict[str, Any]
    position: dict[str, int]


@dataclass(frozen=True)
class Field:
    """A variable, on one level if it has levels."""

    label: str
    variable: str
    level: dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """The roles of an ensemble's dimensions."""

    member: str | None
    grid: tuple[str, ...]
    channels: tuple[str, ...]
    cases: tuple[str, ...]

    @classmethod
    def of(
        cls, ds: xr.Dataset, variables: Sequence[str], grid: Sequence[str] = (), member: str | None = None
    ) -> "Layout":
        """Find the roles. Raises SciffusionError when the grid cannot be told."""
        dims = list(dict.fromkeys(str(dim) for name in variables for dim in ds[name].dims))
        axis = member_dim(ds, member)
        space = _grid_dims(ds, dims, axis) if not grid else tuple(grid)
        absent = [dim for dim in space if dim not in dims]
        if absent or not 1 <= len(space) <= 3:
            raise SciffusionError(f"the grid ({', '.join(space)}) is not one to three of {dims}", "name the grid dims")
        rest = [dim for dim in dims if dim != axis and dim not in space]
        channels = tuple(dim for dim in rest if role_of(ds, dim) == "vertical")
        return cls(axis, space, channels, tuple(dim for dim in rest if dim not in channels))

    def fields(self, ds: xr.Dataset, variables: Sequence[str]) -> list[Field]:
        """Every variable and level."""
        found = []
        for name in variables:
            levels = [dim for dim in self.channels if dim in ds[name].dims]
            for values in product(*(_labels(ds, dim) for dim in levels)):
                level = dict(zip(levels, values, strict=True))
                words = ",".join(f"{dim}={value:g}" for dim, value in level.items())
                found.append(Field(f"{name}[{words}]" if words else name, name, level))
        return found

    def case_list(self, ds: xr.Dataset) -> list[Case]:
        """Every case, in the order of the ensemble. Raises SciffusionError for labels that occur twice."""
        cases = list(self._cases(ds))
        if len({case.label for case in cases}) < len(cases):
            raise SciffusionError(
                f"two cases have the same labels along {', '.join(self.cases)}", "drop the duplicates"
            )
        return cases

    def _cases(self, ds: xr.Dataset) -> Iterator[Case]:
        labels = [_labels(ds, dim) for dim in self.cases]
        for place in product(*(range(len(values)) for values in labels)):
            values = {dim: along[i] for dim, along, i in zip(self.cases, labels, place, strict=True)}
            words = ", ".join(f"{dim}={_word(value)}" for dim, value in values.items())
            yield Case(words or "the only case", values, dict(zip(self.cases, place, strict=True)))


def member_dim(ds: xr.Dataset, name: str | None = None) -> str | None:
    """The ensemble axis of ``ds``, None for a deterministic field."""
    if name is not None:
        if name not in ds.dims:
            raise SciffusionError(
                f"there is no ensemble dimension {name!r}", f"the dimensions are {', '.join(map(str, ds.dims))}"
            )
        return name
    for dim in ds.dims:
        if dim in ds.coords and ds[dim].attrs.get("standard_name") == "realization":
            return str(dim)
    return next((dim for dim in MEMBER_NAMES if dim in ds.dims), None)


def scored_variables(ensemble: xr.Dataset, reference: xr.Dataset, wanted: Sequence[str] | None) -> list[str]:
    """The variables wanted, or all with numbers; raises SciffusionError for one that either has not."""
    names = [str(name) for name in ensemble.data_vars] if wanted is None else list(wanted)
    names = [
        name for name in names if name not in ensemble or (ensemble[name].dtype.kind in "fiu" and ensemble[name].ndim)
    ]
    for name in names:
        for what, ds in (("the ensemble", ensemble), ("the reference", reference)):
            if name not in ds.data_vars:
                known = ", ".join(map(str, ds.data_vars))
                raise SciffusionError(
                    f"{what} has no variable {name!r}", f"it has {known}; rename one, or choose the variables"
                )
    if not names:
        raise SciffusionError("the ensemble has no variable to score", "give a dataset with numbers on a grid")
    return names


def with_cases(ds: xr.Dataset, reference: xr.Dataset) -> xr.Dataset:
    """Scalar coordinates along which the reference lies, such as the time of a single case, as dims."""
    return ds.expand_dims([name for name in ds.coords if ds[name].ndim == 0 and name in reference.dims])


def check_deterministic(sizes: Mapping[Hashable, int], reference: Collection[Hashable]) -> None:
    """Raise SciffusionError when data without a known ensemble axis have a dim that may well be one.

    ``sizes`` are those of its dims that are neither levels nor the grid's; the truth has no such dim.
    """
    for dim, size in sizes.items():
        if size > 1 and dim not in reference:
            raise SciffusionError(
                f"no dimension is known as the ensemble's, and the reference has no {dim!r}",
                f"if the members lie along it, say member={dim!r} (--member {dim}); else select one {dim}",
            )


def _grid_dims(ds: xr.Dataset, dims: Sequence[str], member: str | None) -> tuple[str, ...]:
    """Horizontal dims if any are known as such, else all that are neither members, cases nor levels."""
    roles = {dim: role_of(ds, dim) for dim in dims if dim != member}
    horizontal = tuple(dim for dim, role in roles.items() if role in ("latitude", "longitude", "y", "x"))
    box = _is_box(roles)
    if horizontal and not box:
        return horizontal
    space = tuple(d for d, role in roles.items() if role not in CASE_ROLES and d.lower() not in CASE_NAMES)
    return space if box else tuple(dim for dim in space if roles[dim] != "vertical")


def _is_box(roles: dict[str, Any]) -> bool:
    """A dimension called z beside x and y is the third axis of a box, unless its coordinate is a level's."""
    return "z" in roles and {"x", "y"} <= set(roles) and roles["z"] is None


def _labels(ds: xr.Dataset, dim: str) -> list[Any]:
    return list(ds.indexes[dim]) if dim in ds.indexes else list(range(ds.sizes[dim]))


def _word(value: Any) -> str:
    if isinstance(value, np.datetime64) or hasattr(value, "isoformat"):
        return str(value.isoformat() if hasattr(value, "isoformat") else value).removesuffix(":00")
    return f"{value:g}" if isinstance(value, float) else str(value)
