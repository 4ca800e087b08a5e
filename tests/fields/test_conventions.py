"""New conditions in the terms of the training data: what axes and units mean; what is changed, logged, refused."""

import json
import logging

import numpy as np
import pytest
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.conventions import harmonise
from sciffusion.fields.roles import auxiliary_coordinates, geometry_of, role_of, wraps_around
from sciffusion.fields.template import Template
from sciffusion.fields.units import conversion, same_units
from tests.init_data import globe, projected

LAT, LON = np.linspace(87.5, -87.5, 36), np.arange(72) * 5.0
SMOOTH_ERROR = 0.02  # of interpolating wave number 2 on 5 degrees, amplitude 1


def wave(lat, lon):
    """A field known everywhere: temperature with zonal wave number 2."""
    return 280 + np.cos(np.deg2rad(lat))[:, None] ** 2 * np.cos(2 * np.deg2rad(np.asarray(lon)))[None]


def data(lat=LAT, lon=LON, times=3, name="t2m", units="K", dims=("time", "latitude", "longitude")):
    values = np.repeat(wave(lat, lon)[None], times, axis=0)
    time = np.datetime64("2000-01-01", "ns") + np.arange(times) * np.timedelta64(1, "D")
    attrs = {"units": units, "standard_name": "air_temperature"}
    return xr.Dataset({name: (dims, values, attrs)}, dict(zip(dims, (time, lat, lon), strict=True)))


@pytest.fixture
def like():
    """The training data as a model remembers them: through JSON."""
    template = Template.of(data(), ["latitude", "longitude"])
    return Template.from_json(json.loads(json.dumps(template.to_json())))


def matches(ds, error=1e-9):
    assert ds["t2m"].dims[-2:] == ("latitude", "longitude")
    np.testing.assert_array_equal(ds["latitude"], LAT)
    np.testing.assert_array_equal(ds["longitude"], LON)
    assert np.abs(ds["t2m"].values - wave(LAT, LON)).max() < error


def test_equal_data_pass_unchanged_and_nothing_is_logged(like, caplog):
    caplog.set_level(logging.INFO, "sciffusion")
    xr.testing.assert_identical(harmonise(data(), like), data())
    assert not caplog.records


def test_names_units_longitudes_and_latitudes_are_matched_each_with_one_line(like, caplog):
    caplog.set_level(logging.INFO, "sciffusion")
    new = data(LAT[::-1], LON - 180, name="tas", dims=("time", "lat", "lon"))
    new["tas"] = (new["tas"] - 273.15).assign_attrs(units="degC", standard_name="air_temperature")
    matches(harmonise(new, like))
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "conditions: renamed lat -> latitude, lon -> longitude, tas -> t2m",
        "conditions: t2m converted from degC to K",
        "conditions: latitude reversed",
        "conditions: longitudes -180 to 175 rolled to 0 to 355",
    ]


def test_another_grid_is_regridded_and_logged(like, caplog):
    caplog.set_level(logging.INFO, "sciffusion")
    new = data(np.linspace(-90, 90, 61), np.arange(-120, 120) * 1.5)
    matches(harmonise(new, like), SMOOTH_ERROR)
    assert "conditions: regridded from 61 x 240 to 36 x 72 cells" in caplog.messages


def test_a_repeated_last_longitude_is_dropped(like):
    matches(harmonise(data(lon=np.append(LON, 360.0)), like))


def test_a_region_is_cut_out_of_the_globe_across_the_date_line():
    lon = np.arange(170, 200, 5.0)
    like = Template.of(data(LAT[3:10], lon), ["latitude", "longitude"])
    ds = harmonise(data(LAT[::-1], LON - 180), like)
    np.testing.assert_array_equal(ds["longitude"], lon)
    np.testing.assert_allclose(ds["t2m"][0], wave(LAT[3:10], lon))


