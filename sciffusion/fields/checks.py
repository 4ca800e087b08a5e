"""What can be wrong with opened data, each found early and said in one line with its mend."""

import difflib
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.labels import is_time, label_text
from sciffusion.fields.roles import find_axis, is_degrees, role_of, spacing_of, wraps_around

__all__ = [
    "check_coordinates",
    "check_dims",
    "check_overlap",
    "check_values",
    "check_variables",
    "range_text",
    "suggestion",
]

SAMPLES = 8  # cases looked at before a field is called all-NaN
WINDOW = 64  # cells per dim looked at first
BLOCK = 4_000_000  # cells read at a time
SECONDS = 20.0  # after which a field without a finite value is given up


def suggestion(name: str, known: Iterable[str]) -> str:
    """The mend for a name that is not there: the nearest one, and what there is."""
    names = sorted(set(known))
    lower = {other.lower(): other for other in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1) or [
        other for other in lower if min(len(other), len(name)) > 2 and other[:3] == name.lower()[:3]
    ]
    hint = f"did you mean {lower[near[0]]!r}? " if near else ""
    return f"{hint}there is: {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}"


def check_variables(datasets: Sequence[xr.Dataset], variables: Sequence[str], where: str) -> None:
    """Refuse a name that none of the data sets has, suggesting the nearest one."""
    known = {str(name): field.dtype for ds in datasets for name, field in ds.data_vars.items()}
    for name in variables:
        if name not in known:
            raise SciffusionError(f"{where}: no variable is called {name!r}", suggestion(name, known))
        if known[name].kind not in "biuf":
            raise SciffusionError(
                f"{where}: variable {name!r} has dtype {known[name]}, not numbers", "leave it out of the variables"
            )


def check_dims(ds: xr.Dataset, variables: Sequence[str], dims: Sequence[str], where: str) -> None:
    """Refuse a variable without one of the grid dims."""
    for name in variables:
        have = [str(dim) for dim in ds[name].dims]
        for dim in dims:
            if dim not in have:
                raise SciffusionError(
                    f"{where}: variable {name!r} has dims ({', '.join(have)}), without the grid dim {dim!r}",
                    f"correct target.dims, rename the dim, or leave the variable out; {suggestion(dim, have)}",
                )


def check_coordinates(ds: xr.Dataset, dims: Sequence[str] | None, where: str) -> None:
    """Refuse repeated labels on any dim, and unsorted or missing ones on grid and time dims (descending is fine)."""
    for dim in map(str, ds.dims):
        if ds.sizes[dim] == 0:
            raise SciffusionError(f"{where}: dim {dim!r} has no entries", "check the file and the select settings")
        if dim not in ds.coords:
            continue
        values = ds[dim].values
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise SciffusionError(f"{where}: coordinate {dim!r} contains NaN", "correct the coordinate in the file")
        rising = values[1:] > values[:-1] if values.dtype.kind in "iufMO" else np.array([True, False])
        if rising.all() or (not rising.any() and not (values[1:] == values[:-1]).any()):
            continue
        _check_unique(values, dim, where)
        ordered = is_time(values) or dim in (dims or ()) or role_of(ds, dim) in ("latitude", "longitude", "y", "x")
        if ordered and values.dtype.kind in "iufMO":
            _refuse_unsorted(values, rising, dim, where)


def _check_unique(values: np.ndarray, dim: str, where: str) -> None:
    labels, counts = np.unique(values, return_counts=True)
    if labels.size < values.size:
        repeated = labels[counts > 1]
        raise SciffusionError(
            f"{where}: coordinate {dim!r} has {label_text(repeated[0])} {counts.max()} times"
            f" ({repeated.size} labels repeat)",
            f"keep each label once: ds.drop_duplicates({dim!r}), or give files that do not overlap",
        )


def _refuse_unsorted(values: np.ndarray, rising: np.ndarray, dim: str, where: str) -> None:
    turn = int(np.flatnonzero(rising != rising[0])[0]) + 1
    raise SciffusionError(
        f"{where}: coordinate {dim!r} is not monotonic: {label_text(values[turn])} is followed by"
        f" {label_text(values[turn + 1])} at position {turn + 1}",
        f"sort the file: ds.sortby({dim!r}).to_netcdf(...)",
    )


def check_values(ds: xr.Dataset, where: str) -> None:
    """Refuse a variable without one finite value in a few samples, or whose values cannot be read."""
    for name, field in ds.data_vars.items():
        if not np.issubdtype(field.dtype, np.floating):
            continue
        try:
            finite = any(np.isfinite(block).any() for block in _blocks(field))
        except Exception as error:
            raise SciffusionError(
                f"{where}: the values of {name!r} cannot be read, the file is truncated or damaged"
                f" ({str(error).splitlines()[0][:160] if str(error) else type(error).__name__})",
                "copy or write it again",
            ) from error
        if not finite:
            raise SciffusionError(
                f"{where}: variable {name!r} is all NaN in the samples looked at",
                "check the file, its fill value and the select settings, or leave the variable out",
            )


