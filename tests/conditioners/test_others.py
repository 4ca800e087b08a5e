"""Static fields, scalars, clocks and positions: their values, windows, symmetries and states."""

import cftime
import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion import config
from sciffusion.conditioners.base import load_conditioner
from sciffusion.conditioners.calendar import Calendar, day_of_year, time_of_day
from sciffusion.conditioners.position import Position
from sciffusion.conditioners.scalar import Scalar
from sciffusion.conditioners.static import StaticField
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Case
from tests.conditioners.conftest import globe, training_on

SOURCE = config.Source(paths=["data.nc"])
WINDOW = (slice(3, 11), slice(20, 36))


def relief(step=2.0):
    latitude = np.arange(-90 + step / 2, 90, step)
    longitude = np.arange(-180 + step / 2, 180, step)
    height = 500 + 400 * np.sin(np.deg2rad(latitude))[:, None] * np.cos(np.deg2rad(longitude))
    coords = {
        "latitude": ("latitude", latitude, {"units": "degrees_north"}),
        "longitude": ("longitude", longitude, {"units": "degrees_east"}),
    }
    return xr.Dataset({"height": (("latitude", "longitude"), height)}, coords)


def static_on(training, data):
    return StaticField.build("static", config.StaticField(source=SOURCE, variables=["height"]), data, training)


def test_static_fields_are_brought_to_the_grid_of_the_target(training):
    """Another resolution, direction and longitude convention; the smooth field is known everywhere."""
    conditioner = static_on(training, relief())
    latitude, longitude = np.meshgrid(training.data.latitude, training.data.longitude, indexing="ij")
    expected = 500 + 400 * np.sin(np.deg2rad(latitude)) * np.cos(np.deg2rad(longitude))
    fields = conditioner.prepare(None, Case())["channels"]
    np.testing.assert_allclose(fields[0], expected, atol=4)
    x = conditioner({"channels": torch.from_numpy(fields)[None]}, torch.tensor([True])).channels.detach()
    assert float(x.mean()) == pytest.approx(0, abs=1e-4)
    assert float(x.std(correction=0)) == pytest.approx(1, rel=1e-4)


def test_missing_static_values_count_as_the_mean(training):
    data = relief()
    data["height"][30:60, 30:60] = np.nan
    conditioner = static_on(training, data)
    x = conditioner(
        {"channels": torch.from_numpy(conditioner.prepare(None, Case())["channels"])[None]}, torch.tensor([True])
    ).channels.detach()
    assert torch.isfinite(x).all()
    assert (x.abs() < 1e-4).sum() > 5


def test_a_static_field_with_time_is_refused(training):
    data = relief().expand_dims(time=[0, 1])
    with pytest.raises(SciffusionError, match="vary along time"):
        static_on(training, data)
    assert static_on(training, data.isel(time=[0])).channels == 1


def scalars(times=4):
    time = globe(times).time
    return xr.Dataset(
        {"co2": ("time", 400 + 10.0 * np.arange(times), {"units": "ppm"}), "nino": ("time", np.ones(times))},
        {"time": time},
    )


def test_scalars_are_standardised_over_the_training_cases(training):
    settings = config.Scalar(source=SOURCE, variables=["co2", "nino"])
    conditioner = Scalar.build("forcing", settings, scalars(), training)
    vectors = [conditioner.prepare(scalars(), case)["vector"] for case in training.cases]
    x = conditioner({"vector": torch.from_numpy(np.stack(vectors))}, torch.ones(4, dtype=torch.bool)).vector.detach()
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x[:, 0].std(correction=0), 1, rtol=1e-4)
    np.testing.assert_allclose(x[:, 1], 0, atol=1e-5)
    dropped = conditioner({"vector": torch.from_numpy(np.stack(vectors))}, torch.zeros(4, dtype=torch.bool)).vector
    assert torch.equal(dropped[0], dropped[3])
    assert not torch.allclose(dropped[0], x[0])


def test_scalars_beyond_training_are_named_and_gaps_refused(training):
    settings = config.Scalar(source=SOURCE, variables=["co2"])
    conditioner = Scalar.build("forcing", settings, scalars(), training)
    case = training.cases[0]
    assert conditioner.outside(scalars(), case) == []
    assert conditioner.outside(scalars() * 2, case) == ["co2 800 to 800, in training 400 to 430"]
    with pytest.raises(SciffusionError, match="co2 is missing"):
        conditioner.prepare(scalars() * np.nan, case)
    accepted, notes = conditioner.accept(scalars().rename(co2="CO2"))
    assert list(accepted.data_vars) == ["co2"]
    assert len(notes) == 1


def test_clocks_tell_the_share_of_the_day_and_of_each_calendars_own_year():
    assert time_of_day(np.datetime64("2001-05-05T18:00")) == 0.75
    assert day_of_year(np.datetime64("2001-01-01", "ns")) == 0
    assert day_of_year(np.datetime64("2004-07-02T00:00")) == 0.5  # leap year: 183 of 366 days
    assert time_of_day(cftime.Datetime360Day(2041, 2, 30, 6)) == 0.25
    assert day_of_year(cftime.Datetime360Day(2041, 7, 1)) == 0.5
    assert day_of_year(cftime.DatetimeNoLeap(2004, 3, 1)) == 59 / 365
    assert day_of_year(cftime.DatetimeProlepticGregorian(2004, 3, 1)) == 60 / 366


