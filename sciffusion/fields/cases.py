"""Cases: everything that varies besides the grid and the channels (time, scenario, source realization, lead time).

A case is known by its label, the tuple of its encoded coordinates, which also keys the noise of its members; so a label
must not depend on the order, the file or the machine.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import cftime
import numpy as np
import xarray as xr
from pandas.errors import InvalidIndexError

from sciffusion.errors import SciffusionError
from sciffusion.fields.axes import positions

__all__ = ["Align", "Case", "case_dims", "cases_of", "encode_label", "select"]

Align = Literal["exact", "previous", "interpolate"]
Label = str | int | float


@dataclass(frozen=True)
class Case:
    """One case: its ``labels``, one per case dim, and the coordinate ``values`` (the index, where there is none).

    ``past``, where it is given, makes its noise hang together with that of other cases: weights, and labels that key
    what they weigh (see `sciffusion.fields.coherence`).
    """

    labels: tuple[Label, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)
    indices: Mapping[str, int] = field(default_factory=dict, compare=False)
    past: tuple[tuple[float, tuple[Label, ...]], ...] = field(default=(), compare=False)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the case dims."""
        return tuple(self.values)

    def __str__(self) -> str:
        return (
            ", ".join(f"{dim}={label}" for dim, label in zip(self.values, self.labels, strict=True)) or "the only case"
        )


