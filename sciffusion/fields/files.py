"""Paths of a source -> lazily opened data sets, one per file or store, with a clear message for whatever is no data."""

import difflib
import glob
import re
import warnings
from pathlib import Path
from typing import Any

import netCDF4
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.guard import check_zarr

__all__ = ["expand_paths", "natural_key", "open_path"]

_ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata")
_NETCDF_MAGIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05", b"\x89HDF")
_FOREIGN = {
    b"GRIB": ("a GRIB file", "convert it first: cdo -f nc4 copy IN OUT, or grib_to_netcdf"),
    b"PK\x03\x04": ("a zip archive", "unpack it, and give the files or the Zarr folder inside"),
    b"\x1f\x8b": ("gzip-compressed", "unpack it first: gunzip"),
}


def natural_key(path: str) -> list[tuple[int, int, str]]:
    """Sort key by which ``run_2`` stands before ``run_10``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path)]


def expand_paths(paths: list[str]) -> list[str]:
    """Existing paths that the entries (files, stores, globs, URLs) stand for, in natural order, each once.

    Raises SciffusionError for a missing path (with the nearest existing name) and for a glob without a match.
    """
    found: list[str] = []
    for entry in paths:
        found += [entry] if "://" in entry else _expand(entry)
    return sorted(dict.fromkeys(found), key=natural_key)


def _expand(entry: str) -> list[str]:
    path = Path(entry).expanduser()
    if path.exists():
        return [str(path)]
    matches = glob.glob(str(path), recursive=True) if glob.has_magic(entry) else []
    if matches:
        return matches
    if glob.has_magic(entry):
        raise SciffusionError(f"{entry}: no file matches this pattern", "check the folder and the pattern")
    if not path.parent.is_dir():
        raise SciffusionError(f"{entry}: the folder {path.parent} does not exist", "check the path")
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1)
    raise SciffusionError(f"{entry}: no such file", f"did you mean {near[0]!r}?" if near else "check the path")


def open_path(path: str) -> xr.Dataset:
    """One NetCDF file or Zarr store, lazily and without dask; CF-decoded (time axes, packed values, fill values).

    Raises SciffusionError for an empty, truncated or foreign file and for a folder that is no Zarr store.
    """
    options: dict[str, Any] = {"decode_timedelta": False, "chunks": None}
    try:
        if _is_zarr(path):
            if "://" not in path:
                check_zarr(Path(path))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Failed to open Zarr store with consolidated")
                return xr.open_dataset(path, engine="zarr", **options)
        _check_magic(path)
        _check_size(path)
        return xr.open_dataset(path, engine="netcdf4", **options)
    except SciffusionError:
        raise
    except Exception as error:
        if "unable to decode time units" in str(error) or "cftime" in type(error).__module__:
            raise SciffusionError(
                f"{path}: its time axis cannot be decoded: {_first_line(error)}",
                "give the time variable CF units such as 'days since 2000-01-01' and a calendar",
            ) from error
        raise SciffusionError(
            f"{path}: cannot be opened, it is truncated or damaged ({_first_line(error)})", "copy or write it again"
        ) from error


def _is_zarr(path: str) -> bool:
    if "://" in path:
        return path.rstrip("/").endswith(".zarr")
    if not Path(path).is_dir():
        return False
    if any((Path(path) / mark).exists() for mark in _ZARR_MARKS):
        return True
    raise SciffusionError(
        f"{path}: a folder, but no Zarr store (it has none of {', '.join(_ZARR_MARKS)})",
        f"for a folder of NetCDF files give a pattern such as '{path}/*.nc'",
    )


def _check_magic(path: str) -> None:
    """Refuse what is not NetCDF before a library does so in its own words."""
    if "://" in path:
        return
    with open(path, "rb") as file:
        start = file.read(8)
    if not start:
        raise SciffusionError(f"{path}: the file is empty (0 bytes)", "copy or write it again")
    for magic, (what, mend) in _FOREIGN.items():
        if start.startswith(magic):
            raise SciffusionError(f"{path}: {what}, neither NetCDF nor Zarr", mend)
    if not start.startswith(_NETCDF_MAGIC):
        raise SciffusionError(f"{path}: neither NetCDF nor Zarr", "convert it to NetCDF or Zarr, or correct the path")


def _check_size(path: str) -> None:
    """A classic NetCDF file (no HDF5) does not know its own length, and what is cut off reads as zeros."""
    if "://" in path:
        return
    with open(path, "rb") as start:
        if start.read(3) != b"CDF":
            return
    with netCDF4.Dataset(path) as file:
        needed = sum(variable.size * variable.dtype.itemsize for variable in file.variables.values())
    actual = Path(path).stat().st_size
    if actual < needed:
        raise SciffusionError(
            f"{path}: the file is truncated ({actual} bytes, its header promises more than {needed})",
            "copy or write it again",
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
