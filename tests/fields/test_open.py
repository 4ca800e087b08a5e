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
from tests.init_data import two_terabytes

LAT, LON = np.linspace(75, -75, 6), np.arange(8) * 45.0


def field(first=0, count=10, names=("u",), lat=LAT, lon=LON, **coords):
    """(time, lat, lon), value = day + cell, so that every cell tells where it comes from."""
    days = np.arange(first, first + count)
    values = days[:, None, None] + np.arange(lat.size * lon.size).reshape(lat.size, lon.size) / 100
    time = np.datetime64("2000-01-01", "ns") + days * np.timedelta64(1, "D")
    variables = {name: (("time", "lat", "lon"), values.astype(np.float32), {"units": "m s-1"}) for name in names}
    return xr.Dataset(variables, {"time": time, "lat": lat, "lon": lon, **coords})


def message(*arguments, **options):
    with pytest.raises(SciffusionError) as error:
        open_source(*arguments, **options)
    assert error.value.mend, "every fault has a mend"
    return str(error.value)


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


def test_files_are_joined_along_their_coordinate_in_its_order(tmp_path):
    for name, first in (("b", 0), ("a", 5)):
        field(first, 5).to_netcdf(tmp_path / f"{name}.nc")
    xr.testing.assert_equal(open_source(str(tmp_path / "*.nc")).load(), field())


def test_tiles_in_time_and_space_form_one_block(tmp_path):
    whole = field()
    for i, part in enumerate([slice(0, 3), slice(3, 6)]):
        for j, days in enumerate([slice(0, 5), slice(5, 10)]):
            whole.isel(lat=part, time=days).to_netcdf(tmp_path / f"tile_{i}{j}.nc")
    xr.testing.assert_equal(open_source(str(tmp_path / "tile_*.nc")).load(), whole)


def test_stores_with_different_variables_are_merged_without_dask(tmp_path):
    field(names=("u",)).to_zarr(tmp_path / "u.zarr")
    field(names=("v",)).to_netcdf(tmp_path / "v.nc")
    ds = open_source([str(tmp_path / "u.zarr"), str(tmp_path / "v.nc")], ["u", "v"])
    assert ds["u"].chunks is None
    np.testing.assert_array_equal(ds["u"], ds["v"])


def test_a_file_per_variable_and_year_makes_one_dataset(tmp_path):
    for name in "uv":
        for first in (0, 5):
            field(first, 5, (name,)).to_netcdf(tmp_path / f"{name}_{first}.nc")
    xr.testing.assert_equal(open_source(str(tmp_path / "*.nc")).load()[["u", "v"]], field(names=("u", "v")))


def test_files_without_coordinates_are_stacked_in_natural_order(tmp_path):
    for i in range(12):
        xr.Dataset({"u": (("y", "x"), np.full((3, 4), i))}).to_netcdf(tmp_path / f"run_{i}.nc")
    ds = open_source(str(tmp_path / "run_*.nc"))
    assert ds["u"].dims == ("sample", "y", "x")
    assert ds["u"][:, 0, 0].values.tolist() == list(range(12))


def test_files_with_a_bare_time_dim_are_stacked_along_it(tmp_path):
    for i in (2, 10):
        xr.Dataset({"u": (("time", "x"), np.full((3, 4), i))}).to_netcdf(tmp_path / f"run_{i}.nc")
    assert open_source(str(tmp_path / "run_*.nc"))["u"][:, 0].values.tolist() == [2, 2, 2, 10, 10, 10]


def test_a_scalar_coordinate_of_each_file_becomes_the_dim(tmp_path):
    for member in (3, 1, 2):
        field(realization=member).assign(u=lambda ds, m=member: ds["u"] * m).to_netcdf(tmp_path / f"m{9 - member}.nc")
    ds = open_source(str(tmp_path / "m*.nc"))
    assert ds["realization"].values.tolist() == [1, 2, 3]
    np.testing.assert_allclose(ds["u"].isel(realization=2), 3 * field()["u"])


def test_combine_names_a_new_dim(tmp_path):
    for i in range(3):
        field().to_netcdf(tmp_path / f"r{i}.nc")
    source = Source(paths=[str(tmp_path / "r*.nc")], combine="realization")
    assert open_source(source)["u"].dims == ("realization", "time", "lat", "lon")
    assert "name the dim that tells them apart under source.combine" in message([str(tmp_path / "r*.nc")])


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


def test_files_that_overlap_are_refused(tmp_path):
    field(0, 6).to_netcdf(tmp_path / "a.nc")
    field(5, 5).to_netcdf(tmp_path / "b.nc")
    assert "2000-01-06 2 times" in message(str(tmp_path / "*.nc"))


def test_files_of_different_grids_are_refused(tmp_path):
    field(0, 5).to_netcdf(tmp_path / "a.nc")
    field(5, 5, lat=LAT + 1).to_netcdf(tmp_path / "b.nc")
    assert "source.combine" in message(str(tmp_path / "*.nc"))


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
