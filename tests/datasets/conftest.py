"""An experiment on a small globe, written to files as a user's would be."""

import numpy as np
import pytest
import xarray as xr

from sciffusion import config


def globe(times=8, seed=0):
    rng = np.random.default_rng(seed)
    latitude, longitude = np.linspace(90, -90, 19), np.arange(0, 360, 10.0)
    shape, dims = (times, 19, 36), ("time", "latitude", "longitude")
    wave = 10 * np.cos(np.deg2rad(latitude))[:, None] * np.sin(np.deg2rad(longitude))
    fields = {
        "v": (dims, (wave + 2 + rng.normal(size=shape)).astype("f4"), {"units": "m s-1"}),
        "t": (dims, (280 + wave + rng.normal(size=shape)).astype("f4"), {"units": "K"}),
    }
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h"),
        "latitude": ("latitude", latitude, {"units": "degrees_north"}),
        "longitude": ("longitude", longitude, {"units": "degrees_east"}),
    }
    return xr.Dataset(fields, coords)


def settings(folder, **changes):
    """An experiment with every kind of condition; ``changes`` replace sections."""
    sections = {
        "target": {
            "source": {"paths": [str(folder / "fine.nc")]},
            "variables": {"v": {"odd_along": ["latitude"]}, "t": {}},
            "dims": ["latitude", "longitude"],
            "geometry": "sphere",
            "periodic": ["longitude"],
        },
        "conditions": {
            "coarse": {"kind": "coarse", "variables": ["v", "t"], "factor": 3},
            "land": {"kind": "static", "source": {"paths": [str(folder / "static.nc")]}, "variables": ["height"]},
            "forcing": {"kind": "scalar", "source": {"paths": [str(folder / "forcing.nc")]}, "variables": ["co2"]},
            "clock": {"kind": "calendar", "features": ["day_of_year", "local_solar_time"]},
            "where": {"kind": "position", "features": ["latitude", "fourier"], "frequencies": 2},
        },
        "split": {
            "train": [["2001-01-01", "2001-01-01"]],
            "validation": [["2001-01-02T00", "2001-01-02T06"]],
            "test": [["2001-01-02T12", "2001-01-02"]],
        },
        "stages": [{"name": "denoiser", "kind": "denoiser", "baseline": "coarse"}],
    }
    return config.Experiment.model_validate(sections | changes)


def write(folder):
    """The experiment's files."""
    data = globe()
    data.to_netcdf(folder / "fine.nc")
    height = 100 + 50 * np.sin(np.deg2rad(data.latitude)) * np.cos(np.deg2rad(data.longitude))
    xr.Dataset({"height": height.transpose("latitude", "longitude")}).to_netcdf(folder / "static.nc")
    xr.Dataset({"co2": ("time", 400.0 + np.arange(8))}, {"time": data.time}).to_netcdf(folder / "forcing.nc")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path)
    return tmp_path