def encode_label(value: Any) -> Label:
    """A coordinate value as str, int or float: times as ISO 8601 to the second (finer where they are finer)."""
    if isinstance(value, np.datetime64):
        seconds = value.astype("datetime64[s]")
        return str(seconds if seconds == value else value.astype("datetime64[ns]"))
    if isinstance(value, cftime.datetime):
        return str(value.isoformat())
    if isinstance(value, np.timedelta64):
        return f"{float(value / np.timedelta64(1, 's'))!r}s"
    if isinstance(value, (bool, np.bool_, int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(str(value))  # 0.1 in single precision is 0.1
    return value.decode() if isinstance(value, bytes) else str(value)


def case_dims(ds: xr.Dataset, core_dims: Iterable[str]) -> tuple[str, ...]:
    """Dims of the data variables that are not core dims (grid and channels), in the order in which they come."""
    core, found = set(core_dims), dict[str, None]()
    for variable in ds.data_vars.values():
        found.update(dict.fromkeys(str(dim) for dim in variable.dims if dim not in core))
    return tuple(found)


def cases_of(ds: xr.Dataset, core_dims: Iterable[str]) -> list[Case]:
    """All cases of ``ds``, the last dim fastest; one case with label () when there is no case dim.

    Raises SciffusionError for a label that occurs twice.
    """
    dims = case_dims(ds, core_dims)
    values = [_native(ds, dim) for dim in dims]
    labels = [_labels(dim, column) for dim, column in zip(dims, values, strict=True)]
    cases = []
    for index in product(*(range(len(column)) for column in values)):
        label = tuple(column[i] for column, i in zip(labels, index, strict=True))
        native = {dim: column[i] for dim, column, i in zip(dims, values, index, strict=True)}
        cases.append(Case(label, native, dict(zip(dims, index, strict=True))))
    return cases


def _native(ds: xr.Dataset, dim: str) -> np.ndarray:
    return ds[dim].values if dim in ds.coords else np.arange(ds.sizes[dim])


def _at(ds: xr.Dataset, dim: str, index: int) -> Any:
    return ds[dim].values[index] if dim in ds.coords else index


def _labels(dim: str, values: Iterable[Any]) -> list[Label]:
    labels = [encode_label(value) for value in values]
    if len(set(labels)) < len(labels):
        twice = Counter(labels).most_common(1)[0][0]
        raise SciffusionError(f"{dim} {twice!r} occurs twice", f"drop the duplicates along {dim!r}")
    return labels


def select(ds: xr.Dataset, case: Case, align: Align = "exact") -> xr.Dataset:
    """The data of ``ds`` for ``case``, lazily. Case dims that ``ds`` does not have are passed over.

    Labels match by their encoding, so calendars and dtypes need not agree. ``previous`` takes the last entry not
    later than the case, ``interpolate`` is linear between neighbours; both only along ordered dims (times, numbers),
    and never beyond the ends. Raises SciffusionError when there is nothing to take.
    """
    for dim, value in case.values.items():
        if dim in ds.dims:
            ds = _take(ds, dim, value, align, case.indices.get(dim, 0))
    return ds


def _take(ds: xr.Dataset, dim: str, value: Any, align: Align, guess: int) -> xr.Dataset:
    if guess < ds.sizes[dim] and encode_label(_at(ds, dim, guess)) == encode_label(value):
        return ds.isel({dim: guess})
    exact = _find(ds, dim, value)
    if exact is not None:
        return ds.isel({dim: exact})
    native = _native(ds, dim)
    if align == "exact" or isinstance(value, (str, bytes)):
        raise _absent(dim, value, native)
    axis, at = _numbers(native), _number(value, native[0])
    order = np.argsort(axis)
    place = int(np.searchsorted(axis[order], at, side="right"))
    if place == 0 or (align == "interpolate" and place == len(axis)):
        raise _absent(dim, value, native)
    before = int(order[place - 1])
    if align == "previous":
        return ds.isel({dim: before})
    after = int(order[place])
    weight = (at - axis[before]) / (axis[after] - axis[before])
    return _blend(ds.isel({dim: before}), ds.isel({dim: after}), weight, dim)


def _blend(first: xr.Dataset, second: xr.Dataset, weight: float, dim: str) -> xr.Dataset:
    """(1 - w) first + w second, with the attributes and floating-point types of the first."""
    blended = first.copy()
    for name, variable in first.data_vars.items():
        if variable.dtype.kind == "f":
            step = (second[name].variable - variable.variable) * variable.dtype.type(weight)
            blended[name] = (variable + step).assign_attrs(variable.attrs)
    return blended.drop_vars(dim, errors="ignore")


def _find(ds: xr.Dataset, dim: str, value: Any) -> int | None:
    """Position of the entry with the same label; times of different calendars agree when their dates do."""
    if dim in ds.indexes:
        try:
            place = ds.indexes[dim].get_loc(value)
        except (KeyError, TypeError, ValueError, InvalidIndexError):
            place = None
        if isinstance(place, int):
            return place
    wanted = encode_label(value)
    return next((i for i, candidate in enumerate(_native(ds, dim)) if encode_label(candidate) == wanted), None)


def _numbers(native: np.ndarray) -> np.ndarray:
    """All entries on the number line of the first, see `_number`."""
    line = positions(native)
    return line - line[0] if native.dtype.kind in "MO" else line


def _number(value: Any, origin: Any) -> float:
    """A coordinate value on the number line of ``origin``: seconds for times, in the calendar of ``origin``."""
    try:
        if isinstance(origin, np.datetime64):
            return float((_as_datetime64(value) - origin) / np.timedelta64(1, "s"))
        if isinstance(origin, cftime.datetime):
            return float((_as_cftime(value, origin.calendar) - origin).total_seconds())
    except ValueError:
        raise SciffusionError(
            f"{encode_label(value)} does not exist in the calendar of the data", "convert one to the other's calendar"
        ) from None
    if isinstance(origin, np.timedelta64):
        return float(value / np.timedelta64(1, "s"))
    return float(value)


def _as_datetime64(value: Any) -> np.datetime64:
    return np.datetime64(value.isoformat() if isinstance(value, cftime.datetime) else value)


def _as_cftime(value: Any, calendar: str) -> cftime.datetime:
    if isinstance(value, cftime.datetime) and value.calendar == calendar:
        return value
    text = value.isoformat() if isinstance(value, cftime.datetime) else str(np.datetime64(value, "s"))
    return cftime.datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S", calendar=calendar)


def _absent(dim: str, value: Any, native: np.ndarray) -> SciffusionError:
    first, last = encode_label(native[0]), encode_label(native[-1])
    return SciffusionError(
        f"nothing for {dim} {encode_label(value)!r}; the data run from {first!r} to {last!r}",
        "give data for it, or choose align: previous or interpolate",
    )
