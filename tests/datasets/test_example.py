"""The embedded files are what the documentation says: physical, attributed, exact at the poles."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from sciffusion.datasets import build_example, example, example_names, example_path, open_example
from sciffusion.errors import SciffusionError

RANGES = {"u10": (-45, 45), "v10": (-45, 45), "t2m": (195, 325), "tp": (0, 0.1)}


@pytest.fixture(scope="module")
def week():
    with open_example("era5") as dataset:
        return dataset.load()


@pytest.fixture(scope="module")
def static():
    with open_example("era5-static") as dataset:
        return dataset.load()


def test_the_week_has_the_promised_shape_units_and_ranges(week):
    assert dict(week.sizes) == {"time": 24, "latitude": 181, "longitude": 360}
    assert {name: week[name].attrs["units"] for name in RANGES} == {
        "u10": "m s-1",
        "v10": "m s-1",
        "t2m": "K",
        "tp": "m",
    }
    for name, (low, high) in RANGES.items():
        assert week[name].dtype == np.float32
        assert not week[name].isnull().any()
        assert low <= float(week[name].min()) < float(week[name].max()) <= high
    hours = np.diff(week["time"].values) / np.timedelta64(1, "h")
    assert set(hours) <= {7.0, 8.0}


def test_values_are_multiples_of_the_packing_step(week):
    with xr.open_dataset(example_path("era5"), mask_and_scale=False) as packed:
        for name in RANGES:
            assert packed[name].dtype == np.int16
            step = packed[name].attrs["scale_factor"]
            assert week[name].attrs["quantisation_error"] <= 0.501 * step
            assert step < 0.03 * float(week[name].std())


def test_temperature_falls_towards_the_poles_and_is_one_value_there(week):
    zonal = week["t2m"].mean(["time", "longitude"])
    bands = [float(zonal.sel(latitude=slice(high, low)).mean()) for high, low in ((15, -15), (60, 30), (90, 75))]
    south = [float(zonal.sel(latitude=slice(high, low)).mean()) for high, low in ((15, -15), (-30, -60), (-75, -90))]
    assert bands == sorted(bands, reverse=True)
    assert south == sorted(south, reverse=True)
    for latitude in (-90, 90):
        pole = week["t2m"].sel(latitude=latitude)
        assert (pole.max("longitude") == pole.min("longitude")).all()


def test_precipitation_has_exact_zeros_and_a_long_tail(week):
    rain = week["tp"].values
    assert rain.min() == 0
    assert 0.3 < (rain == 0).mean() < 0.6
    assert rain.max() > 20 * rain.mean()


def test_static_fields_describe_the_earth(static, week):
    assert static["orography"].dims == ("latitude", "longitude")
    for name in ("latitude", "longitude"):
        np.testing.assert_array_equal(static[name], week[name])
    land = static["land"]
    assert float(land.min()) >= 0
    assert float(land.max()) <= 1
    area = np.cos(np.deg2rad(static["latitude"]))
    assert float(land.weighted(area).mean()) == pytest.approx(0.29, abs=0.01)
    assert float(static["orography"].weighted(area).mean()) == pytest.approx(235, abs=10)
    places = {(28, 88): 1.0, (0, 20): 1.0, (0, 210): 0.0, (-60, 0): 0.0, (-80, 100): 1.0}
    for (latitude, longitude), expected in places.items():
        assert float(land.sel(latitude=latitude, longitude=longitude)) == expected
    assert 4000 < float(static["orography"].sel(latitude=33, longitude=88)) < 6000


def test_attribution_and_licence_are_in_the_file(week, static):
    assert week.attrs["license"] == "CC-BY-4.0"
    assert "modified Copernicus Climate Change Service information 2026" in week.attrs["attribution"]
    assert static.attrs["license"] == "public domain"


def test_an_unknown_name_and_a_damaged_file_are_reported(monkeypatch):
    with pytest.raises(SciffusionError, match="era5-static"):
        example_path("era6")
    monkeypatch.setitem(example._FILES, "era5", example._File("era5_week.nc", "0" * 64))
    example_path.cache_clear()
    with pytest.raises(SciffusionError, match="damaged"):
        example_path("era5")
    monkeypatch.undo()
    assert example_names() == ["era5", "era5-static"]
    assert example_path("era5").is_file()


def test_opening_is_lazy_and_importing_is_light():
    code = "import sys, sciffusion.datasets; print({'torch', 'xarray'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_builder_packs_within_the_error_it_states_and_averages_over_cells(tmp_path):
    rng = np.random.default_rng(0)
    latitude, longitude = np.arange(90.0, -91, -1), np.arange(0.0, 360)
    dims, shape = ("time", "latitude", "longitude"), (2, 181, 360)
    raw = {name: (dims, rng.uniform(low, high, shape)) for name, (low, high) in RANGES.items()}
    time = np.array(["2026-03-25T00", "2026-03-25T07"], "datetime64[ns]")
    raw = xr.Dataset(raw, {"time": time, "latitude": latitude, "longitude": longitude})
    raw.to_netcdf(tmp_path / "raw.nc")
    # a continent from 20 E to 200 E, 300 m high, in a sea 4000 m deep; the last column repeats the first
    x, y = np.arange(20 + 1 / 6, 380.2, 1 / 3), np.arange(-90 + 1 / 6, 90, 1 / 3)
    relief = np.broadcast_to(np.where(np.mod(x, 360) < 20, -4000.0, np.where(x < 200, 300.0, -4000.0)), (540, 1081))
    xr.Dataset({"relief": (("Y", "X"), relief)}, {"Y": y, "X": x}).to_netcdf(tmp_path / "relief.nc")
    assert build_example.main([str(tmp_path / name) for name in ("raw.nc", "relief.nc", "")]) == 0
    with xr.open_dataset(tmp_path / "era5_week.nc") as packed:
        for name in RANGES:
            error = float(np.abs(packed[name] - raw[name]).max())
            assert 0 < error <= 1.01 * packed[name].attrs["quantisation_error"] + 1e-9
        np.testing.assert_array_equal(packed.time, time)
    with xr.open_dataset(tmp_path / "era5_static.nc") as static:
        rows = static.isel(latitude=slice(1, -1))
        np.testing.assert_allclose(rows.land.sel(longitude=[100, 300, 20, 200]).values.T[:, 0], [1, 0, 0.5, 0.5])
        np.testing.assert_allclose(rows.orography, 300 * rows.land, atol=0.3)
        np.testing.assert_allclose(static.land.sel(latitude=90), 0.5, atol=1e-3)
