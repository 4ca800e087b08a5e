"""Ensembles in our own store are judged as they lie: calendars, levels, training cases, missing members."""

import argparse
import json

import numpy as np
import pytest
import xarray as xr

from sciffusion.cli import evaluate as command
from sciffusion.fields.ensemble import EnsembleStore

IDENTITY = {"model": {"sha256": "abc"}, "seed": 3, "sampler": {"steps": 18}}


@pytest.fixture
def paths(tmp_path):
    generator = np.random.default_rng(0)
    time = xr.date_range("2001-02-27", periods=4, calendar="noleap", use_cftime=True)
    coords = {
        "time": time,
        "level": ("level", [500, 850], {"units": "hPa"}),
        "lat": ("lat", np.linspace(80, -80, 9), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(12) * 30.0, {"units": "degrees_east"}),
    }
    draws = generator.normal(size=(4, 4, 2, 9, 12)).astype(np.float32)
    dims = ("time", "level", "lat", "lon")
    truth = xr.Dataset({"u": (dims, draws[0], {"units": "m s-1"})}, coords)
    truth.isel(lat=slice(None, None, -1)).to_netcdf(tmp_path / "truth.nc")
    template = truth.assign_coords(training_case=("time", [True, False, False, False]))
    store = EnsembleStore.create(tmp_path / "ens.zarr", template, range(3), ["time"], IDENTITY)
    for case in range(4):
        for member in range(3):
            if (case, member) != (2, 1):
                store.write(case, member, {"u": draws[1 + member, case]})
    return tmp_path


def run(paths, *words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    base = [str(paths / "ens.zarr"), "--reference", str(paths / "truth.nc"), "--json", str(paths / "s.json")]
    assert command.run(parser.parse_args([*base, *words])) == 0
    return json.loads((paths / "s.json").read_text())


def test_complete_members_are_scored_and_training_cases_set_apart(paths, capsys):
    entries = run(paths)
    assert entries["scores"]["attrs"]["members"] == 2  # one of three lacks a case
    assert entries["scores"]["dims"]["case"] == 3
    assert entries["in_sample"]["dims"]["case"] == 1
    assert entries["scores"]["coords"]["variable"]["data"] == ["u[level=500]", "u[level=850]"]
    assert "IN-SAMPLE" in capsys.readouterr().out


def test_partial_members_are_dropped_from_the_cases_that_they_lack(paths):
    entries = run(paths, "--partial")
    assert entries["scores"]["attrs"]["members"] == 3
    assert np.isfinite(entries["scores"]["data_vars"]["crps"]["data"]).all()
