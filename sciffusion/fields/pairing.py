"""How a coarse data set belongs to a fine one: names, time alignment, coarsening factor, and whether it is C(fine)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Align, case_dims, cases_of, encode_label, select
from sciffusion.fields.conventions import convert_units
from sciffusion.fields.grid import Grid
from sciffusion.fields.labels import is_time
from sciffusion.fields.roles import find_axis, mend_of_missing_dim, role_of, roles, spacing_of
from sciffusion.fields.survey import Survey, sample_indices
from sciffusion.fields.template import Template

__all__ = ["Consistency", "alignment", "consistency", "factors", "matching_names", "served"]

CASES = 4
EXACT = 1e-3  # rms difference, in sd of the coarse field, below which coarse = C(fine) up to packing
LARGEST = 1_000_000  # fine cells that one comparison reads


@dataclass(frozen=True)
class Consistency:
    """Per variable: rms of coarse - C(fine) over the sd of C(fine), and their correlation; over ``cases`` cases."""

    difference: dict[str, float] = field(default_factory=dict)
    correlation: dict[str, float] = field(default_factory=dict)
    cases: int = 0

    @property
    def exact(self) -> bool:
        """Whether the coarse field is the conservative coarsening of the fine one."""
        return bool(self.difference) and max(self.difference.values()) < EXACT


def matching_names(fine: Survey, coarse: xr.Dataset) -> dict[str, str]:
    """Names in the coarse data -> names in the fine: variables by case or standard name, dims by role."""
    names: dict[str, str] = {}
    for wanted in fine.layout.fields:
        if wanted in coarse.data_vars:
            continue
        standard = fine.facts[wanted].standard_name
        same = [str(name) for name in coarse.data_vars if str(name).lower() == wanted.lower()] or [
            str(name) for name in coarse.data_vars if standard and coarse[name].attrs.get("standard_name") == standard
        ]
        if len(same) == 1:
            names[same[0]] = wanted
    for dim in (*fine.layout.dims, *fine.layout.channel_dims, *fine.layout.case_dims):
        role = role_of(fine.ds, dim)
        other = find_axis(coarse, role) if role and dim not in coarse.dims else None
        if other is not None and other not in fine.ds.dims:
            names[other] = dim
    return names


def alignment(fine: xr.Dataset, coarse: xr.Dataset) -> Literal["exact", "previous"]:
    """``exact`` when most fine times are coarse times too, ``previous`` when the coarse data are sparser in time."""
    dim = find_axis(fine, "time")
    if dim is None or dim not in coarse.dims or dim not in fine.coords or dim not in coarse.coords:
        return "exact"
    times, others = fine[dim].values, coarse[dim].values
    if not (is_time(times) and is_time(others)) or others.size * 2 > times.size or others.size < 2:
        return "exact"
    try:
        within = (times >= others.min()) & (times <= others.max())
    except TypeError:  # two calendars
        return "exact"
    return "exact" if np.isin(times[within], others).mean() > 0.5 else "previous"


def served(fine: xr.Dataset, coarse: xr.Dataset, dim: str, align: str) -> np.ndarray:
    """Positions along the fine data's ``dim`` that the coarse data have an entry for; all, without coordinates."""
    everything = np.arange(fine.sizes[dim])
    if dim not in fine.coords or dim not in coarse.coords or coarse[dim].ndim != 1:
        return everything
    ours, theirs = ([encode_label(value) for value in ds[dim].values] for ds in (fine, coarse))
    if align == "exact":
        common = set(theirs)
        return np.array([i for i, label in enumerate(ours) if label in common], dtype=np.int64)
    first, last = min(theirs), max(theirs)
    return np.array([i for i, label in enumerate(ours) if label >= first and (align == "previous" or label <= last)])  # type: ignore[operator]


def factors(fine: Survey, coarse: xr.Dataset) -> dict[str, float]:
    """Coarse over fine spacing per grid dim, by coordinates, else by the number of cells."""
    found = {}
    for dim in fine.layout.dims:
        if dim not in coarse.dims:
            have = ", ".join(f"{name} ({role})" if role else name for name, role in roles(coarse).items())
            raise SciffusionError(
                f"the coarse data have no dim that plays the role of {dim!r} (dims: {have})",
                mend_of_missing_dim(coarse, "rename it in the file"),
            )
        one, two = spacing_of(fine.ds, dim), spacing_of(coarse, dim)
        ratio = two / one if one and two else fine.ds.sizes[dim] / coarse.sizes[dim]
        found[dim] = round(ratio) if abs(ratio - round(ratio)) < 0.02 else round(ratio, 3)
    return found