def test_additional_dims_calendar_and_period_are_kept(like):
    new = data(times=5).expand_dims(realization=[4, 7], lead_time=[6, 12, 18])
    new = new.assign_coords(time=xr.date_range("2050-02-26", periods=5, calendar="360_day", use_cftime=True))
    ds = harmonise(new, like)
    assert dict(ds.sizes) == {"realization": 2, "lead_time": 3, "time": 5, "latitude": 36, "longitude": 72}
    assert ds["time"].values[4].isoformat().startswith("2050-02-30")
    assert ds["realization"].values.tolist() == [4, 7]


def test_the_users_mapping_goes_before_guesses(like):
    new = data(name="a").rename(latitude="rows")
    with pytest.raises(SciffusionError, match="'latitude'"):
        harmonise(new.drop_vars("rows"), like)
    matches(harmonise(new, like, rename={"rows": "latitude", "a": "t2m"}))


def test_a_variable_that_is_not_there_asks_for_a_mapping(like):
    new = data(name="t2").assign(t2=lambda ds: ds["t2"].assign_attrs(standard_name="other"))
    with pytest.raises(SciffusionError, match=r"(?s)no variable is called 't2m'.*rename: \{t2: t2m\}"):
        harmonise(new, like)


def test_data_on_a_grid_of_another_kind_are_to_be_regridded_first(like):
    curved = projected(times=1).rename(sst="t2m")
    with pytest.raises(SciffusionError, match=r"(?s)'latitude' \(dims: time, y, x\).*same kind first"):
        harmonise(curved, like)
    with pytest.raises(SciffusionError, match=r"(?s)'y' \(dims: .*latitude.*same kind first"):
        harmonise(data(), curved[["t2m"]], dims=["y", "x"])


def test_inconvertible_units_are_refused(like):
    with pytest.raises(SciffusionError, match=r"t2m: units 'm s-1' cannot be converted to 'K'.*different quantities"):
        harmonise(data(units="m s-1"), like)
    with pytest.raises(SciffusionError, match="'quux' is not a known unit"):
        harmonise(data(units="quux"), like)


def test_a_region_that_is_not_covered_is_refused(like):
    with pytest.raises(SciffusionError, match=r"(?s)latitude runs from -87.5 to 32.5.*needs -87.5 to 87.5"):
        harmonise(data(LAT[11:]), like)


def test_conversion_stays_lazy_and_is_exact_wherever_it_is_read(like, tmp_path):
    data(units="degC").to_netcdf(tmp_path / "a.nc")
    ds = harmonise(xr.open_dataset(tmp_path / "a.nc", chunks=None), like)
    assert not ds["t2m"].variable._in_memory
    expected = data()["t2m"].values + 273.15
    np.testing.assert_array_equal(ds["t2m"][1, 3:9, [5, 2]], expected[1, 3:9, [5, 2]].T)
    np.testing.assert_array_equal(ds["t2m"], expected)


def test_levels_are_picked_in_the_models_order_and_units():
    base = data()["t2m"].expand_dims(plev=[1000.0, 850.0, 500.0], axis=1).copy()
    base[:] += xr.DataArray([0.0, 1.0, 2.0], dims="plev")
    base["plev"].attrs["units"] = "hPa"
    trained = base.to_dataset().sel(plev=[500.0, 1000.0])
    trained = trained.assign_coords(plev=("plev", [50000.0, 100000.0], {"units": "Pa"}))
    like = Template.of(trained, ["latitude", "longitude"], ["plev"])
    ds = harmonise(base.to_dataset(), like)
    np.testing.assert_array_equal(ds["plev"], [50000.0, 100000.0])
    xr.testing.assert_allclose(ds["t2m"], trained["t2m"])
    with pytest.raises(SciffusionError, match=r"plev has no 50000"):
        harmonise(base.to_dataset().isel(plev=[0, 1]), like)


def test_grids_without_coordinates_must_have_the_same_size():
    bare = data().drop_vars(["latitude", "longitude"])
    like = Template.of(bare, ["latitude", "longitude"])
    xr.testing.assert_identical(harmonise(bare, like), bare)
    with pytest.raises(SciffusionError, match="has length 30, the model 36"):
        harmonise(bare.isel(latitude=slice(30)), like)


