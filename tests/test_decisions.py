"""What init decides: splits that do not touch, sizes that fit, signs that change, edges that meet."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sciffusion.cli import decisions
from sciffusion.fields.facts import facts_of, wraps_like_its_interior
from sciffusion.fields.survey import central_window, layout_of, sample_indices
from tests.init_data import globe, projected, smooth, stack

SIDES = {"north": "lat", "east": "lon"}
BOX = {"north": "y", "east": "x", "up": "z"}


@given(st.integers(1, 3000), st.integers(0, 50))
def test_splits_are_in_order_within_the_data_and_do_not_touch(count, gap):
    ranges, _ = decisions.split(count, gap)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == count - 1
    for first, last in ranges:
        assert first <= last
    for (_, last), (first, _) in pairwise(ranges):
        assert first > last
    if count >= 8:
        lengths = [last - first + 1 for first, last in ranges]
        assert lengths[0] > lengths[2] >= lengths[1] >= 1


def test_neighbours_in_time_are_left_out_between_splits():
    ranges, _ = decisions.split(24, decisions.gap(24, 8.0))
    assert ranges == [(0, 13), (15, 16), (18, 23)]
    assert decisions.gap(100_000, 1.0) == 360
    assert decisions.gap(7300, 24.0) == 15


@given(st.lists(st.integers(4, 5000), min_size=1, max_size=3), st.integers(1, 10_000))
def test_a_training_batch_fits_and_the_network_fits_its_window(shape, cases):
    dims = ["z", "y", "x"][-len(shape) :]
    crop = decisions.crop(shape, dims)
    window = [crop.get(dim, size) for dim, size in zip(dims, shape, strict=True)]
    assert np.prod(window) <= max(decisions.LARGEST[len(shape)], decisions.SIDE[len(shape)] ** len(shape))
    settings, _ = decisions.network(window, cases)
    assert min(window) // (settings["patch"] * 2 ** (len(settings["multipliers"]) - 1)) >= min(4, min(window) // 2)
    train = decisions.training(shape, window, cases, augmented=False)
    assert train["batch_size"] * np.prod(window) <= max(decisions.CELLS_PER_BATCH, 2 * np.prod(window))
    assert train.get("statistics_cases", 1) >= 1


@pytest.mark.parametrize("name", ["v", "v10", "10v", "vas", "va", "v_wind", "10m_v_component_of_wind", "vgos", "vo"])
def test_northward_components_change_sign_when_mirrored_at_the_equator(name):
    assert decisions.odd_along(name, "", SIDES, sphere=True) == ["lat"]


@pytest.mark.parametrize("name", ["u", "u10", "uas", "t2m", "tp", "msl", "q", "vis", "vtotal", "tas", "va_mask", "w"])
def test_other_fields_do_not(name):
    assert decisions.odd_along(name, "", SIDES, sphere=True) == []


def test_standard_names_tell_components_whatever_the_name():
    assert decisions.odd_along("a", "northward_wind", SIDES, sphere=True) == ["lat"]
    assert decisions.odd_along("a", "eastward_wind", SIDES, sphere=True) == []
    assert decisions.odd_along("a", "atmosphere_relative_vorticity", SIDES, sphere=True) == ["lat"]
    assert decisions.odd_along("a", "sea_water_x_velocity", BOX, sphere=False) == ["x"]


def test_in_a_box_each_component_is_odd_along_its_own_axis():
    found = {name: decisions.odd_along(name, "", BOX, sphere=False) for name in ("u", "v", "w", "p")}
    assert found == {"u": ["x"], "v": ["y"], "w": ["z"], "p": []}


@pytest.mark.parametrize(
    ("step", "span", "sphere", "features"),
    [
        (6, 20, True, ["local_solar_time"]),
        (1, 400, False, ["time_of_day", "day_of_year"]),
        (24, 3650, True, ["day_of_year"]),
        (24, 30, True, []),
        (0, 0, True, []),
    ],
)
def test_clocks_are_those_that_the_data_resolve(step, span, sphere, features):
    assert decisions.calendar(step, span, sphere) == features


def test_skewed_fields_with_zeros_are_transformed_and_others_are_not():
    rng = np.random.default_rng(0)
    rain = np.maximum(rng.lognormal(0, 1.5, (4, 30, 30)) - 1, 0)
    array = xr.DataArray(rain, attrs={"units": "mm"})
    settings, why = decisions.transform(facts_of(array, rain))
    assert settings["transform"] == "log1p"
    assert 0.5 < settings["scale"] < 10
    assert "zeros" in why
    for field in (rain - 1, rng.standard_normal((4, 30, 30)), rain + 5):
        assert decisions.transform(facts_of(array, field)) == ({}, "")


def test_edges_meet_only_in_a_periodic_smooth_field():
    rng = np.random.default_rng(1)
    both = stack(rng, 6, (32, 40), (True, False))
    assert wraps_like_its_interior(both, -2)
    assert not wraps_like_its_interior(both, -1)
    assert not wraps_like_its_interior(rng.standard_normal((6, 32, 40)), -1), "white noise cannot tell"
    walls = stack(rng, 6, (32, 40), (False, False)) * np.sin(np.linspace(0, np.pi, 40))
    assert not wraps_like_its_interior(walls, -1), "equal values at both walls are no wrap"


def test_gaps_are_told_from_masks():
    field = np.ones((4, 10, 10))
    field[:, :2] = np.nan
    field[1, 5, :5] = np.nan
    fact = facts_of(xr.DataArray(field), field)
    assert (fact.permanent, fact.occasional) == (0.2, 0.05)


def test_layouts_are_told_from_dims_and_names():
    assert layout_of(globe(times=2)).static == ("orog",)
    assert layout_of(projected(times=2)).left_out == {"crs": "no field"}
    box = xr.Dataset({"u": (("sample", "z", "y", "x"), np.zeros((2, 3, 4, 5)))})
    assert (layout_of(box).dims, layout_of(box).case_dims) == (("z", "y", "x"), ("sample",))
    bare = xr.Dataset({"u": (("time", "dim_0", "dim_1"), np.zeros((2, 3, 4)))})
    assert (layout_of(bare).dims, layout_of(bare).case_dims) == (("dim_0", "dim_1"), ("time",))
    line = xr.Dataset({"u": (("time", "x"), np.zeros((2, 3)))})
    assert layout_of(line).dims == ("x",)
    assert layout_of(box, dims=["y", "x"]).case_dims == ("sample", "z")


def test_samples_are_spread_and_different():
    ds = xr.Dataset({"u": (("a", "b"), np.zeros((5, 7)))})
    indices = sample_indices(ds, ["a", "b"], 6)
    assert len({tuple(index.values()) for index in indices}) == 6
    assert {"a": 0, "b": 0} in indices
    assert {"a": 4, "b": 6} in indices
    assert sample_indices(ds, []) == [{}]


def test_windows_follow_the_chunks_that_they_touch():
    array = xr.DataArray(np.broadcast_to(np.float32(0), (1000, 4096, 4096)), dims=("time", "y", "x"))
    assert central_window(array, ["y", "x"])["y"] == slice(1536, 2560)
    array.encoding["preferred_chunks"] = {"time": 1000, "y": 64, "x": 64}
    window = central_window(array, ["y", "x"])
    assert all(part.stop - part.start == 128 for part in window.values())
    small = xr.DataArray(smooth(np.random.default_rng(0), (20, 30), (True, True)), dims=("y", "x"))
    assert central_window(small, ["y", "x"]) == {"y": slice(0, 20), "x": slice(0, 30)}
