"""Windows of several times as one field, with time as a grid axis: what a model of short films learns.

``frame`` is the axis within a window, and the case dim keeps its name and says when a window begins. A window of k
frames every k entries holds each entry once; a smaller stride makes overlapping windows, and more of them to train on.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.axes import positions
from sciffusion.fields.layout import quiet
from sciffusion.fields.output import recover, refuse_existing, remove, replace, temporary, uninterrupted, writing
from sciffusion.fields.roles import FRAME

__all__ = ["from_windows", "to_windows", "write_windows"]

BLOCK = 2**26  # values written at a time
SECONDS = 3600.0


def to_windows(data: xr.Dataset, frames: int, dim: str = "time", stride: int | None = None) -> xr.Dataset:
    """Cut ``data`` into windows of ``frames`` entries, every ``stride`` of them (default: ``frames``).

    Variables without ``dim`` stay as they are; times in a window count in hours from its first.

    Raises SciffusionError for too few entries, and for entries that are not evenly spaced.
    """
    offset = _offsets(data, dim, frames)
    starts = np.arange(0, data.sizes[dim] - frames + 1, stride or frames)
    place = xr.DataArray(starts[:, None] + np.arange(frames), dims=(dim, FRAME))
    varying = [name for name, variable in data.data_vars.items() if dim in variable.dims]
    windows = data[varying].drop_vars(dim, errors="ignore").isel({dim: place}).transpose(dim, FRAME, ...)
    first = {dim: data[dim].isel({dim: starts})} if dim in data.coords else {}
    return (
        windows.assign(data.drop_vars(varying).data_vars)
        .assign_coords(first | {FRAME: offset})
        .assign_attrs(data.attrs)
    )


def _offsets(data: xr.Dataset, dim: str, frames: int) -> xr.Variable:
    """Coordinate of the frames: hours where the entries are times, else in their own units. Refuses what is uneven."""
    count = data.sizes.get(dim, 0)
    if not 2 <= frames <= count:
        raise SciffusionError(f"windows of {frames} entries of {count} along {dim!r}", "choose from 2 to their number")
    line = positions(data[dim].values) if dim in data.coords else np.arange(data.sizes[dim], dtype=float)
    steps = np.diff(line)
    if not np.allclose(steps, steps[0], rtol=1e-3):
        raise SciffusionError(
            f"{dim!r} is not evenly spaced", "select a part that is, or fill the gaps: frames have one distance"
        )
    is_time = dim in data.coords and data[dim].dtype.kind in "MO"
    step = steps[0] / SECONDS if is_time else steps[0]
    # not "hours": xarray would take the coordinate for durations
    attributes = {"long_name": f"{dim} since the first frame", "units": "h" if is_time else "1"}
    return xr.Variable((FRAME,), step * np.arange(frames), attributes)


def from_windows(windows: xr.Dataset, dim: str = "time") -> xr.Dataset:
    """The entries of windows one after the other again; of entries in several windows the earliest window's.

    Other dims, such as ``member``, stay.
    """
    hours = windows[FRAME].values
    starts = windows[dim].values
    if starts.dtype.kind == "M":
        times = starts[:, None] + (hours * SECONDS * 1e9).round().astype("timedelta64[ns]")
    elif starts.dtype.kind == "O":
        steps = np.array([np.timedelta64(round(hour * SECONDS * 1e6), "us").astype(object) for hour in hours])
        times = starts[:, None] + steps
    else:
        times = starts[:, None] + hours
    flat, place = np.unique(times.ravel(), return_index=True)
    varying = [name for name, variable in windows.data_vars.items() if FRAME in variable.dims]
    stacked = windows[varying].drop_vars([dim, FRAME]).stack({"entry": (dim, FRAME)}, create_index=False)
    entries = stacked.isel(entry=place).rename(entry=dim).assign_coords({dim: (dim, flat, windows[dim].attrs)})
    order = {name: [d for d in windows[name].dims if d != FRAME] for name in varying}
    return xr.Dataset({name: entries[name].transpose(*order[name]) for name in varying}, attrs=windows.attrs)


def write_windows(
    data: xr.Dataset,
    path: Path | str,
    frames: int,
    dim: str = "time",
    stride: int | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write `to_windows` to a Zarr store, block by block, so that memory does not grow with the data.

    Raises SciffusionError when the store exists (unless ``overwrite``) or cannot be written; a previous store is then
    left as it was.
    """
    target = Path(path)
    recover(target)
    refuse_existing(target, overwrite)
    partial = temporary(target)
    try:
        with writing(target), quiet():
            for number, block in enumerate(_blocks(data, frames, dim, stride or frames)):
                for variable in block.variables.values():
                    variable.encoding = {}
                block.load().to_zarr(partial, mode="w" if not number else "a", append_dim=dim if number else None)
            with uninterrupted():
                replace(partial, target)
    finally:
        remove(partial)
    return target


def _blocks(data: xr.Dataset, frames: int, dim: str, stride: int) -> Iterator[xr.Dataset]:
    """Windows in blocks of at most BLOCK values."""
    count = data.sizes.get(dim, 0)
    _offsets(data, dim, frames)  # before anything is written
    cells = sum(variable.size for variable in data.data_vars.values()) / max(1, count)
    each = max(1, int(BLOCK / max(1.0, cells * frames)))
    starts = range(0, count - frames + 1, stride)
    for first in range(0, len(starts), each):
        part = starts[first : first + each]
        yield to_windows(data.isel({dim: slice(part[0], part[-1] + frames)}), frames, dim, stride)
