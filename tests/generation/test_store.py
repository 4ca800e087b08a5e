"""A store says what is complete, survives every failure of the disk, and is plain CF Zarr to anybody else."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from sciffusion.errors import SciffusionError
from sciffusion.fields import chunks, ensemble, layout, markers
from sciffusion.fields.ensemble import EnsembleStore, is_ensemble_store, open_ensemble

IDENTITY = {"model": {"sha256": "abc"}, "seed": 3, "sampler": {"steps": 18, "sigma_max": None}}
CALENDARS = ["standard", "noleap", "360_day"]


def template(calendar="noleap", cases=3):
    use_cftime = calendar != "standard"
    time = xr.date_range("2001-02-27", periods=cases, calendar=calendar, use_cftime=use_cftime)
    lat = ("lat", np.linspace(60, -60, 4), {"units": "degrees_north", "standard_name": "latitude"})
    return xr.Dataset(
        {
            "t2m": (("time", "lat", "lon"), nothing(cases, 4, 5), {"units": "K", "long_name": "temperature"}),
            "u": (("time", "level", "lat", "lon"), nothing(cases, 2, 4, 5, dtype=np.float64), {"units": "m s-1"}),
        },
        coords={
            "time": time,
            "lat": lat,
            "lon": np.arange(5.0),
            "level": [500, 850],
            "season": ("time", np.array(["a", "bcd", "e"])[:cases]),
            "area": (("lat", "lon"), np.arange(20.0).reshape(4, 5)),
            "height": 2.0,
            "training_case": ("time", np.arange(cases) > 0),
        },
        attrs={"title": "winds", "history": "made by hand"},
    )


def nothing(*shape, dtype=np.float32):
    return np.broadcast_to(np.array(np.nan, dtype), shape)


def item(case, member):
    rng = np.random.default_rng([case, member])
    return {"t2m": rng.standard_normal((4, 5), np.float32), "u": rng.standard_normal((2, 4, 5))}


def filled(path, members=range(3), leave=(), **options):
    store = EnsembleStore.create(path, template(**options), members, ["time"], IDENTITY)
    for case in range(3):
        for member in members:
            if (case, member) not in leave:
                store.write(case, member, item(case, member))
    return store


def contents(path):
    """Bytes of everything but the root's attributes, which hold the date."""
    files = [file for file in path.rglob("*") if file.is_file() and file != path / "zarr.json"]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def test_variables_stay_in_their_order(tmp_path):
    ordered = template()[["u", "t2m"]]
    store = EnsembleStore.create(tmp_path / "e.zarr", ordered, [0], ("time",), IDENTITY)
    store.write(0, 0, item(0, 0))
    store.write(1, 0, item(1, 0))
    store.write(2, 0, item(2, 0))
    assert store.variables == ("u", "t2m")
    assert list(open_ensemble(store.path).data_vars) == ["u", "t2m"]


def test_what_is_written_is_read(tmp_path):
    filled(tmp_path / "e.zarr")
    ds = open_ensemble(tmp_path / "e.zarr")
    assert ds.t2m.dims == ("member", "time", "lat", "lon")
    for case in range(3):
        for member in range(3):
            for name, values in item(case, member).items():
                np.testing.assert_array_equal(ds[name].isel(time=case).sel(member=member), values, strict=True)


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_coordinates_and_attributes_survive(tmp_path, calendar, suffix):
    filled(tmp_path / "e.zarr", calendar=calendar).finalise()
    ds, wanted = open_ensemble(tmp_path / "e.zarr"), template(calendar)
    if suffix == "nc":
        ensemble.write_netcdf(ds, tmp_path / "e.nc")
        ds = open_ensemble(tmp_path / "e.nc")
    for name, coordinate in wanted.coords.items():
        assert ds[name].dims == coordinate.dims
        assert np.array_equal(ds[name].values.astype(object), coordinate.values.astype(object)), name
        named = {"standard_name": "time"} if suffix == "nc" and name == "time" else {}
        assert ds[name].attrs == coordinate.attrs | named
    assert ds.time.dt.calendar == wanted.time.dt.calendar
    assert {name: ds[name].dtype for name in wanted} == {name: wanted[name].dtype for name in wanted}
    assert ds.t2m.attrs == wanted.t2m.attrs
    assert ds.member.attrs["standard_name"] == "realization"
    assert ds.attrs["title"] == "winds"
    assert ds.attrs["history"].endswith("made by hand")
    assert json.loads(ds.attrs["sciffusion_identity"]) == IDENTITY


