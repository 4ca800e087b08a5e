"""Opening a source: lazily, combined and named; each kind of bad data has one message that names it and its mend."""

import gzip
import shutil

import cftime
import numpy as np
import pytest
import xarray as xr

from sciffusion.config import Source
from sciffusion.errors import SciffusionError
from sciffusion.fields.open import check_overlap, open_source
from sciffusion.fields.roles import geometry_of, role_of
from tests.fields.opened import LAT, field, message
from tests.init_data import two_terabytes


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_one_file_is_opened_lazily_without_dask(tmp_path, kind):
    path = str(tmp_path / f"a.{kind}")
    field().to_zarr(path) if kind == "zarr" else field().to_netcdf(path)
    ds = open_source(path, ["u"], ["lat", "lon"])
    assert not ds["u"].variable._in_memory
    assert ds["u"].chunks is None
    xr.testing.assert_equal(ds.load(), field())


def test_two_terabytes_open_at_once(tmp_path):
    ds = open_source(two_terabytes(tmp_path / "huge.zarr"), ["t2m"], ["y", "x"])
    assert ds["t2m"].nbytes > 2e12
    assert isinstance(ds["time"].values[0], cftime.DatetimeNoLeap)
    assert float(ds["t2m"][5, 0, 0]) == 280.0


def test_grid_dims_are_moved_last(tmp_path):
    field().transpose("lon", "time", "lat").to_netcdf(tmp_path / "a.nc")
    assert open_source(str(tmp_path / "a.nc"), ["u"], ["lat", "lon"])["u"].dims == ("time", "lat", "lon")


def test_rename_and_select_are_applied(tmp_path):
    field().to_netcdf(tmp_path / "a.nc")
    source = Source(
        paths=[str(tmp_path / "a.nc")],
        rename={"u": "wind", "lat": "latitude"},
        select={"time": ["2000-01-03", "2000-01-05"], "latitude": [-20, 50]},
    )
    ds = open_source(source, ["wind"], ["latitude", "lon"])
    assert dict(ds.sizes) == {"time": 3, "latitude": 3, "lon": 8}
    one = open_source(source.model_copy(update={"select": {"time": "2000-01-03"}}))
    assert "time" not in one.dims


def test_coordinates_under_other_names_are_found(tmp_path):
    ds = field().rename_dims(time="record", lat="y", lon="x").reset_index(["time", "lat", "lon"])
    assert set(ds.dims) == {"record", "y", "x"}
    ds.to_netcdf(tmp_path / "a.nc")
    opened = open_source(str(tmp_path / "a.nc"), ["u"], ["y", "x"])
    assert opened["u"].dims == ("record", "y", "x")
    np.testing.assert_array_equal(opened["y"], LAT)
    assert geometry_of(opened, ["y", "x"]) == "sphere"
    assert role_of(opened, "record") == "time"


def test_packed_data_and_calendars_are_decoded(tmp_path):
    ds = field().assign_coords(time=xr.date_range("2000-02-26", periods=10, calendar="360_day", use_cftime=True))
    ds["u"] = ds["u"].where(ds["u"] != ds["u"][0, 0, 0])
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 5.0, "_FillValue": -32768}
    ds.to_netcdf(tmp_path / "a.nc", encoding={"u": packing})
    opened = open_source(str(tmp_path / "a.nc")).load()
    np.testing.assert_allclose(opened["u"], ds["u"], atol=0.0051)
    assert opened["time"].values[4] == cftime.Datetime360Day(2000, 2, 30)


def test_the_projection_that_fields_name_goes_where_they_go(tmp_path):
    pole = {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 39.25}
    for part in (slice(0, 5), slice(5, 10)):
        ds = field().isel(time=part).assign(rotated_pole=((), np.array(b"", "S1"), pole), other=((), 1.0))
        ds["u"].attrs["grid_mapping"] = "rotated_pole: lat lon"
        ds.to_netcdf(tmp_path / f"{part.start}.nc")
    opened = open_source(str(tmp_path / "*.nc"), ["u"], ["lat", "lon"])
    assert opened["u"].coords["rotated_pole"].attrs == pole
    assert opened["u"].attrs["grid_mapping"] == "rotated_pole: lat lon"
    assert "other" not in opened.variables


