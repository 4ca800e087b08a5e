"""A coarse condition interpolates, coarsens, windows, mirrors and reports as the mathematics says."""

import cftime
import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion import config
from sciffusion.conditioners.base import Training, load_conditioner
from sciffusion.conditioners.coarse import CoarseField
from sciffusion.fields.cases import cases_of
from sciffusion.fields.coarsen import conservative
from tests.conditioners.conftest import globe, training_on

SETTINGS = config.CoarseField(variables=["u", "v", "t"], factor=3)
WINDOWS = [(slice(2, 9), slice(0, 36)), (slice(0, 19), slice(30, 36)), (slice(7, 8), slice(11, 13))]


def whole(training, **changes):
    return CoarseField.build("coarse", SETTINGS.model_copy(update=changes), None, training)


def coarsened(training, conditioner):
    """The target as a user's coarse data set: only the coarse grid is in it."""
    mapping = conservative(training.grid, conditioner.coarse_grid)
    dims = ("time", "latitude", "longitude")
    fields = {name: (dims, mapping(array.values.astype("f8")), array.attrs) for name, array in training.data.items()}
    coords = {"time": training.data.time} | dict(conditioner.coarse_grid.coords_dataset().coords)
    return xr.Dataset(fields, coords)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "conservative"])
def test_a_constant_field_is_interpolated_to_the_constant(interpolation):
    data = globe()
    data = xr.zeros_like(data) + xr.Dataset({"u": 3.0, "v": -7.0, "t": 280.0})
    training = training_on(data)
    conditioner = whole(training, interpolation=interpolation)
    guess = conditioner.baseline(data, training.cases[0])
    np.testing.assert_allclose(guess, np.broadcast_to([[[3.0]], [[-7.0]], [[280.0]]], guess.shape), rtol=1e-6)


def test_without_source_the_coarse_field_is_the_conservative_mean_of_the_target(training):
    conditioner = whole(training)
    coarse = conditioner.coarse(training.data, training.cases[1])
    assert coarse.shape == (3, *conditioner.coarse_grid.shape)
    area, wide = training.grid.cell_area(), conditioner.coarse_grid.cell_area()
    for index, name in enumerate(["u", "v", "t"]):
        fine = training.data[name].values[1].astype("f8")
        assert (coarse[index] * wide).mean() == pytest.approx((fine * area).mean(), rel=1e-12)


