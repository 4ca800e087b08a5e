"""What the proposal of an experiment reads off the surveyed data: directions, windows, labels, times, counts."""

from typing import Any

import numpy as np
import xarray as xr

from sciffusion.cli import decisions
from sciffusion.fields.facts import FieldFacts
from sciffusion.fields.labels import is_time, label_text
from sciffusion.fields.roles import find_axis, role_of, roles
from sciffusion.fields.survey import Survey

__all__ = ["gaps", "labels_of", "sides_of", "symmetric_latitude", "time_step", "train_count", "window_of"]


def gaps(fact: FieldFacts) -> str:
    """How much is missing, always and at times, in words; nothing where nothing is."""
    parts = [f"{fact.permanent:.0%} of the cells are always NaN (masked)"] if fact.permanent else []
    return "; ".join(parts + ([f"{fact.occasional:.1%} sometimes NaN (gaps)"] if fact.occasional else []))


def sides_of(fine: Survey) -> dict[str, str]:
    """Which grid dims point east, north and up."""
    dims = fine.layout.dims
    known = roles(fine.ds, dims)
    sides = {"longitude": "east", "x": "east", "latitude": "north", "y": "north", "vertical": "up"}
    found = {sides[role]: dim for dim, role in known.items() if role in sides}
    if len(dims) == 3 and "up" not in found:
        rest = [dim for dim in dims if dim not in found.values()]
        found |= {"up": rest[0]} if len(rest) == 1 else {}
    return found


def window_of(fine: Survey) -> tuple[int, ...]:
    """The training window: the grid, or the crop."""
    cropped = decisions.crop(fine.shape, fine.layout.dims)
    return tuple(cropped.get(dim, size) for dim, size in zip(fine.layout.dims, fine.shape, strict=True))


def labels_of(ds: xr.Dataset, dim: str | None) -> Any:
    """Position -> label as the YAML writes it."""
    if dim is None or dim not in ds.coords:
        return lambda position: position
    values = ds[dim].values
    # A bare date means the whole day, so midnight is written out where the data are finer than daily.
    daily = is_time(values) and all("T" not in label_text(value) for value in values[:100])

    def label(position: int) -> str | int | float:
        value = values[position]
        if is_time(values):
            text = label_text(value)
            return text if daily or "T" in text else f"{text}T00:00"
        return value.item() if values.dtype.kind in "iuf" else str(value)

    return label


def train_count(fine: Survey, ranges: list[tuple[int, int]]) -> int:
    """Training cases, over all case dims."""
    first, last = ranges[0]
    sizes = [fine.ds.sizes[dim] for dim in fine.layout.case_dims]
    longest = find_axis(fine.ds, "time", fine.layout.case_dims)
    split = fine.ds.sizes[longest] if longest else max(sizes, default=1)
    return (last - first + 1) * int(np.prod(sizes, dtype=np.int64)) // max(1, split)


def time_step(fine: Survey) -> tuple[float, float]:
    """Typical step in hours and span in days of the time axis; zeros without one."""
    dim = find_axis(fine.ds, "time", fine.layout.case_dims)
    if dim is None or dim not in fine.ds.coords or not is_time(fine.ds[dim].values) or fine.ds.sizes[dim] < 2:
        return 0.0, 0.0
    values = fine.ds[dim].values
    seconds = [_seconds(values[i + 1] - values[i]) for i in range(min(values.size - 1, 100))]
    return float(np.median(seconds)) / 3600, _seconds(values[-1] - values[0]) / 86400


def _seconds(difference: Any) -> float:
    if isinstance(difference, np.timedelta64):
        return float(difference / np.timedelta64(1, "s"))
    return float(difference.total_seconds())


def symmetric_latitude(ds: xr.Dataset, dim: str) -> bool:
    """Whether ``dim`` is a latitude whose values mirror each other at the equator."""
    if dim not in ds.coords or role_of(ds, dim) != "latitude":
        return False
    values = ds[dim].values
    return bool(np.allclose(values, -values[::-1], atol=1e-3 * abs(float(values[1] - values[0]))))