def test_xarray_alone_reads_it_without_a_warning(tmp_path, recwarn):
    filled(tmp_path / "e.zarr").finalise()
    ds = xr.open_zarr(tmp_path / "e.zarr").load()
    assert ds.complete.values.all()
    assert not recwarn.list


def test_only_complete_members_are_read(tmp_path):
    filled(tmp_path / "e.zarr", leave=[(1, 2)])
    ds = open_ensemble(tmp_path / "e.zarr")
    assert ds.member.values.tolist() == [0, 1]
    assert ds.attrs["members_left_out"] == 1


def test_a_half_written_item_is_nan_even_in_a_partial_reading(tmp_path, monkeypatch):
    store = filled(tmp_path / "e.zarr", leave=[(1, 2)])
    monkeypatch.setattr(markers.Markers, "write", lambda *_, **__: None)  # killed between the data and the marker
    store.write(1, 2, item(1, 2))
    ds = open_ensemble(tmp_path / "e.zarr", partial=True)
    assert ds.member.values.tolist() == [0, 1, 2]
    assert int(ds.t2m.isnull().sum()) == 4 * 5
    assert not ds.complete.sel(member=2).values[1]
    assert ds.attrs["incomplete_items"] == 1


def test_nothing_complete_is_an_error_that_says_so(tmp_path):
    EnsembleStore.create(tmp_path / "e.zarr", template(), [0], ["time"], IDENTITY).write(0, 0, item(0, 0))
    with pytest.raises(SciffusionError, match="1 of 3 items"):
        open_ensemble(tmp_path / "e.zarr")


def test_a_field_of_nan_alone_is_complete_and_leaves_its_chunk(tmp_path):
    store = EnsembleStore.create(tmp_path / "e.zarr", template(), [0], ["time"], IDENTITY)
    store.write(0, 0, {"t2m": np.full((4, 5), np.nan), "u": np.full((2, 4, 5), np.nan)})
    assert store.completed()[0].tolist() == [True, False, False]
    assert (tmp_path / "e.zarr/t2m/c/0/0/0/0").stat().st_size > 0
    assert store.verify() == []


def test_stores_without_cases_and_with_two_case_dims(tmp_path):
    single = EnsembleStore.create(tmp_path / "a.zarr", template().isel(time=0, drop=True), [4], [], IDENTITY)
    single.write(0, 4, item(0, 4))
    assert open_ensemble(tmp_path / "a.zarr").t2m.dims == ("member", "lat", "lon")
    wide = template().expand_dims(scenario=["ssp1", "ssp5"], axis=1)
    double = EnsembleStore.create(tmp_path / "b.zarr", wide, [0], ["time", "scenario"], IDENTITY)
    for case in range(6):
        double.write(case, 0, item(case, 0))
    ds = open_ensemble(tmp_path / "b.zarr")
    assert ds.u.dims == ("member", "time", "scenario", "level", "lat", "lon")
    np.testing.assert_array_equal(ds.t2m.sel(member=0, scenario="ssp5").isel(time=1), item(3, 0)["t2m"])