def test_data_on_the_coarse_grid_and_on_the_fine_grid_give_the_same_inputs(training):
    conditioner = whole(training)
    coarse = coarsened(training, conditioner)
    for case in training.cases:
        one, two = conditioner.prepare(training.data, case), conditioner.prepare(coarse, case)
        np.testing.assert_allclose(one["channels"], two["channels"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("gaps", [False, True])
def test_a_window_is_bitwise_the_window_of_the_whole(training, window, gaps):
    if gaps:
        training.data["t"][:, 4:11, 5:20] = np.nan
    conditioner = whole(training)
    assert conditioner.source.gaps == gaps
    place = (slice(None), *window)
    for case in training.cases[:2]:
        inputs, part = (conditioner.prepare(training.data, case, cut)["channels"] for cut in (None, window))
        np.testing.assert_array_equal(part, inputs[place])
        assert np.isfinite(part).all()
        guess = conditioner.baseline(training.data, case)
        np.testing.assert_array_equal(conditioner.baseline(training.data, case, window), guess[place])


def test_gaps_are_filled_from_their_neighbours_and_told_to_the_network(training):
    training.data["t"][:, 4:11, 5:20] = np.nan
    conditioner = whole(training)
    case = training.cases[0]
    channels = conditioner.prepare(training.data, case)["channels"]
    present = channels[-1]
    assert present[7, 12] < 0.1
    assert present[15, 30] == 1
    assert 250 < channels[2].min() < channels[2].max() < 310
    assert np.isnan(conditioner.coarse(training.data, case)).any()


def test_fields_are_standardised_and_odd_components_keep_their_zero(training):
    conditioner = whole(training)
    stack = np.stack([conditioner.coarse(training.data, case) for case in training.cases])
    inputs = {"channels": torch.from_numpy(stack).float().reshape(4, 3, -1)}
    offset, scale = conditioner.offset[:3], conditioner.scale[:3]
    x = (inputs["channels"] - offset[:, None]) / scale[:, None]
    np.testing.assert_allclose((x**2).mean((0, 2)), 1, rtol=1e-4)
    assert offset[1] == 0
    np.testing.assert_allclose(x.mean((0, 2))[[0, 2]], 0, atol=1e-4)


def test_mirroring_the_data_mirrors_the_inputs_up_to_parity(training):
    """The globe seen upside down: v changes sign, so do the phases along latitude; the rest is only flipped."""
    conditioner = whole(training)
    upside_down = training.data.copy(deep=True)
    for name, sign in (("u", 1), ("v", -1), ("t", 1)):
        upside_down[name].values[:] = sign * training.data[name].values[:, ::-1]
    case = training.cases[2]
    one = conditioner.prepare(training.data, case)["channels"]
    two = conditioner.prepare(upside_down, case)["channels"]
    parity = conditioner.parity("latitude")
    assert parity[:3].tolist() == [1, -1, 1]
    np.testing.assert_allclose(two, parity[:, None, None] * one[:, ::-1], atol=1e-4)


def test_a_dropped_condition_is_independent_of_its_input_and_differs_from_a_kept_one(training):
    conditioner = whole(training)
    inputs = [
        torch.from_numpy(conditioner.prepare(training.data, case)["channels"])[None] for case in training.cases[:2]
    ]
    yes, no = torch.tensor([True]), torch.tensor([False])
    kept = [conditioner({"channels": x}, yes).channels for x in inputs]
    dropped = [conditioner({"channels": x}, no).channels for x in inputs]
    assert torch.equal(*dropped)
    assert not torch.allclose(kept[0], dropped[0])
    assert not torch.allclose(*kept)
    mixed = conditioner({"channels": torch.cat(inputs)}, torch.tensor([True, False])).channels
    assert torch.equal(mixed, torch.cat([kept[0], dropped[1]]))
    dropped[0].sum().backward()
    assert conditioner.null_channels.grad.abs().min() > 0


def test_the_baseline_is_missing_where_the_coarse_data_have_no_such_variable(training):
    conditioner = whole(training, variables=["t"])
    guess = conditioner.baseline(training.data, training.cases[0])
    assert np.isnan(guess[:2]).all()
    assert np.isfinite(guess[2]).all()
    assert conditioner.matches() == [(2, 0)]


def test_cases_align_exactly_to_the_previous_time_or_by_interpolation(training):
    conditioner = whole(training)
    coarse = coarsened(training, conditioner).isel(time=[0, 2])
    case = training.cases[1]
    first, third = (conditioner.coarse(coarse, training.cases[i]) for i in (0, 2))
    with pytest.raises(Exception, match="align"):
        conditioner.coarse(coarse, case)
    previous = CoarseField.build("c", SETTINGS.model_copy(update={"align": "previous"}), None, training)
    between = CoarseField.build("c", SETTINGS.model_copy(update={"align": "interpolate"}), None, training)
    np.testing.assert_array_equal(previous.coarse(coarse, case), first)
    np.testing.assert_allclose(between.coarse(coarse, case), (first + third) / 2, rtol=1e-6)


def test_state_survives_and_names_no_folder(training):
    source = config.Source(paths=["/somewhere/private/coarse.nc"])
    conditioner = whole(training)
    coarse = coarsened(training, conditioner)
    conditioner = CoarseField.build("coarse", SETTINGS.model_copy(update={"source": source}), coarse, training)
    entry, tensors = conditioner.state()
    assert "private" not in str(entry)
    again = load_conditioner(entry, tensors, training.grid)
    case = training.cases[3]
    assert again.prepare(coarse, case)["channels"].tobytes() == conditioner.prepare(coarse, case)["channels"].tobytes()
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), tensors.values(), strict=True))


