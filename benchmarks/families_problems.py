"""The problems of the family table: simulated ones, the embedded week of ERA5, and a run of a GCM.

Of the week there are winds and temperature (`era5`, the demo's experiment) and hourly precipitation (`era5-tp`); of the
GCM one day ahead (`gcm`), and four days as one field (`gcm-window`).
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import xarray as xr

import sciffusion
from sciffusion.datasets import PROBLEMS, write_problem
from sciffusion.datasets.windows import write_windows

__all__ = ["GCM", "OTHERS", "exclusive", "gcm_path", "prepared"]

GCM = ("gcm", "gcm-window")
OTHERS = {
    "era5": "Winds and temperature of the embedded week of ERA5 at 1 degree, given their means over 4 degrees",
    "era5-tp": "Hourly precipitation of the embedded week of ERA5 at 1 degree, given its means over 4 degrees",
    "gcm": "Daily wind, temperature and pressure near 500 hPa of a GCM at T31, given the day before",
    "gcm-window": "Four days of the same GCM as one field, given the 4 x 4 block means of each day",
}
SPIN_UP = 60  # days
FRAMES = 4
HERE = Path(__file__).parent / "problems"
TOY = (24, 4, 4)  # cases


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """A lock on a file, which dies with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def prepared(name: str, work: Path, device: torch.device, *, gcm: Path | None = None, toy: bool = False) -> Path:
    """The experiment of the problem; its data are made if need be, by one process, while others wait."""
    if name == "era5":
        return Path(sciffusion.__file__).parent / "datasets" / "era5_week.yaml"
    if name == "era5-tp":
        return HERE / "era5-tp.yaml"
    folder = work / f"{name}{'-toy' * (toy and name in PROBLEMS)}"
    with exclusive(work / f"{folder.name}.lock"):
        if name in GCM:
            return gcm_path(name, gcm, folder)
        return write_problem(name, folder, cases=TOY if toy else None, device=str(device), progress=False)


def gcm_path(name: str, source: Path | None, folder: Path) -> Path:
    """The experiment of the problem, with its data beside it. Raises where the run of the GCM was not named."""
    if source is None or not source.is_file():
        raise FileNotFoundError(f"{source or 'no file'}: name the run of the GCM with --gcm")
    path = folder / "experiment.yaml"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with xr.open_dataset(source) as run:
            days = run.isel(time=slice(SPIN_UP, None)).astype("float32").load()
        if name == "gcm":
            days.to_netcdf(folder / "gcm.nc")
        else:
            write_windows(days, folder / "windows.zarr", FRAMES, "time", 1)
        shutil.copy(HERE / f"{name}.yaml", path)
    return path
