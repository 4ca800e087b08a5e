"""Which cases there are, which of them every condition serves, and which split they belong to."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from sciffusion import config
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Align, Case, case_dims, encode_label, select
from sciffusion.fields.checks import range_text, suggestion
from sciffusion.fields.labels import positions

__all__ = ["extra_dims", "served", "split_cases", "with_predecessors"]

log = logging.getLogger(__name__)


def extra_dims(target: xr.Dataset, conditions: Sequence[xr.Dataset], core: Sequence[str]) -> xr.Dataset:
    """A Dataset without data whose dims are the case dims: the target's, then those that only conditions have."""
    sizes: dict[str, int] = {}
    coords = {}
    for ds in (target, *conditions):
        for dim in case_dims(ds, core):
            if dim not in sizes:
                sizes[dim] = ds.sizes[dim]
                if dim in ds.coords:
                    coords[dim] = ds[dim]
    nothing = np.broadcast_to(np.int8(0), tuple(sizes.values()))
    return xr.Dataset({"case": (tuple(sizes), nothing)}, coords={d: (d, c.values, c.attrs) for d, c in coords.items()})


def served(cases: list[Case], skeleton: xr.Dataset, conditions: Mapping[str, tuple[xr.Dataset, Align]]) -> list[Case]:
    """Cases that each condition has an entry for, according to its alignment. The others are counted in the log."""
    for name, (ds, align) in conditions.items():
        for dim in set(skeleton.dims) & set(ds.dims):
            good = _covered(skeleton, ds, str(dim), align)
            kept = [case for case in cases if good[case.indices[str(dim)]]]
            if not kept:
                raise SciffusionError(
                    f"conditions.{name} has nothing for any case of the target along {dim!r}:"
                    f" {range_text(ds, str(dim))}, in the target {range_text(skeleton, str(dim))}",
                    f"give data of the same {dim}, or set conditions.{name}.align",
                )
            if len(kept) < len(cases):
                log.warning("%s: no data for %d of %d cases, left out", name, len(cases) - len(kept), len(cases))
            cases = kept
    return cases


def with_predecessors(cases: list[Case], data: xr.Dataset, settings: config.Previous) -> list[Case]:
    """Cases that have as many entries before them as the largest lag."""
    dim, most = settings.dim, max(settings.lags)
    if dim not in data.dims:
        raise SciffusionError(f"no dim {dim!r} to look back along", "name the time dim with dim: ...")
    values = np.sort(_native(data, dim))
    kept = [case for case in cases if np.searchsorted(values, case.values[dim]) >= most]
    if not kept:
        raise SciffusionError(f"no case has {most} entries before it along {dim!r}", "use fewer lags, or longer data")
    return kept


def _covered(skeleton: xr.Dataset, ds: xr.Dataset, dim: str, align: Align) -> np.ndarray:
    """Bool per label of ``skeleton`` along ``dim``: whether ``ds`` can be selected there."""
    labels = _native(skeleton, dim)
    known = {encode_label(value) for value in _native(ds, dim)}
    found = np.array([encode_label(value) in known for value in labels])
    if align == "exact" or found.all():
        return found
    bare = ds[[]].assign_coords({dim: _native(ds, dim)})
    return np.array([hit or _selects(bare, dim, value, align) for hit, value in zip(found, labels, strict=True)])


def _native(ds: xr.Dataset, dim: str) -> np.ndarray:
    return ds[dim].values if dim in ds.coords else np.arange(ds.sizes[dim])


def _selects(ds: xr.Dataset, dim: str, value: object, align: Align) -> bool:
    try:
        select(ds, Case((encode_label(value),), {dim: value}), align)
    except SciffusionError:
        return False
    return True


def split_cases(cases: list[Case], skeleton: xr.Dataset, split: config.Split) -> dict[str, list[Case]]:
    """Cases by split: those whose label along ``split.dim`` lies in one of the split's ranges.

    Raises SciffusionError for an unknown dim, a range without labels, and a label in two splits.
    """
    names = ("train", "validation", "test")
    if split.dim is None:
        return {name: list(cases) for name in names}
    if split.dim not in skeleton.dims:
        dims = list(map(str, skeleton.dims))
        mend = suggestion(split.dim, dims) if dims else "there is a single case: set split.dim: null"
        raise SciffusionError(f"split.dim: {split.dim!r} is not a case dim", mend)
    places = {name: _places(skeleton, split, name) for name in names}
    _check_disjoint(skeleton, split.dim, places)
    chosen = {name: [case for case in cases if case.indices[split.dim] in places[name]] for name in names}
    if not chosen["train"]:
        raise SciffusionError(
            f"split.train: no case in {_ranges(split.train)} has data in all conditions",
            range_text(skeleton, split.dim),
        )
    return chosen


def _places(skeleton: xr.Dataset, split: config.Split, name: str) -> set[int]:
    assert split.dim is not None
    found: set[int] = set()
    for first, last in getattr(split, name):
        inside = positions(skeleton, split.dim, first, last)
        if not inside.size:
            raise SciffusionError(
                f"split.{name}: nothing along {split.dim!r} from {first} to {last}", range_text(skeleton, split.dim)
            )
        found |= set(inside.tolist())
    return found


def _check_disjoint(skeleton: xr.Dataset, dim: str, places: Mapping[str, set[int]]) -> None:
    for one, two in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = sorted(places[one] & places[two])
        if both:
            label = encode_label(_native(skeleton, dim)[both[0]])
            raise SciffusionError(
                f"split: {dim} {label} is in {one} and in {two} ({len(both)} such labels)",
                "make the ranges disjoint: held-out scores of training cases mean nothing",
            )


def _ranges(ranges: Sequence[tuple[object, object]]) -> str:
    return ", ".join(f"{first} to {last}" for first, last in ranges)