def _blocks(field: xr.DataArray) -> Iterator[np.ndarray]:
    """First small windows of up to SAMPLES cases, the middle one first; then whole cases in blocks that fit memory."""
    grid = list(field.dims[-2:])
    cases = [dim for dim in field.dims if dim not in grid]
    chosen = [dict(zip(cases, index, strict=True)) for index in _spread([field.sizes[dim] for dim in cases])]
    for index in chosen:
        for corner in _spread([max(1, field.sizes[dim] - WINDOW) for dim in grid]):
            window = {dim: slice(start, start + WINDOW) for dim, start in zip(grid, corner, strict=True)}
            yield np.asarray(field.isel({**index, **window}).values)
    deadline = time.monotonic() + SECONDS
    for index in chosen:
        case = field.isel(index)
        rows = max(1, BLOCK // max(1, case.size // case.shape[0])) if case.ndim else 1
        for start in range(0, case.shape[0] if case.ndim else 0, rows):
            if time.monotonic() > deadline:
                return
            yield np.asarray(case[start : start + rows].values)


def _spread(sizes: list[int]) -> list[tuple[int, ...]]:
    """Up to SAMPLES index tuples, the middle one first, the rest spread over every dim."""
    middle = tuple(size // 2 for size in sizes)
    ends = [sorted({0, size - 1, size // 4, 3 * size // 4}) for size in sizes]
    rest = [index for index in product(*ends) if index != middle][: 4 * SAMPLES]
    step = max(1, len(rest) // (SAMPLES - 1))
    return [middle, *rest[::step][: SAMPLES - 1]]


def range_text(ds: xr.Dataset, dim: str) -> str:
    """``dim runs from a to b``."""
    if dim not in ds.coords:
        return f"{dim} has positions 0 to {ds.sizes[dim] - 1}"
    values = ds[dim].values
    return f"{dim} runs from {label_text(values[0])} to {label_text(values[-1])}"


def check_overlap(
    fine: xr.Dataset, coarse: xr.Dataset, dims: Sequence[str], *, align: str = "exact", name: str = "coarse"
) -> None:
    """Refuse a coarse data set that shares no time or no region with the fine one.

    Parameters
    ----------
    fine, coarse
        Opened data sets; dims of the same role may have different names.
    dims
        Grid dims of ``fine``.
    align
        ``exact`` wants common times; otherwise overlapping ranges are enough.
    name
        What to call the coarse data in the message.

    Raises
    ------
    SciffusionError
        Naming both ranges.
    """
    _check_times(fine, coarse, align, name)
    for dim in dims:
        other = _counterpart(fine, coarse, dim)
        one, two = _extent(fine, dim), _extent(coarse, other)
        if one is None or two is None:
            continue
        if wraps_around(fine, dim) or wraps_around(coarse, other or dim):
            continue
        turns = (0.0, 360.0, -360.0) if is_degrees(fine, dim) and role_of(fine, dim) == "longitude" else (0.0,)
        if not any(two[0] + turn < one[1] and one[0] < two[1] + turn for turn in turns):
            raise SciffusionError(
                f"{name} and the target do not overlap along {dim!r}:"
                f" {two[0]:g} to {two[1]:g} against {one[0]:g} to {one[1]:g}",
                "check that both are of the same region and that the coordinates have the same units",
            )


def _check_times(fine: xr.Dataset, coarse: xr.Dataset, align: str, name: str) -> None:
    one, two = find_axis(fine, "time"), find_axis(coarse, "time")
    if one is None or two is None or one not in fine.coords or two not in coarse.coords:
        return
    times, others = _iso_times(fine[one].values), _iso_times(coarse[two].values)
    ranges = f"{min(others)} to {max(others)} against {min(times)} to {max(times)}"
    if max(others) < min(times) or max(times) < min(others):
        raise SciffusionError(
            f"{name} and the target do not overlap in time: {ranges}",
            "give files of the same period; a free-running model needs paired (for example bias-corrected) data",
        )
    if align == "exact" and set(times).isdisjoint(others):
        raise SciffusionError(
            f"{name} and the target have no time in common, though their periods overlap: {ranges}",
            f"set conditions.{name}.align to 'previous' or 'interpolate', or shift the time stamps",
        )


def _iso_times(values: np.ndarray) -> list[str]:
    if np.issubdtype(values.dtype, np.datetime64):
        return [str(text) for text in np.datetime_as_string(values, unit="s")]
    return [value.isoformat()[:19] if hasattr(value, "isoformat") else str(value) for value in values]


def _counterpart(fine: xr.Dataset, coarse: xr.Dataset, dim: str) -> str | None:
    """The coarse dim of the same name, else of the same role."""
    if dim in coarse.dims:
        return dim
    role = role_of(fine, dim)
    return None if role is None else find_axis(coarse, role)


def _extent(ds: xr.Dataset, dim: str | None) -> tuple[float, float] | None:
    """Range of a coordinate with half a cell at each end."""
    spacing = None if dim is None else spacing_of(ds, dim)
    if spacing is None:
        return None
    values = ds[dim].values
    return float(values.min()) - spacing / 2, float(values.max()) + spacing / 2