def test_more_members_leave_the_first_untouched(tmp_path):
    store = filled(tmp_path / "e.zarr")
    before = {name: data for name, data in contents(tmp_path / "e.zarr").items() if "/c/" in name and "t2m" in name}
    store.extend([2, 3, 10])
    for case in range(3):
        store.write(case, 10, item(case, 10))
    after = contents(tmp_path / "e.zarr")
    assert before.items() <= after.items()
    ds = open_ensemble(tmp_path / "e.zarr")
    assert ds.member.values.tolist() == [0, 1, 2, 10]
    np.testing.assert_array_equal(ds.u.sel(member=10).isel(time=2), item(2, 10)["u"])


def test_extended_and_directly_made_stores_read_alike(tmp_path):
    store = filled(tmp_path / "a.zarr", members=[0])
    store.extend([0, 1])
    for case in range(3):
        store.write(case, 1, item(case, 1))
    filled(tmp_path / "b.zarr", members=[0, 1])
    xr.testing.assert_identical(
        open_ensemble(tmp_path / "a.zarr").drop_attrs(), open_ensemble(tmp_path / "b.zarr").drop_attrs()
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, "seed: 3 in the store, 4 now"),
        ({"model": {"sha256": "def"}}, "model.sha256: 'abc' in the store, 'def' now"),
        ({"sampler": {"steps": 18, "sigma_max": 80.0}}, "sampler.sigma_max: None in the store, 80.0 now"),
    ],
)
def test_another_identity_is_refused_by_name(tmp_path, change, named):
    store = filled(tmp_path / "e.zarr")
    store.require(template(), IDENTITY)
    with pytest.raises(SciffusionError, match=named):
        store.require(template(), IDENTITY | change)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda ds: ds.assign_coords(lat=-ds.lat), "coordinate 'lat'"),
        (lambda ds: ds.isel(time=slice(2)), "coordinate 'time'"),
        (lambda ds: ds.assign_coords(season=("time", ["a", "b", "c"])), "coordinate 'season'"),
        (lambda ds: ds.drop_vars("u"), "variables"),
    ],
)
def test_another_template_is_refused_by_name(tmp_path, other, named):
    store = filled(tmp_path / "e.zarr")
    with pytest.raises(SciffusionError, match=named):
        store.require(other(template()), IDENTITY)


def test_verify_finds_every_kind_of_damage_and_withdrawing_makes_it_missing(tmp_path):
    store = filled(tmp_path / "e.zarr")
    path = tmp_path / "e.zarr"
    flipped = path / "t2m/c/0/1/0/0"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(bytes(data))
    (path / "u/c/1/1/0/0/0").unlink()
    (path / "u/c/2/0/0/0/0").write_bytes(b"")
    store.markers.path(2, 2).write_text("")
    faults = store.verify()
    assert {(fault.case, fault.member) for fault in faults} == {(1, 0), (1, 1), (0, 2), (2, 2)}
    assert {(fault.case, fault.member) for fault in store.verify(checksums=False)} == {(1, 1), (0, 2), (2, 2)}
    store.withdraw(faults)
    assert int((~store.completed()).sum()) == 4
    with pytest.raises(ValueError, match="hecksum"):
        _ = zarr.open_array(path / "t2m", mode="r")[0, 1]


def test_finalise_removes_what_killed_writers_left(tmp_path):
    store = filled(tmp_path / "e.zarr")
    clean = set(contents(tmp_path / "e.zarr"))
    store.markers.aside.mkdir(exist_ok=True)
    (store.markers.aside / "host-1-1").write_bytes(b"half")
    (tmp_path / "e.zarr/time/c/0.0123abcd.partial").write_bytes(b"half")  # as Zarr leaves it
    store.markers.path(0, 0).with_name(".0.json.host-1.partial").write_bytes(b"half")
    store.finalise()
    assert set(contents(tmp_path / "e.zarr")) - clean == {"complete/c/0/0"}


