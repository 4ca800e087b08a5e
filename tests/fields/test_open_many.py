"""Several files as one data set: joined along what tells them apart, lazily, each value where it belongs."""

import pickle

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from sciffusion.config import Source
from sciffusion.fields.lazy import concatenate
from sciffusion.fields.open import open_source
from tests.fields.opened import LAT, field, message


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


def test_files_that_overlap_are_refused(tmp_path):
    field(0, 6).to_netcdf(tmp_path / "a.nc")
    field(5, 5).to_netcdf(tmp_path / "b.nc")
    assert "2000-01-06 2 times" in message(str(tmp_path / "*.nc"))


def test_files_of_different_grids_are_refused(tmp_path):
    field(0, 5).to_netcdf(tmp_path / "a.nc")
    field(5, 5, lat=LAT + 1).to_netcdf(tmp_path / "b.nc")
    assert "source.combine" in message(str(tmp_path / "*.nc"))


def test_joined_files_stay_lazy_and_survive_pickling(tmp_path):
    for first in (0, 5):
        field(first, 5).to_netcdf(tmp_path / f"{first}.nc")
    ds = open_source(str(tmp_path / "*.nc"))
    assert ds["u"].chunks is None
    assert not ds["u"].variable._in_memory
    one = pickle.loads(pickle.dumps(ds)).isel(time=7)
    xr.testing.assert_equal(one.load(), field().isel(time=7))
    assert not ds["u"].variable._in_memory


def indices(size):
    """What may select along an axis of ``size``: a position, a slice, positions in any order."""
    position = st.integers(-size, size - 1)
    positions = st.lists(position, max_size=6).map(lambda chosen: np.array(chosen, dtype=np.int64))
    # xarray itself cannot take nothing backwards from a lazy array.
    slices = st.slices(size).filter(lambda cut: (cut.step or 1) > 0 or len(range(size)[cut]) > 0)
    return st.one_of(position, slices, positions)


@given(st.data(), st.sampled_from(["a", "b", "c", "new"]))
@settings(max_examples=100)
def test_any_selection_of_joined_arrays_equals_that_of_the_whole(data, dim):
    rng = np.random.default_rng(0)
    shape = {"a": 3, "b": 4, "c": 2}
    parts = [
        xr.Variable(tuple(shape), rng.standard_normal([n if d == dim else shape[d] for d in shape]))
        for n in ((2, 1, 3) if dim != "new" else (1, 1, 1))
    ]
    whole = xr.Variable.concat(parts, dim)
    joined = concatenate([parts[0], parts[1].transpose("c", "a", "b"), parts[2]], dim)
    assert joined.sizes == whole.sizes
    key = {d: data.draw(indices(n)) for d, n in whole.sizes.items()}
    np.testing.assert_array_equal(joined.isel(key).values, whole.isel(key).values)


def test_parts_that_do_not_fit_are_refused():
    one, other = xr.Variable(("t", "x"), np.zeros((2, 3))), xr.Variable(("t", "x"), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="sizes"):
        concatenate([one, other], "t")
    with pytest.raises(ValueError, match="only some"):
        concatenate([one, xr.Variable(("x",), np.zeros(3))], "t")
