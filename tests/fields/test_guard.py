"""A stranger's store cannot run code, lead out of its folder, or take memory that it did not declare."""

import json
import os
import tracemalloc

import numpy as np
import pytest
import xarray as xr
from google_crc32c import value as crc32c
from numcodecs import Zstd

from sciffusion.errors import SciffusionError
from sciffusion.fields.ensemble import EnsembleStore, open_ensemble
from sciffusion.fields.files import open_path
from sciffusion.fields.guard import check_zarr, frame_bytes
from sciffusion.fields.output import remove

SIZES = {"lat": 5, "lon": 7}


@pytest.fixture
def store(tmp_path):
    """A complete store of two members and two cases."""
    nothing = np.broadcast_to(np.float32(np.nan), (2, 5, 7))
    template = xr.Dataset({"u": (("time", "lat", "lon"), nothing)}, {"time": [0, 1], "lat": np.arange(5.0)})
    made = EnsembleStore.create(tmp_path / "e.zarr", template, [0, 1], ["time"], {"seed": 0})
    for case in range(2):
        for member in range(2):
            made.write(case, member, {"u": np.full((5, 7), case + member, np.float32)})
    made.finalise()
    return tmp_path / "e.zarr"


def edit(path, change):
    entry = json.loads(path.read_text())
    change(entry)
    path.write_text(json.dumps(entry))


@pytest.mark.parametrize("opened", [open_ensemble, EnsembleStore, lambda path: open_path(str(path))])
def test_names_that_climb_are_refused(store, opened):
    edit(store / "zarr.json", lambda e: e["consolidated_metadata"]["metadata"].update(
        {"../secret": e["consolidated_metadata"]["metadata"]["u"]}))  # fmt: skip
    with pytest.raises(SciffusionError, match=r"an array is called '\.\./secret'"):
        opened(store)