def test_creation_is_refused_where_something_lies_unless_told(tmp_path):
    filled(tmp_path / "e.zarr")
    before = contents(tmp_path / "e.zarr")
    with pytest.raises(SciffusionError, match="exists already"):
        EnsembleStore.create(tmp_path / "e.zarr", template(), [0], ["time"], IDENTITY)
    assert contents(tmp_path / "e.zarr") == before
    store = EnsembleStore.create(tmp_path / "e.zarr", template(), [0], ["time"], IDENTITY, overwrite=True)
    assert not store.completed().any()
    assert os.listdir(tmp_path) == ["e.zarr"]


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(SciffusionError, match="folder does not exist"):
        EnsembleStore.create(tmp_path / "no/e.zarr", template(), [0], ["time"], IDENTITY)


def test_a_failed_overwrite_keeps_the_previous_store(tmp_path, monkeypatch):
    filled(tmp_path / "e.zarr")
    before = contents(tmp_path / "e.zarr")
    monkeypatch.setattr(layout, "consolidate", full_disk)
    with pytest.raises(SciffusionError, match="No space left"):
        EnsembleStore.create(tmp_path / "e.zarr", template(), [0], ["time"], IDENTITY, overwrite=True)
    assert contents(tmp_path / "e.zarr") == before
    assert os.listdir(tmp_path) == ["e.zarr"]


def test_a_store_that_cannot_take_its_place_leaves_the_previous_one_there(tmp_path, monkeypatch):
    """Between the two renames nothing stands there."""
    filled(tmp_path / "e.zarr")
    before, rename = contents(tmp_path / "e.zarr"), Path.rename

    def refused(self, target):
        return full_disk() if self.name.endswith(".new") else rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(SciffusionError, match="No space left"):
        EnsembleStore.create(tmp_path / "e.zarr", template(), [0], ["time"], IDENTITY, overwrite=True)
    assert contents(tmp_path / "e.zarr") == before
    assert os.listdir(tmp_path) == ["e.zarr"]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
def test_chunks_have_the_bytes_that_zarr_writes(tmp_path, dtype):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    codecs = (zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec())
    fill = -32768 if dtype == "i2" else np.nan
    cut = {
        "shape": (2, 3, 5, 7),
        "chunks": (1, 1, 2, 4),
        "dtype": dtype,
        "fill_value": fill,
    }  # the last ones stand over
    array = group.create_array("v", compressors=codecs, **cut)
    values = (100 * np.random.default_rng(0).standard_normal((5, 7))).astype(dtype)
    array[1, 2] = values
    chunks.require_codecs(tmp_path, "v", array)
    written = {key: (tmp_path / "a.zarr/v" / key).read_bytes() for key, _ in chunks.blocks(values, array, (1, 2))}
    assert len(written) == 6
    for key, block in chunks.blocks(values, array, (1, 2)):
        assert chunks.encode(block, array.dtype) == written[key]
    other = group.create_array("w", compressors=codecs[:1], **cut)
    with pytest.raises(SciffusionError, match="encoded in another way"):
        chunks.require_codecs(tmp_path, "w", other)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("code", "mend"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "can be written")])
@pytest.mark.parametrize("failing", ["chunks.write", "markers.write_text"])
def test_a_failure_in_the_middle_leaves_complete_items_intact(tmp_path, monkeypatch, code, mend, failing):
    store = filled(tmp_path / "e.zarr", leave=[(1, 2)])
    before = contents(tmp_path / "e.zarr")

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(f"sciffusion.fields.{failing}", fail)
        with pytest.raises(SciffusionError, match=mend):
            store.write(1, 2, item(1, 2))
    assert before.items() <= contents(tmp_path / "e.zarr").items()
    assert open_ensemble(tmp_path / "e.zarr").member.values.tolist() == [0, 1]
    store.write(1, 2, item(1, 2))
    assert store.completed().all()