def test_a_missing_path_suggests_the_nearest(tmp_path):
    field().to_netcdf(tmp_path / "forecast.nc")
    assert "did you mean 'forecast.nc'" in message(str(tmp_path / "forcast.nc"))
    assert "the folder" in message(str(tmp_path / "none" / "a.nc"))


def test_a_pattern_without_match_is_named(tmp_path):
    assert "no file matches this pattern" in message(str(tmp_path / "*.nc"))


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "a.nc").touch()
    assert "a.nc: the file is empty (0 bytes)" in message(str(tmp_path / "a.nc"))


@pytest.mark.parametrize("kind", ["NETCDF4", "NETCDF3_64BIT", "NETCDF3_CLASSIC"])
def test_a_truncated_file_is_named(tmp_path, kind):
    field(count=30).to_netcdf(tmp_path / "whole.nc", format=kind)
    data = (tmp_path / "whole.nc").read_bytes()
    for share in (0.3, 0.8):
        (tmp_path / "cut.nc").write_bytes(data[: int(share * len(data))])
        text = message(str(tmp_path / "cut.nc"))
        assert "cut.nc" in text
        assert "truncated" in text


def test_a_damaged_store_is_named(tmp_path):
    field().to_zarr(tmp_path / "a.zarr")
    for chunk in (tmp_path / "a.zarr" / "u" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:20])
    text = message(str(tmp_path / "a.zarr"), ["u"])
    assert "'u'" in text
    assert "truncated or damaged" in text


def test_files_of_other_kinds_are_named(tmp_path):
    (tmp_path / "a.nc").write_text("hello")
    assert "neither NetCDF nor Zarr" in message(str(tmp_path / "a.nc"))
    (tmp_path / "a.grib").write_bytes(b"GRIB" + bytes(100))
    assert "cdo -f nc4 copy" in message(str(tmp_path / "a.grib"))
    with gzip.open(tmp_path / "a.nc.gz", "wb") as file:
        file.write(b"CDF")
    assert "gunzip" in message(str(tmp_path / "a.nc.gz"))
    (tmp_path / "folder").mkdir()
    assert "*.nc" in message(str(tmp_path / "folder"))


def test_a_misspelt_variable_suggests_the_nearest_of_all_files(tmp_path):
    field(names=("u10",)).to_netcdf(tmp_path / "a.nc")
    field(names=("t2m",)).to_netcdf(tmp_path / "b.nc")
    text = message(str(tmp_path / "*.nc"), ["u10", "T2M"])
    assert "no variable is called 'T2M'" in text
    assert "did you mean 't2m'" in text
    assert "nothing is called 'x'" in message(Source(paths=[str(tmp_path / "a.nc")], rename={"x": "y"}))


def test_a_variable_that_is_no_number_is_refused(tmp_path):
    xr.Dataset({"name": ("x", np.array(["a", "b"]))}).to_netcdf(tmp_path / "a.nc")
    assert "not numbers" in message(str(tmp_path / "a.nc"), ["name"])


def test_wrong_dims_are_named(tmp_path):
    field().to_netcdf(tmp_path / "a.nc")
    text = message(str(tmp_path / "a.nc"), ["u"], ["latitude", "lon"])
    assert "'u' has dims (time, lat, lon), without the grid dim 'latitude'" in text
    assert "did you mean 'lat'" in text


@pytest.mark.parametrize("dim", ["time", "lat", "lon"])
def test_unsorted_and_repeated_coordinates_are_refused(tmp_path, dim):
    ds = field()
    order = np.arange(ds.sizes[dim])
    order[[1, 2]] = order[[2, 1]]
    ds.isel({dim: order}).to_netcdf(tmp_path / "unsorted.nc")
    text = message(str(tmp_path / "unsorted.nc"))
    assert f"coordinate '{dim}' is not monotonic" in text
    assert f"sortby('{dim}')" in text
    order = np.append(np.arange(ds.sizes[dim]), ds.sizes[dim] - 1)
    ds.isel({dim: order}).to_netcdf(tmp_path / "repeated.nc")
    text = message(str(tmp_path / "repeated.nc"))
    assert f"coordinate '{dim}'" in text
    assert "2 times" in text