def test_axes_are_told_by_attributes_before_names():
    ds = xr.Dataset(
        coords={
            "a": ("a", [1.0, 2.0], {"standard_name": "latitude"}),
            "b": ("b", [1.0, 2.0], {"units": "degrees_east"}),
            "lat": ("lat", [1.0, 2.0], {"standard_name": "air_pressure"}),
            "rlon": ("rlon", [1.0, 2.0], {"standard_name": "grid_longitude", "units": "degrees"}),
            "valid": ("valid", np.array(["2000-01-01", "2000-01-02"], "M8[ns]")),
        }
    )
    expected = {"a": "latitude", "b": "longitude", "lat": "vertical", "rlon": "x", "valid": "time"}
    assert {name: role_of(ds, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("nav_lat", "latitude"),
        ("Longitude", "longitude"),
        ("rlat", "y"),
        ("west_east", "x"),
        ("plev19", "vertical"),
        ("isobaricInhPa", "vertical"),
        ("number", "realization"),
        ("prediction_timedelta", "lead_time"),
        ("valid_time", "time"),
        ("z", None),
        ("sample", None),
    ],
)
def test_axes_without_attributes_are_told_by_name(name, role):
    assert role_of(xr.Dataset({"u": ((name,), [1.0])}), name) == role


def test_geometry_and_wrapping():
    assert geometry_of(globe(times=1), ["lat", "lon"]) == "sphere"
    assert wraps_around(globe(times=1), "lon")
    assert not wraps_around(globe(times=1).isel(lon=slice(70)), "lon")
    assert geometry_of(projected(times=1), ["y", "x"]) == "plane"
    assert auxiliary_coordinates(projected(times=1)) == ("lat", "lon")


@pytest.mark.parametrize(
    ("source", "target", "value", "converted"),
    [
        ("degC", "K", 10.0, 283.15),
        ("K", "degrees_Celsius", 283.15, 10.0),
        ("degF", "K", 32.0, 273.15),
        ("hPa", "Pa", 1.0, 100.0),
        ("Pa", "millibars", 100.0, 1.0),
        ("kg m-2 s-1", "mm/day", 1.0, 86400.0),
        ("mm d-1", "kg m**-2 s**-1", 86400.0, 1.0),
        ("m", "kg m-2", 1.0, 1000.0),
        ("m of water equivalent", "mm", 0.5, 500.0),
        ("km/h", "m s-1", 3.6, 1.0),
        ("knots", "m s**-1", 1.0, 0.5144444),
        ("%", "1", 25.0, 0.25),
        ("g/kg", "kg kg**-1", 1.0, 0.001),
        ("W/m^2", "J s-1 m-2", 2.0, 2.0),
        ("m**2 s**-2", "J kg-1", 3.0, 3.0),
        ("cm", "m", 1.0, 0.01),
        ("mm hr-1", "mm/day", 1.0, 24.0),
        ("1e-3 kg m-2 s-1", "g m-2 s-1", 1.0, 1.0),
    ],
)
def test_units_convert_there_and_back(source, target, value, converted):
    slope, offset = conversion(source, target)
    assert slope * value + offset == pytest.approx(converted, rel=1e-6)
    back, shift = conversion(target, source)
    assert back * converted + shift == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("one", "two"), [("m s**-1", "m/s"), ("W m^-2", "W/m2"), ("K", "kelvin"), ("hPa", "mbar"), ("1", "")]
)
def test_spellings_of_a_unit_are_the_same(one, two):
    assert same_units(one, two)


@pytest.mark.parametrize(("one", "two"), [("K", "m"), ("m", "m s-1"), ("Pa", "kg m-2"), ("K", "W m-2"), ("mm", "s")])
def test_different_quantities_do_not_convert(one, two):
    with pytest.raises(SciffusionError, match="different quantities") as error:
        conversion(one, two, "field")
    assert str(error.value).startswith("field: ")