def test_new_data_are_renamed_converted_and_flipped_and_what_was_done_is_told(training):
    conditioner = whole(training)
    coarse = coarsened(training, conditioner)
    foreign = coarse.isel(latitude=slice(None, None, -1)).rename(latitude="lat", longitude="lon", t="T")
    foreign["T"] = (foreign["T"] - 273.15).assign_attrs(units="degC")
    accepted, notes = conditioner.accept(foreign)
    case = training.cases[0]
    np.testing.assert_allclose(conditioner.coarse(accepted, case), conditioner.coarse(coarse, case), atol=1e-3)
    assert any("degC" in note for note in notes)
    fine, _ = conditioner.accept(training.data)
    np.testing.assert_array_equal(conditioner.coarse(fine, case), conditioner.coarse(training.data, case))


def test_names_that_the_yaml_maps_are_known_in_new_data_too(training):
    source = config.Source(paths=["coarse.nc"], rename={"TMP_2M": "t", "rows": "latitude"})
    coarse = coarsened(training, whole(training))
    settings = SETTINGS.model_copy(update={"source": source, "factor": None})
    conditioner = CoarseField.build("coarse", settings, coarse, training)
    theirs = coarse.rename(t="TMP_2M", latitude="rows").drop_attrs()
    accepted, _ = conditioner.accept(theirs)
    case = training.cases[0]
    np.testing.assert_array_equal(conditioner.coarse(accepted, case), conditioner.coarse(coarse, case))
    extra = coarse.assign(TMP_2M=coarse.t + 1)
    np.testing.assert_array_equal(conditioner.coarse(conditioner.accept(extra)[0], case)[2], coarse.t.isel(time=0))


def test_values_beyond_the_training_range_are_named(training):
    conditioner = whole(training)
    case = training.cases[0]
    assert conditioner.outside(training.data, case) == []
    warm = training.data.assign(t=training.data.t + 15)
    assert [note.split()[0] for note in conditioner.outside(warm, case)] == ["t"]


def test_skewed_variables_are_seen_through_the_targets_transform():
    """Rain: the network gets log1p of the interpolated field, the baseline and the range stay physical."""
    data = globe()
    data["t"] = np.maximum(data.t - 285, 0).assign_attrs(units="mm") ** 3
    training = training_on(data, variables={"t": {"transform": "log1p"}, "v": {}})
    conditioner = CoarseField.build("c", SETTINGS.model_copy(update={"variables": ["t"]}), None, training)
    transform = conditioner.source.transforms["t"]
    assert 0 < transform.scale < float(data.t.max())
    case = training.cases[0]
    guess, inputs = conditioner.baseline(data, case), conditioner.prepare(data, case)["channels"]
    np.testing.assert_allclose(inputs[0], transform.forward(guess[0]), rtol=1e-5, atol=1e-6)
    assert float(conditioner.high) > 10 * float(inputs[0].max())
    entry, tensors = conditioner.state()
    assert load_conditioner(entry, tensors, training.grid).source.transforms == conditioner.source.transforms


def test_large_domains_are_measured_on_a_sample_of_slabs(training, monkeypatch):
    whole = CoarseField.build("c", SETTINGS, None, training)
    monkeypatch.setattr("sciffusion.conditioners.coarse.BLOCK", 600)
    monkeypatch.setattr("sciffusion.conditioners.coarse.BUDGET", 12)
    read = []
    monkeypatch.setattr(CoarseField, "coarse", lambda self, *a, f=CoarseField.coarse: read.append(a) or f(self, *a))
    sampled = CoarseField.build("c", SETTINGS, None, training)
    assert len(read) == 12
    assert len({id(case) for _, case, _ in read}) == 4
    assert len({window[0].start for _, _, window in read}) > 3
    np.testing.assert_allclose(sampled.scale[:3], whole.scale[:3], rtol=0.3)


