"""An ensemble whose members hang together in time, with an emulator whose members are linear in their noise."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import sciffusion as sf
from sciffusion.fields.ensemble import open_ensemble
from sciffusion.generation import generate
from sciffusion.noise import normal, window_normal
from sciffusion.stages import base

MODEL = Path(sf.__file__).parent / "pretrained" / "era5_week" / "baselines" / "climatology"
OPTIONS = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def emulator():
    return sf.load(MODEL)


def times(count):
    """Conditions of a model that needs nothing but the labels of its cases."""
    time = xr.date_range("2026-03-25", periods=count, freq="6h", unit="ns")
    return xr.Dataset({"nothing": ("time", np.zeros(count))}, {"time": time})


@pytest.fixture(scope="module")
def ensemble(emulator, tmp_path_factory):
    data = times(6)
    path = tmp_path_factory.mktemp("coherent") / "e.zarr"
    cases = [base.Case((str(t)[:19],), {"time": t}) for t in data.time.values]
    return generate(emulator, data, path, 4, cases=cases, time_coherence="0.8", **OPTIONS), data, cases


def test_the_coherence_asked_for_is_measured_and_said(ensemble):
    ds = open_ensemble(ensemble[0])
    assert ds.attrs["time_coherence"].startswith("AR(1) along time: the noise of cases")
    measured = json.loads(ds.attrs["time_coherence_measured"])
    assert set(measured) == set(ds.data_vars)
    assert list(measured.values()) == pytest.approx([0.8] * len(measured), abs=0.02)
    assert json.loads(ds.attrs["sciffusion_identity"])["time_coherence"]["rho"] == 0.8


def test_any_subset_of_cases_gives_the_same_members(ensemble, emulator, tmp_path):
    path, data, cases = ensemble
    part = generate(
        emulator, data, tmp_path / "p.zarr", [2], cases=[cases[4], cases[1]], time_coherence="0.8", **OPTIONS
    )
    few, every = open_ensemble(part), open_ensemble(path)
    xr.testing.assert_equal(few.drop_attrs(), every.sel(time=few.time, member=[2]).drop_attrs())


def test_independent_cases_say_so(emulator, ensemble, tmp_path):
    _, data, cases = ensemble
    ds = open_ensemble(generate(emulator, data, tmp_path / "i.zarr", 2, cases=cases[:2], **OPTIONS))
    assert ds.attrs["time_coherence"].startswith("none")
    assert "time_coherence_measured" not in ds.attrs


def test_windows_of_coherent_noise_are_cut_from_the_whole(ensemble):
    """The weighted sum is taken cell by cell, so a tile sees the noise that the whole domain would."""
    key = base.NoiseKey(0, ("a",), 0)
    parts = [(math.sqrt(0.5), "a"), (math.sqrt(0.5), "b")]
    one = sum(w * normal(base.replace(key, case=(c,)), (2, 6, 8)).astype(float) for w, c in parts)
    cut = (slice(1, 4), slice(2, 8))
    two = sum(w * window_normal(base.replace(key, case=(c,)), (2, 6, 8), cut).astype(float) for w, c in parts)
    np.testing.assert_array_equal(one[:, 1:4, 2:8], two)