def test_descending_latitude_and_unsorted_members_are_fine(tmp_path):
    ds = field().expand_dims(realization=[3, 1, 2])
    ds.to_netcdf(tmp_path / "a.nc")
    xr.testing.assert_equal(open_source(str(tmp_path / "a.nc"), ["u"], ["lat", "lon"]).load()["u"], ds["u"])


def test_an_all_nan_field_is_refused_and_gaps_are_not(tmp_path):
    ds = field(names=("u", "v"))
    ds["v"] = ds["v"] * np.nan
    ds["u"][:, :3] = np.nan
    ds.to_netcdf(tmp_path / "a.nc")
    assert "'v' is all NaN" in message(str(tmp_path / "a.nc"))
    open_source(str(tmp_path / "a.nc"), ["u"])


def test_one_finite_cell_of_a_large_field_is_found(tmp_path):
    values = np.full((3, 300, 300), np.nan, np.float32)
    values[2, 211, 97] = 1.0
    xr.Dataset({"u": (("time", "y", "x"), values)}).to_netcdf(tmp_path / "a.nc")
    open_source(str(tmp_path / "a.nc"), ["u"], ["y", "x"])


def test_an_empty_selection_tells_the_range(tmp_path):
    field().to_netcdf(tmp_path / "a.nc")
    source = Source(paths=[str(tmp_path / "a.nc")], select={"time": ["2041", "2060"]})
    assert "time runs from 2000-01-01 to 2000-01-10" in message(source)
    assert "did you mean 'time'" in message(source.model_copy(update={"select": {"tme": "2000"}}))


def test_undecodable_times_are_named(tmp_path):
    ds = field().assign_coords(time=("time", np.arange(10), {"units": "fortnights since the flood"}))
    ds.to_netcdf(tmp_path / "a.nc")
    text = message(str(tmp_path / "a.nc"))
    assert "time axis cannot be decoded" in text
    assert "days since 2000-01-01" in text


def test_no_overlap_in_time_is_refused():
    with pytest.raises(SciffusionError, match=r"(?s)overlap in time: 2000-04-10.*against 2000-01-01.*same period"):
        check_overlap(field(), field(first=100), ["lat", "lon"])


def test_times_that_never_meet_are_refused_unless_aligned_otherwise():
    late = field().assign_coords(time=field().time + np.timedelta64(3, "h"))
    with pytest.raises(SciffusionError, match=r"(?s)no time in common.*align"):
        check_overlap(field(), late, ["lat", "lon"])
    check_overlap(field(), late, ["lat", "lon"], align="previous")


def test_no_overlap_in_space_is_refused_but_other_longitude_conventions_are_not():
    east = field(lon=np.arange(8) * 5.0)
    with pytest.raises(SciffusionError, match=r"(?s)do not overlap along 'lon'.*same region"):
        check_overlap(east, field(lon=100 + np.arange(8) * 5.0), ["lat", "lon"])
    check_overlap(east, field(lon=-360 + np.arange(8) * 5.0), ["lat", "lon"])
    check_overlap(east, field().rename(lat="latitude", lon="longitude"), ["lat", "lon"])


def test_calendars_with_the_same_dates_overlap():
    other = field().assign_coords(time=xr.date_range("2000-01-01", periods=10, calendar="noleap", use_cftime=True))
    check_overlap(field(), other, ["lat", "lon"])


def test_nothing_is_written_beside_the_data(tmp_path):
    field().to_zarr(tmp_path / "a.zarr")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    open_source(str(tmp_path / "a.zarr"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    shutil.rmtree(tmp_path / "a.zarr")