@pytest.mark.parametrize(
    "time",
    [
        np.datetime64("2001-03-01T06:00", "ns"),
        cftime.DatetimeNoLeap(2001, 3, 1, 6),
        cftime.Datetime360Day(2001, 3, 1, 6),
    ],
)
def test_local_solar_time_is_noon_where_the_sun_is_highest(training, time):
    settings = config.Calendar(features=["time_of_day", "day_of_year", "local_solar_time"])
    conditioner = Calendar("clock", settings, training.grid)
    case = Case(("now",), {"time": time})
    inputs = conditioner.prepare(None, case)
    assert inputs["vector"].shape == (4,)
    np.testing.assert_allclose(inputs["vector"][:2], [0, 1], atol=1e-6)  # a quarter of the day
    cosine, sine = inputs["channels"]
    noon = int(np.argmin(cosine[0]))
    assert training.data.longitude[noon] == 90  # 06 UTC is noon at 90 degrees east
    np.testing.assert_allclose(cosine**2 + sine**2, 1, atol=1e-6)
    part = conditioner.prepare(None, case, WINDOW)["channels"]
    np.testing.assert_array_equal(part, inputs["channels"][(slice(None), *WINDOW)])


def test_a_calendar_needs_times(training):
    conditioner = Calendar("clock", config.Calendar(features=["time_of_day"]), training.grid)
    with pytest.raises(SciffusionError, match="'time' is not a time coordinate"):
        conditioner.prepare(None, Case((3,), {"run": 3}))


def test_unseen_seasons_are_named(training):
    conditioner = Calendar.build("clock", config.Calendar(features=["day_of_year"]), None, training)
    assert conditioner.outside(None, training.cases[0]) == []
    july = Case(("x",), {"time": np.datetime64("2050-07-01")})
    assert "season" in conditioner.outside(None, july)[0]
    assert conditioner.vector_parity("latitude").tolist() == [-1, -1]
    assert conditioner.vector_parity("longitude").tolist() == [1, 1]


@pytest.mark.parametrize("features", [["latitude"], ["fourier"], ["latitude", "fourier"]])
@pytest.mark.parametrize("dim", ["latitude", "longitude"])
def test_positions_are_their_own_mirror_image_up_to_parity(training, features, dim):
    conditioner = Position("where", config.Position(features=features, frequencies=3), training.grid)
    channels = conditioner.prepare(None, Case())["channels"]
    assert len(channels) == conditioner.channels
    flipped = np.flip(channels, 1 + training.grid.dims.index(dim))
    np.testing.assert_allclose(conditioner.parity(dim)[:, None, None] * flipped, channels, atol=2e-6)


def test_positions_on_a_window_are_the_window_of_the_positions(training):
    conditioner = Position("where", config.Position(features=["latitude", "fourier"]), training.grid)
    channels = conditioner.prepare(None, Case())["channels"]
    part = conditioner.prepare(None, Case(), WINDOW)["channels"]
    np.testing.assert_array_equal(part, channels[(slice(None), *WINDOW)])
    np.testing.assert_allclose(channels[0, :, 0], np.sin(np.deg2rad(training.data.latitude)), atol=1e-6)


def test_latitudes_of_a_projected_grid_come_from_its_2d_coordinate():
    data = globe().rename(latitude="y", longitude="x")
    degrees = 45 + np.add.outer(np.arange(19), 0.1 * np.arange(36))
    data = data.drop_vars(["y", "x"]).assign_coords(lat=(("y", "x"), degrees, {"standard_name": "latitude"}))
    training = training_on(data, ("y", "x"), geometry="plane", periodic=())
    conditioner = Position("where", config.Position(features=["latitude"]), training.grid)
    np.testing.assert_allclose(conditioner.prepare(None, Case())["channels"][0], np.sin(np.deg2rad(degrees)), atol=1e-6)
    with pytest.raises(SciffusionError, match="longitudes"):
        Calendar("clock", config.Calendar(features=["local_solar_time"]), training.grid)


def test_states_survive(training):
    made = [
        static_on(training, relief()),
        Scalar.build("scalar", config.Scalar(source=SOURCE, variables=["co2"]), scalars(), training),
        Calendar.build("clock", config.Calendar(features=["day_of_year", "local_solar_time"]), None, training),
        Position.build("where", config.Position(features=["latitude"]), None, training),
    ]
    for conditioner in made:
        entry, tensors = conditioner.state()
        again = load_conditioner(entry, tensors, training.grid)
        assert type(again) is type(conditioner)
        one, two = (c.prepare(scalars(), training.cases[1]) for c in (conditioner, again))
        batches = [{key: torch.from_numpy(value)[None] for key, value in inputs.items()} for inputs in (one, two)]
        for keep in (torch.tensor([True]), torch.tensor([False])):
            before, after = conditioner(batches[0], keep), again(batches[1], keep)
            for key in ("channels", "vector"):
                first, second = getattr(before, key), getattr(after, key)
                assert (first is None and second is None) or torch.equal(first, second)