def test_pickled_data_of_an_older_zarr_are_refused(tmp_path):
    folder = tmp_path / "old.zarr"
    (folder / "x").mkdir(parents=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    array = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C", "fill_value": None}
    array |= {"compressor": None, "filters": [{"id": "pickle", "protocol": 5}]}
    (folder / "x/.zarray").write_text(json.dumps(array))
    (folder / "x/0").write_bytes(b"cos\nmkdir\n(V" + str(tmp_path / "ran").encode() + b"\ntR.")
    for opened in (open_ensemble, lambda path: open_path(str(path))):
        with pytest.raises(SciffusionError, match="pickled"):
            opened(folder)
    assert not (tmp_path / "ran").exists()


def test_pickled_data_are_refused_in_consolidated_metadata_too(store):
    def change(entry):
        entry["consolidated_metadata"]["metadata"]["u"]["codecs"].append({"name": "numcodecs.pickle"})

    edit(store / "zarr.json", change)
    with pytest.raises(SciffusionError, match="pickled"):
        open_ensemble(store)


@pytest.mark.parametrize("link", ["u", "u/c", "complete/.markers"])
def test_folders_that_are_links_to_elsewhere_are_refused(store, tmp_path, link):
    (store / link).rename(tmp_path / "elsewhere")
    (store / link).symlink_to(tmp_path / "elsewhere")
    for opened in (open_ensemble, EnsembleStore):
        with pytest.raises(SciffusionError, match="leads out of its store"):
            opened(store)


@pytest.mark.parametrize("link", ["u/c/1", "u/c/1/0", "complete/.markers/00000000"])
def test_nothing_is_read_or_written_through_a_deeper_link(store, tmp_path, link):
    outside = tmp_path / "elsewhere"
    (store / link).rename(outside)
    (store / link).symlink_to(outside)
    before = {file: file.read_bytes() for file in outside.rglob("*") if file.is_file()}
    opened = EnsembleStore(store)
    with pytest.raises(SciffusionError, match="leads out of its store"):
        opened.write(0, 1, {"u": np.zeros((5, 7), np.float32)})
    with pytest.raises(SciffusionError, match="leads out of its store"):
        open_ensemble(store).load() if link.startswith("u") else opened.withdraw(opened_faults(opened))
    opened.markers.sweep()
    assert {file: file.read_bytes() for file in outside.rglob("*") if file.is_file()} == before


def test_no_chunk_is_written_by_way_of_a_folder_elsewhere(store, tmp_path):
    """The folder where chunks wait until they are whole may be a link, too."""
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    opened = EnsembleStore(store)
    opened.markers.sweep()
    opened.markers.aside.symlink_to(outside)
    before = set(opened.markers.complete())
    with pytest.raises(SciffusionError, match="leads out of its store"):
        opened.write(0, 1, {"u": np.zeros((5, 7), np.float32)})
    assert set(opened.markers.complete()) == before


def opened_faults(store):
    from sciffusion.fields.markers import Fault

    return [Fault(0, 1, "it is said to be damaged")]


def test_links_within_the_folder_are_left_alone(store):
    (store / "u/c/1").rename(store / "u/moved")
    (store / "u/c/1").symlink_to(store / "u/moved")
    assert float(open_ensemble(store).u.sel(member=1)[0, 0, 0].load()) == 1.0


def test_a_chunk_that_expands_beyond_its_declared_size_is_not_expanded(store):
    frame = Zstd(level=1).encode(np.zeros(400 * 2**20, np.uint8))
    assert len(frame) < 2**17
    (store / "u/c/0/0/0/0").write_bytes(bytes(frame) + crc32c(bytes(frame)).to_bytes(4, "little"))
    ds = open_ensemble(store)
    tracemalloc.start()
    with pytest.raises(SciffusionError, match="would expand to 400 MiB"):
        ds.u.sel(member=0).load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20
    assert float(ds.u.sel(member=1)[0, 0, 0].load()) == 1.0


@pytest.mark.parametrize("size", [1, 40, 255, 256, 300, 70_000, 2**20])
def test_the_declared_size_of_a_frame_is_read_as_the_library_writes_it(size):
    assert frame_bytes(bytes(Zstd(level=1).encode(np.zeros(size, np.uint8)))[:18]) == size
    assert frame_bytes(b"something else") is None
    assert frame_bytes(b"\x28\xb5\x2f\xfd\x00\x58" + bytes(12)) == 2**63  # streamed: of unknown size


def test_sizes_that_memory_cannot_hold_are_refused_before_anything_is_read(store):
    def huge(entry):
        for own in (entry, (entry.get("consolidated_metadata") or {}).get("metadata", {}).get("lat")):
            if own and own.get("node_type") == "array":
                own["shape"], own["chunk_grid"]["configuration"]["chunk_shape"] = [10**13], [10**13]

    edit(store / "lat/zarr.json", huge)
    with pytest.raises(SciffusionError, match=r"a chunk of 74505\.8 GiB"):
        EnsembleStore(store)
    edit(store / "zarr.json", huge)
    with pytest.raises(SciffusionError, match=r"a chunk of 74505\.8 GiB"):
        open_ensemble(store)


def test_coordinates_that_memory_cannot_hold_are_refused(store):
    def many(entry):
        for own in (entry, (entry.get("consolidated_metadata") or {}).get("metadata", {}).get("height")):
            if own and own.get("node_type") == "array":
                own["shape"], own["dimension_names"] = [10**13], ["height"]

    (store / "height").mkdir()
    array = json.loads((store / "lat/zarr.json").read_text())
    (store / "height/zarr.json").write_text(json.dumps(array))
    edit(store / "zarr.json", lambda e: e["consolidated_metadata"]["metadata"].update(height=array))
    for path in (store / "height/zarr.json", store / "zarr.json"):
        edit(path, many)
    with pytest.raises(SciffusionError, match=r"a coordinate of 74505\.8 GiB"):
        open_ensemble(store)


def test_what_is_not_metadata_is_refused(store):
    (store / "zarr.json").write_text("[" * 100_000)
    with pytest.raises(SciffusionError, match="not valid JSON"):
        check_zarr(store)


def test_removing_a_link_leaves_what_it_leads_to(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    remove(tmp_path / "link")
    assert os.listdir(tmp_path) == ["data"]
    assert (tmp_path / "data/precious").read_text() == "x"
