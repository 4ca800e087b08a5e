"""Small fields whose answers are known: a globe with pole rows, and a periodic plane with gaps."""

import numpy as np
import pytest
import xarray as xr

from sciffusion import config
from sciffusion.conditioners.base import Training
from sciffusion.fields.cases import cases_of
from sciffusion.fields.grid import Grid


def globe(times=4, seed=0):
    rng = np.random.default_rng(seed)
    latitude, longitude = np.linspace(90, -90, 19), np.arange(0, 360, 10.0)
    shape, dims = (times, 19, 36), ("time", "latitude", "longitude")
    wave = 10 * np.cos(np.deg2rad(latitude))[:, None] * np.sin(np.deg2rad(longitude))
    fields = {
        "u": (dims, (wave + rng.normal(size=shape)).astype("f4"), {"units": "m s-1"}),
        "v": (dims, (wave + 2 + rng.normal(size=shape)).astype("f4"), {"units": "m s-1"}),
        "t": (dims, (280 + wave + rng.normal(size=shape)).astype("f4"), {"units": "K"}),
    }
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h"),
        "latitude": ("latitude", latitude, {"units": "degrees_north"}),
        "longitude": ("longitude", longitude, {"units": "degrees_east"}),
    }
    return xr.Dataset(fields, coords)


def training_on(data, dims=("latitude", "longitude"), variables=None, geometry="sphere", periodic=("longitude",)):
    target = config.Target(
        source=config.Source(paths=["target.nc"]),
        variables=variables or {"u": {}, "v": {"odd_along": ["latitude"]}, "t": {}},
        dims=list(dims),
        geometry=geometry,
        periodic=list(periodic),
    )
    grid = Grid.from_dataset(data, dims, geometry, periodic)
    return Training(target, data[list(target.variables)], grid, cases_of(data, dims))


@pytest.fixture
def training():
    return training_on(globe())