def test_netcdf_is_whole_or_not_there(tmp_path, monkeypatch):
    filled(tmp_path / "e.zarr")
    ds, path = open_ensemble(tmp_path / "e.zarr"), tmp_path / "e.nc"
    ensemble.write_netcdf(ds, path)
    before = path.read_bytes()
    with pytest.raises(SciffusionError, match="exists already"):
        ensemble.write_netcdf(ds, path)
    for failure, seen in [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("NetCDF: HDF error"), SciffusionError),
    ]:
        broken = ds.assign(t2m=ds.t2m.copy(data=ds.t2m.data.map_blocks(raising(failure), dtype=np.float32)))
        with pytest.raises(seen):
            ensemble.write_netcdf(broken, path, overwrite=True)
        assert path.read_bytes() == before
        assert sorted(os.listdir(tmp_path)) == ["e.nc", "e.zarr"]
    ensemble.write_netcdf(ds, path, overwrite=True)
    xr.testing.assert_equal(open_ensemble(path).load(), ds.load())


def raising(failure):
    def block(values, block_info=None):
        if block_info and block_info[None]["chunk-location"][0] == 2:
            raise failure
        return values

    return block


def test_wrong_items_are_refused(tmp_path):
    store = filled(tmp_path / "e.zarr")
    with pytest.raises(SciffusionError, match="no member 9"):
        store.write(0, 9, item(0, 0))
    with pytest.raises(SciffusionError, match="u takes"):
        store.write(0, 0, {"t2m": np.zeros((4, 5), np.float32)})
    assert store.completed().all()


def test_other_folders_are_not_taken_for_a_store(tmp_path):
    assert not is_ensemble_store(tmp_path)
    with pytest.raises(SciffusionError, match="not an ensemble store"):
        EnsembleStore(tmp_path)
    with pytest.raises(SciffusionError, match="cannot be opened"):
        open_ensemble(tmp_path / "nothing.nc")


def test_a_store_of_a_later_version_is_refused(tmp_path):
    filled(tmp_path / "e.zarr")
    zarr.open_group(tmp_path / "e.zarr").attrs[layout.VERSION] = 99
    for opened in (EnsembleStore, open_ensemble):
        with pytest.raises(SciffusionError, match="install a newer sciffusion"):
            opened(tmp_path / "e.zarr")


def test_a_strangers_marker_does_not_lead_outside_the_store(tmp_path):
    store = filled(tmp_path / "e.zarr")
    (tmp_path / "secret").write_bytes(b"x")
    marker = store.markers.path(0, 0)
    entry = json.loads(marker.read_text())
    marker.write_text(json.dumps(entry | {"chunks": {"../secret": [1, 0]}}))
    assert [fault.what for fault in store.verify()] == ["its marker names a file outside the store"]


def test_somebody_elses_zarr_is_opened_as_it_is(tmp_path):
    ds = template().expand_dims(member=[0, 1]).fillna(1.0)
    ds = ds.drop_vars("season")
    ds.to_zarr(tmp_path / "theirs.zarr", consolidated=False)
    xr.testing.assert_equal(open_ensemble(tmp_path / "theirs.zarr").load(), ds)


def test_a_small_disk_that_fills_up_keeps_what_was_complete(tmp_path, small_disk):
    store = EnsembleStore.create(small_disk / "e.zarr", big_template(), range(100), [], IDENTITY)
    with pytest.raises(SciffusionError, match="free some space"):
        fill(store)
    made = int(store.completed().sum())
    assert 3 <= made < 20
    assert store.verify() == []
    assert open_ensemble(small_disk / "e.zarr").load().sizes["member"] == made
    with pytest.raises(SciffusionError, match="free some space"):
        ensemble.write_netcdf(open_ensemble(small_disk / "e.zarr"), small_disk / "e.nc")
    assert os.listdir(small_disk) == ["e.zarr"]


def fill(store):
    rng = np.random.default_rng(0)
    for member in store.members:
        store.write(0, member, {"x": rng.standard_normal((300, 300), np.float32)})


def big_template():
    return xr.Dataset({"x": (("lat", "lon"), nothing(300, 300))})
