"""The GCM run as problems of the family table: one day ahead (`forecast`), and four days as one field (`window`)."""

import shutil
from pathlib import Path

import xarray as xr

from sciffusion.datasets.windows import write_windows

__all__ = ["GCM", "SUMMARIES", "gcm_path"]

GCM = ("gcm", "gcm-window")
SUMMARIES = {
    "gcm": "Daily wind, temperature and pressure near 500 hPa of a GCM at T31, given the day before",
    "gcm-window": "Four days of the same GCM as one field, given the 4 x 4 block means of each day",
}
SPIN_UP = 60  # days
FRAMES = 4
HERE = Path(__file__).parent / "problems"


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