def test_levels_are_channels():
    data = globe().drop_vars("u")
    levels = xr.DataArray([850.0, 500.0], dims="level", name="level", attrs={"units": "hPa"})
    data["v"] = (data.v * xr.DataArray([1.0, 2.0], dims="level")).assign_coords(level=levels).transpose("level", ...)
    training = training_on(data, variables={"v": {}, "t": {}})
    target = training.target.model_copy(update={"channel_dims": ["level"]})
    cases = cases_of(data, ["level", "latitude", "longitude"])
    training = Training(target, training.data, training.grid, cases)
    conditioner = CoarseField.build("c", SETTINGS.model_copy(update={"variables": ["v", "t"]}), None, training)
    assert training.channels == (("v", 0), ("v", 1), ("t", 0))
    coarse = conditioner.coarse(data, training.cases[0])
    np.testing.assert_allclose(coarse[1], 2 * coarse[0], rtol=1e-5)


def test_a_plane_without_coordinates_in_three_dimensions():
    rng = np.random.default_rng(0)
    data = xr.Dataset({"w": (("run", "z", "y", "x"), rng.normal(size=(3, 6, 8, 8)).astype("f4"))})
    training = training_on(data, ("z", "y", "x"), {"w": {}}, "plane", ("y", "x"))
    settings = config.CoarseField(variables=["w"], factor={"y": 2, "x": 4})
    conditioner = CoarseField.build("c", settings, None, training)
    assert conditioner.coarse_grid.shape == (6, 4, 2)
    assert list(conditioner.phases) == [1, 2]
    expected = data.w.values[1].astype("f8").reshape(6, 4, 2, 2, 4).mean((2, 4))
    np.testing.assert_allclose(conditioner.coarse(data, training.cases[1])[0], expected, atol=1e-12)


def test_other_calendars_serve_as_labels():
    data = globe()
    data["time"] = [cftime.DatetimeNoLeap(2041, 2, 27 + day) for day in range(2)] + [
        cftime.DatetimeNoLeap(2041, 3, 1 + day) for day in range(2)
    ]
    training = training_on(data)
    conditioner = whole(training)
    assert training.cases[2].labels == ("2041-03-01T00:00:00",)
    assert conditioner.coarse(data, training.cases[2]).shape[0] == 3


@pytest.mark.parametrize("names", [{}, {"latitude": "lat", "longitude": "lon"}])
@pytest.mark.parametrize("dims", [("time",), ("run", "time")])
def test_as_many_cases_as_a_side_of_the_grid_has_cells_are_not_taken_for_fine_fields(dims, names):
    """Coarse data of 12 times, or 12 runs and 12 times, for a grid of 12 x 12: they were once regridded to it."""
    grid = ("latitude", "longitude")
    coords = {dim: np.arange(12) for dim in dims} | {
        "latitude": ("latitude", np.linspace(-82.5, 82.5, 12), {"units": "degrees_north"}),
        "longitude": ("longitude", np.arange(0, 360, 30.0), {"units": "degrees_east"}),
    }
    values = np.random.default_rng(0).normal(size=(12,) * (len(dims) + 2)).astype("f4")
    training = training_on(xr.Dataset({"t": ((*dims, *grid), values, {"units": "K"})}, coords), variables={"t": {}})
    conditioner = CoarseField.build("coarse", config.CoarseField(variables=["t"], factor=3), None, training)
    mapping = conservative(training.grid, conditioner.coarse_grid)
    means = {"t": ((*dims, *grid), mapping(values.astype("f8")), {"units": "K"})}
    coarse = xr.Dataset(
        means, conditioner.coarse_grid.coords_dataset().assign_coords({d: coords[d] for d in dims}).coords
    )
    accepted, _ = conditioner.accept(coarse.rename(names))
    assert (accepted.sizes["latitude"], accepted.sizes["longitude"]) == (4, 4)
    case = training.cases[5]
    np.testing.assert_allclose(conditioner.coarse(accepted, case), conditioner.coarse(training.data, case), rtol=1e-6)
