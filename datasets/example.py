"""The embedded example: one week of ERA5 at 1 degree and the static fields on the same grid.

The files travel inside the package, so that the demo and the tests need no network. ``build_example.py`` makes them.
"""

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from sciffusion.errors import SciffusionError

__all__ = ["example_names", "example_path", "open_example"]


class _File(NamedTuple):
    name: str
    sha256: str


_FILES = {
    "era5": _File("era5_week.nc", "9f947a10638517beabe7f068b206ddf1c3cd87fcbc0898cf33d7fd7138bf57de"),
    "era5-static": _File("era5_static.nc", "aac9457cf1e309f181f70e45db078ad4dfc83ea2b666378bc99b2329ea502f26"),
}


def example_names() -> list[str]:
    """Names that `open_example` knows."""
    return sorted(_FILES)


@cache
def example_path(name: str) -> Path:
    """Path of an embedded file, after comparing its checksum.

    Raises SciffusionError for an unknown name and for a missing or damaged file.
    """
    if name not in _FILES:
        raise SciffusionError(f"no example is called {name!r}", f"known: {', '.join(example_names())}")
    path = Path(str(files(__package__))) / "data" / _FILES[name].name
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _FILES[name].sha256:
        raise SciffusionError(f"{path}: missing or damaged", "install sciffusion again, or restore the file from git")
    return path


def open_example(name: str = "era5") -> xr.Dataset:
    """Open an embedded data set lazily.

    ``era5``: u10, v10 (m s-1), t2m (K), tp (m) on (time 24, latitude 181 from north, longitude 360).
    ``era5-static``: orography (m) and land fraction on the same grid.
    """
    return xr.open_dataset(example_path(name), engine="netcdf4")
