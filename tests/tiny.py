"""A tiny experiment that trains in seconds: one periodic plane field of 16 x 24 cells and its 4 x 4 block means."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from tests.synthetic import field

__all__ = ["tiny_data", "tiny_experiment", "write_experiment"]


def tiny_data(path: Path, times: int = 20, seed: int = 0) -> Path:
    """A NetCDF file of a red-spectrum field a and a second one b that follows it."""
    rng = np.random.default_rng(seed)
    a = field(rng, (16, 24), 3.0, times)
    b = 0.7 * a + 0.7 * field(rng, (16, 24), 3.0, times)
    data = xr.Dataset(
        {"a": (("time", "y", "x"), a, {"units": "m s-1"}), "b": (("time", "y", "x"), 280 + 5 * b, {"units": "K"})},
        coords={"time": np.datetime64("2020-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h")},
    )
    data.to_netcdf(path)
    return path


def tiny_experiment(data: Path, output: Path, **train: Any) -> dict[str, Any]:
    """Settings of a training on `tiny_data`."""
    return {
        "title": "tiny",
        "output": str(output),
        "target": {
            "source": {"paths": [str(data)]},
            "variables": {"a": {}, "b": {}},
            "dims": ["y", "x"],
            "periodic": ["y", "x"],
        },
        "conditions": {
            "coarse": {"kind": "coarse", "variables": ["a", "b"], "factor": 4},
            "clock": {"kind": "calendar", "features": ["time_of_day"]},
        },
        "split": {
            "dim": "time",
            "train": [["2020-01-01", "2020-01-03T18:00"]],
            "validation": [["2020-01-04T00:00", "2020-01-04T06:00"]],
            "test": [["2020-01-04T18:00", "2020-01-05T18:00"]],
        },
        "stages": [
            {
                "name": "denoiser",
                "kind": "denoiser",
                "baseline": "coarse",
                "constraint": "coarse",
                "network": {"kind": "unet", "channels": 8, "multipliers": [1, 2], "blocks": 1, "embedding": 16},
                "sampler": {"steps": 4},
            }
        ],
        "train": {
            "steps": 12,
            "batch_size": 4,
            "validate_every": 6,
            "validation_members": 2,
            "warmup": 2,
            "accelerator": "cpu",
            "devices": 1,
            "augment": {"roll": ["x", "y"], "mirror": ["y"]},
            **train,
        },
    }


def write_experiment(path: Path, settings: dict[str, Any]) -> Path:
    """The settings as YAML."""
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path
