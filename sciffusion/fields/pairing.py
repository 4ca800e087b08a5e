"""How a coarse data set belongs to a fine one: names, time alignment, coarsening factor, and whether it is C(fine)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import case_dims, cases_of, encode_label, select
from sciffusion.fields.conventions import convert_units
from sciffusion.fields.labels import is_time
from sciffusion.fields.roles import find_axis, role_of, roles, spacing_of
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
                "rename it under conditions.coarse.source.rename, or in the file",
            )
        one, two = spacing_of(fine.ds, dim), spacing_of(coarse, dim)
        ratio = two / one if one and two else fine.ds.sizes[dim] / coarse.sizes[dim]
        found[dim] = round(ratio) if abs(ratio - round(ratio)) < 0.02 else round(ratio, 3)
    return found


def consistency(fine: Survey, coarse: xr.Dataset, spacing: dict[str, float], align: str) -> Consistency:
    """Compare the coarse fields with C(fine), conservative with cell bounds, on a few cases.

    Where the coarse data reach beyond the fine ones, only cells within are compared.
    """
    from sciffusion.fields.coarsen import conservative
    from sciffusion.fields.grid import Grid

    layout = fine.layout
    names = [name for name in layout.fields if name in coarse.data_vars]
    if not names:
        return Consistency()
    core = (*layout.dims, *layout.channel_dims)
    extra = [dim for dim in coarse.dims if dim not in fine.ds.dims]
    coarse = coarse.isel(dict.fromkeys(extra, 0))
    coarse = convert_units(coarse[names], Template.of(fine.ds[names], layout.dims))
    grid = Grid.from_dataset(fine.ds, layout.dims, fine.geometry, fine.periodic, spacing)
    coarse = _within(coarse, grid, layout.dims)
    other = Grid.from_dataset(coarse, layout.dims, fine.geometry, _still_periodic(fine, coarse), like=grid)
    mapping, window = conservative(grid, other), tuple(slice(0, n) for n in other.shape)
    window = _affordable(grid.shape, other.shape)
    mapping, needed = mapping.window(window)
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    for index in _common(fine.ds[names], coarse, case_dims(fine.ds[names], core)):
        part = fine.ds[names].isel(
            {**{dim: [i] for dim, i in index.items()}, **dict(zip(layout.dims, needed, strict=True))}
        )
        case = cases_of(part, core)[0]
        try:
            given = select(coarse, case, align)  # type: ignore[arg-type]
        except SciffusionError:
            continue
        for name in names:
            if set(given[name].dims) != set(core) & set(given[name].dims):
                continue
            own = mapping.masked(
                np.asarray(part[name].isel(dict.fromkeys(index, 0)).transpose(..., *layout.dims), float)
            )
            theirs = given[name].transpose(..., *layout.dims).isel(dict(zip(layout.dims, window, strict=True)))
            if own.shape == theirs.shape:
                pairs[name].append((own, np.asarray(theirs.values, float)))
    return _compare(pairs)


def _within(coarse: xr.Dataset, grid: object, dims: Sequence[str]) -> xr.Dataset:
    """The coarse cells whose centres lie within the fine region."""
    for axis, dim in enumerate(dims):
        if dim not in coarse.coords or grid.coords[axis] is None or grid.periodic[axis]:  # type: ignore[attr-defined]
            continue
        low, high = np.sort(grid.axis_bounds(axis)[[0, -1]])  # type: ignore[attr-defined]
        half = (spacing_of(coarse, dim) or 0.0) / 2 * 0.98
        values = coarse[dim].values
        inside = np.flatnonzero((values - half >= low - 1e-9) & (values + half <= high + 1e-9))
        if grid.latitude_axis == axis and abs(low + 90) < 1e-6 and abs(high - 90) < 1e-6:  # type: ignore[attr-defined]
            inside = np.arange(values.size)
        coarse = coarse.isel({dim: slice(int(inside[0]), int(inside[-1]) + 1)}) if inside.size else coarse
    return coarse


def _still_periodic(fine: Survey, coarse: xr.Dataset) -> list[str]:
    return [dim for dim in fine.periodic if dim in coarse.dims]


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
