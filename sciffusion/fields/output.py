"""Writing files that are either whole or not there: temporary names beside the target, then a rename."""

import errno
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import dask
import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields import cf
from sciffusion.fields.roles import role_of

__all__ = [
    "recover",
    "refuse_existing",
    "remove",
    "replace",
    "temporary",
    "uninterrupted",
    "write_bytes",
    "write_netcdf",
    "write_text",
    "writing",
]

_MENDS = {
    errno.ENOSPC: "free some space on that disk; what was complete is intact",
    errno.EDQUOT: "free some of your quota; what was complete is intact",
    errno.EROFS: "choose an output on a disk that can be written",
    errno.EACCES: "choose an output folder that you may write to",
    errno.EPERM: "choose an output folder that you may write to",
    errno.ENOENT: "make the folder first, or choose another output",
}


_PACKING = ("dtype", "scale_factor", "add_offset", "_FillValue")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure of the file system while writing ``path`` into a SciffusionError with its mend."""
    try:
        yield
    except OSError as error:
        mend = _MENDS.get(error.errno or 0, "see that the disk works; what was complete is intact")
        raise SciffusionError(f"{path}: cannot be written: {error.strerror or error}", mend) from error


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back a Ctrl-C until the block has ended: for short steps that must not stop half-way.

    Zarr writes in a thread of its own, which would go on while an interrupted caller cleans up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python raises KeyboardInterrupt in the main thread only
        return
    came: list[tuple[int, FrameType | None]] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
    if came and callable(previous):
        previous(*came[0])


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise SciffusionError when ``path`` exists, unless told to overwrite, or when its folder does not."""
    if not path.absolute().parent.is_dir():
        raise SciffusionError(f"{path}: its folder does not exist", "make the folder first, or choose another output")
    if path.exists() and not overwrite:
        raise SciffusionError(f"{path}: exists already", "choose another output, or give --overwrite")


def temporary(path: Path, purpose: str = "partial") -> Path:
    """A hidden name beside ``path`` that no other process uses."""
    return path.with_name(f".{path.name}.{os.uname().nodename}-{os.getpid()}.{purpose}")


def recover(path: Path) -> None:
    """Clear up what killed processes of this machine left beside ``path``.

    A process killed while it replaced an output has put the previous one aside, as ``old``: it comes back.
    """
    prefix = f".{path.name}.{os.uname().nodename}-"
    for left in path.absolute().parent.glob(".*") if path.absolute().parent.is_dir() else ():
        pid, _, purpose = left.name.removeprefix(prefix).partition(".")
        if not left.name.startswith(prefix) or not pid.isdecimal() or _alive(int(pid)):
            continue
        if purpose == "old" and not path.exists():
            left.rename(path)
        else:
            remove(left)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one; several processes may do so at once."""
    while path.is_dir() and not path.is_symlink():
        with suppress(FileNotFoundError):  # another process was faster with one of its files
            shutil.rmtree(path)
    path.unlink(missing_ok=True)


def replace(new: Path, path: Path) -> None:
    """Rename a whole ``new`` file or folder to ``path``; what was there is put aside until then, see `recover`.

    Where that fails it comes back.
    """
    old = temporary(path, "old")
    if path.exists():
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    remove(old)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, text: str, *, fsync: bool = False) -> None:
    """Write a small file under a temporary name, then rename it: a reader sees it whole or not at all."""
    write_bytes(path, text.encode(), temporary(path), fsync=fsync)


def write_bytes(path: Path, data: bytes, temp: Path, *, fsync: bool = False) -> None:
    """Write a file as ``temp``, then rename it; after an error nothing is left of it."""
    try:
        with temp.open("wb") as file:
            file.write(data)
            if fsync:
                file.flush()
                os.fsync(file.fileno())
        temp.replace(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def write_netcdf(ds: xr.Dataset, path: Path | str, *, overwrite: bool = False, as_is: bool = False) -> None:
    """Stream ``ds`` to a NetCDF4 file that appears only when it is whole; lazy data are never all in memory.

    It is compressed, with attributes as CF asks for them, or ``as_is``: with the encoding and attributes that it has.
    Raises SciffusionError when the file exists (unless ``overwrite``) or cannot be written; a previous file is then
    left as it was.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    temp = temporary(path)
    ready, encoding = (ds, None) if as_is else (_netcdf_ready(ds), _encoding(ds))
    try:
        with writing(path), dask.config.set(scheduler="synchronous"):
            try:
                ready.to_netcdf(temp, engine="netcdf4", encoding=encoding)
            except RuntimeError as error:  # the HDF5 library reports a full disk as this
                raise OSError(_suspect(path, ds), str(error)) from error
            temp.replace(path)
    finally:
        temp.unlink(missing_ok=True)


def _netcdf_ready(ds: xr.Dataset) -> xr.Dataset:
    """Without the encodings of another format, with attributes that NetCDF can hold and CF asks for."""
    ds = ds.copy()
    ds.attrs = cf.plain_attributes(ds.attrs)
    kept = {"units", "calendar", "dtype", "_FillValue"}
    for name, variable in ds.variables.items():
        variable.attrs = cf.plain_attributes(variable.attrs)
        coordinate = name in ds.coords
        variable.encoding = {k: v for k, v in variable.encoding.items() if coordinate and k in kept}
        if getattr(variable.encoding.get("dtype"), "kind", "") == "T":
            del variable.encoding["dtype"]  # text of variable length, as numpy has it and netCDF4 does not
        if coordinate and variable.dtype.kind == "f" and not np.isnan(variable.values).any():
            variable.encoding["_FillValue"] = None  # CF section 2.5.1: coordinates have no missing values
    return _named(ds)


def _named(ds: xr.Dataset) -> xr.Dataset:
    """With the standard names of times, latitudes and longitudes, where the source gave none."""
    for dim in ds.coords:
        role, variable = role_of(ds, dim), ds.variables[dim]
        dated = role == "time" and variable.dtype.kind in "MO"
        if dated or (role in ("latitude", "longitude") and "units" in variable.attrs):
            variable.attrs.setdefault("standard_name", role)
    return ds


def _encoding(ds: xr.Dataset) -> dict[Any, dict[str, Any]]:
    """Compressed, one chunk per member and case where the data are chunked so, packed where they were."""
    encoding = {}
    for name, variable in ds.data_vars.items():
        if variable.ndim and variable.dtype.kind == "f" and variable.size:
            entry: dict[str, Any] = {"zlib": True, "complevel": 1, "shuffle": True}
            if variable.chunks is not None:
                entry["chunksizes"] = tuple(max(sizes) for sizes in variable.chunks)
            if "scale_factor" in variable.encoding:
                entry |= {key: variable.encoding[key] for key in _PACKING if key in variable.encoding}
            encoding[name] = entry
    return encoding


def _suspect(path: Path, ds: xr.Dataset) -> int:
    """The likely errno of a failure that the HDF5 library does not explain."""
    status = os.statvfs(path.absolute().parent)
    largest = max((np.dtype(v.dtype).itemsize * int(np.prod(v.shape[1:])) for v in ds.values()), default=0)
    return errno.ENOSPC if status.f_bavail * status.f_frsize < max(largest, 1 << 20) else errno.EIO