def consistency(fine: Survey, coarse: xr.Dataset, spacing: dict[str, float], align: Align) -> Consistency:
    """Compare the coarse fields with C(fine), conservative with cell bounds, on a few cases.

    Where the coarse data reach beyond the fine ones, only cells within are compared; of a dim that only the coarse data
    have, its first entry.
    """
    dims, names = fine.layout.dims, [name for name in fine.layout.fields if name in coarse.data_vars]
    if not names:
        return Consistency()
    fields, core = fine.ds[names], (*dims, *fine.layout.channel_dims)
    grid = Grid.from_dataset(fields, dims, fine.geometry, fine.periodic, spacing)
    coarse = coarse[names].isel({dim: 0 for dim in coarse[names].dims if dim not in fields.dims})
    coarse = _within(convert_units(coarse, Template.of(fields, dims)), grid, dims)
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    compare = _coarsening(grid, Grid.from_dataset(coarse, dims, fine.geometry, fine.periodic, like=grid))
    for index in _common(fields, coarse, case_dims(fields, core)):
        part = fields.isel({dim: [position] for dim, position in index.items()})
        try:
            given = select(coarse, cases_of(part, core)[0], align)
        except SciffusionError:  # a case that the coarse data do not have
            continue
        for name in names:
            own, theirs = compare(part[name].isel(dict.fromkeys(index, 0)), given[name])
            if own.shape == theirs.shape:
                pairs[name].append((own, theirs))
    return _compare(pairs)


def _coarsening(fine: Grid, coarse: Grid) -> Callable[[xr.DataArray, xr.DataArray], tuple[np.ndarray, np.ndarray]]:
    """(fine field, coarse field) -> (C(fine), coarse) on a window of the coarse grid that is cheap to read."""
    from sciffusion.fields.coarsen import conservative  # this imports torch

    window = _affordable(fine.shape, coarse.shape)
    mapping, needed = conservative(fine, coarse).window(window)

    def compare(one: xr.DataArray, two: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
        own = one.transpose(..., *fine.dims).isel(dict(zip(fine.dims, needed, strict=True)))
        theirs = two.transpose(..., *fine.dims).isel(dict(zip(fine.dims, window, strict=True)))
        return mapping.masked(np.asarray(own, np.float64)), np.asarray(theirs, np.float64)

    return compare


def _within(coarse: xr.Dataset, grid: Grid, dims: Sequence[str]) -> xr.Dataset:
    """The coarse cells that lie within the fine region, along dims that end there and not at the poles."""
    for axis, dim in enumerate(dims):
        ends_here = not grid.periodic[axis] and not (axis == grid.latitude_axis and all(grid.pole_ends))
        if dim not in coarse.coords or grid.coords[axis] is None or not ends_here:
            continue
        low, high = np.sort(grid.axis_bounds(axis)[[0, -1]])
        half = (spacing_of(coarse, dim) or 0.0) / 2 * 0.98
        values = coarse[dim].values
        inside = np.flatnonzero((values - half >= low) & (values + half <= high))
        coarse = coarse.isel({dim: slice(int(inside[0]), int(inside[-1]) + 1)}) if inside.size else coarse
    return coarse


def _affordable(fine: tuple[int, ...], coarse: tuple[int, ...]) -> tuple[slice, ...]:
    """A central window of coarse cells that needs at most LARGEST fine ones."""
    share = min(1.0, (LARGEST / float(np.prod(fine, dtype=np.float64))) ** (1 / len(fine)))
    size = [max(1, int(n * share)) for n in coarse]
    return tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(coarse, size, strict=True))


def _common(fine: xr.Dataset, coarse: xr.Dataset, dims: Sequence[str]) -> list[dict[str, int]]:
    """Positions of a few fine cases, restricted to the period that both have."""
    ranges = {dim: np.arange(fine.sizes[dim]) for dim in dims}
    for dim in dims:
        if dim in fine.coords and dim in coarse.coords and coarse[dim].ndim == 1:
            try:
                inside = np.flatnonzero(
                    (fine[dim].values >= coarse[dim].values.min()) & (fine[dim].values <= coarse[dim].values.max())
                )
            except TypeError:
                continue
            ranges[dim] = inside if inside.size else ranges[dim]
    sizes = xr.Dataset({"_": (list(dims), np.broadcast_to(0, [r.size for r in ranges.values()]))})
    return [
        {dim: int(ranges[dim][i]) for dim, i in index.items()} for index in sample_indices(sizes, list(dims), CASES)
    ]


def _compare(pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> Consistency:
    difference, correlation, cases = {}, {}, 0
    for name, found in pairs.items():
        if not found:
            continue
        own, theirs = (np.concatenate([pair[i].ravel() for pair in found]) for i in (0, 1))
        both = np.isfinite(own) & np.isfinite(theirs)
        if not both.any():
            continue
        sd = own[both].std() or 1.0
        difference[name] = float(np.sqrt(np.mean((own - theirs)[both] ** 2)) / sd)
        correlation[name] = float(np.corrcoef(own[both], theirs[both])[0, 1]) if theirs[both].std() > 0 else 0.0
        cases = max(cases, len(found))
    return Consistency(difference, correlation, cases)
