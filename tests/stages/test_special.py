"""Recipes for special data by the command line: precipitation with exact zeros, windows with time as a grid axis."""

import numpy as np
import xarray as xr
import yaml

from sciffusion.cli import main
from sciffusion.fields.ensemble import open_ensemble
from tests.synthetic import field
from tests.tiny import tiny_data

SMALL = [
    *("train.steps=6", "train.validate_every=6", "train.validation_cases=1", "train.validation_members=0"),
    *("train.batch_size=2", "train.accelerator=cpu", "train.warmup=1", "train.statistics_cases=8"),
    *("stages.denoiser.network.channels=8", "stages.denoiser.network.multipliers=[1, 2]"),
    *("stages.denoiser.network.blocks=1", "stages.denoiser.network.embedding=16", "stages.denoiser.sampler.steps=4"),
]


def sciffusion(*arguments):
    assert main([*map(str, arguments)]) == 0


def train(yaml_path, *changes):
    sciffusion("train", yaml_path, "--no-progress", *(part for s in [*SMALL, *changes] for part in ("--set", s)))


def test_precipitation_has_exact_zeros_and_nothing_below_the_threshold(tmp_path):
    data = tmp_path / "rain.nc"
    rain = 8 * np.maximum(field(np.random.default_rng(0), (16, 24), 2.5, 20), 0) ** 3
    time = np.datetime64("2020-01-01", "ns") + np.arange(20) * np.timedelta64(1, "D")
    xr.Dataset({"pr": (("time", "y", "x"), rain, {"units": "mm/day"})}, {"time": time}).to_netcdf(data)
    path, ens = tmp_path / "rain.yaml", tmp_path / "e.zarr"
    sciffusion("init", "--target", data, "--recipe", "precipitation", "-o", path)
    variable = yaml.safe_load(path.read_text())["target"]["variables"]["pr"]
    assert variable["transform"] == "censored"
    train(path, "target.variables.pr.threshold=0.1")
    sciffusion("generate", tmp_path / "rain_run", "--members", 2, "-o", ens, "--quiet")
    rain = open_ensemble(ens).pr.values
    dry = (rain == 0).mean()
    assert 0.05 < dry < 0.95
    assert rain[rain > 0].min() >= 0.0999


def test_windows_are_learnt_scored_and_put_back_into_times(tmp_path):
    data = tiny_data(tmp_path / "fine.nc", times=20)
    windows, path, ens = tmp_path / "windows.zarr", tmp_path / "film.yaml", tmp_path / "films.zarr"
    sciffusion("windows", data, "--frames", 2, "-o", windows)
    options = ["--dims", "frame,y,x", "--recipe", "window", "--factor", 4, "-o", path]
    sciffusion("init", "--target", windows, *options)
    factor = yaml.safe_load(path.read_text())["conditions"]["coarse"]["factor"]
    assert factor == {"y": 4, "x": 4}
    train(path)
    sciffusion("generate", tmp_path / "film_run", "--members", 2, "-o", ens, "--quiet")
    films = open_ensemble(ens).load()
    assert films.a.dims == ("member", "time", "frame", "y", "x")
    truth = xr.open_zarr(windows).a.sel(time=films.time).coarsen(y=4, x=4).mean().values
    np.testing.assert_allclose(
        films.a.coarsen(y=4, x=4).mean().values, np.broadcast_to(truth, (2, *truth.shape)), atol=2e-4
    )
    sciffusion("evaluate", ens, "--reference", windows)
    sciffusion("windows", ens, "--back", "-o", tmp_path / "members.nc")
    members = xr.open_dataset(tmp_path / "members.nc")
    assert members.a.dims == ("member", "time", "y", "x")
    np.testing.assert_array_equal(members.a.isel(time=1), films.a.isel(time=0, frame=1))
