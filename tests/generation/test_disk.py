"""A disk that fails while an ensemble is made: what is complete stays, and the same call goes on when it is mended."""

import os
import subprocess

import pytest

from sciffusion.errors import SciffusionError
from sciffusion.fields.ensemble import EnsembleStore
from tests.generation.fake import FakeEmulator, conditions
from tests.generation.runs import chunks, run

CASES, MEMBERS = 6, 12


def make(path, members=MEMBERS):
    return run(path, FakeEmulator(), conditions(CASES), members)


def test_a_full_disk_stops_the_run_which_goes_on_to_the_same_bytes_when_there_is_space(tmp_path, small_disk):
    path, ballast = small_disk / "e.zarr", small_disk / "ballast"
    ballast.write_bytes(bytes(3_600_000))
    with pytest.raises(SciffusionError, match=r"No space left on device(.|\n)*free some space"):
        make(path)
    store = EnsembleStore(path)
    assert 0 < store.completed().sum() < CASES * MEMBERS
    assert store.verify() == []
    ballast.unlink()
    assert chunks(make(path)) == chunks(make(tmp_path / "whole.zarr"))
    assert not list(path.rglob("*.partial"))


def test_a_disk_without_space_for_the_skeleton_is_left_clean(small_disk):
    (small_disk / "ballast").write_bytes(bytes(4 * 2**20 - 20_000))
    with pytest.raises(SciffusionError, match="No space left on device"):
        make(small_disk / "e.zarr")
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_a_disk_that_cannot_be_written_is_named_and_nothing_is_lost(small_disk):
    path = make(small_disk / "e.zarr", 2)
    before = chunks(path)
    if subprocess.run(["mount", "-o", "remount,ro", small_disk]).returncode:
        pytest.skip("no right to make a file system read-only here")
    for output in (path, small_disk / "new.zarr", small_disk / "new.nc"):
        with pytest.raises(SciffusionError, match=r"Read-only file system(.|\n)*can be written"):
            make(output, 3)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert before.items() <= chunks(make(path, 3)).items()


def test_a_corrupted_chunk_is_found_by_verify_and_made_again_by_the_next_run(tmp_path):
    path = make(tmp_path / "e.zarr", 3)
    before = chunks(path)
    chunk = path / "v/c/2/4/0/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 16
    chunk.write_bytes(bytes(data))
    faults = EnsembleStore(path).verify()
    assert [(fault.case, fault.member, fault.what) for fault in faults] == [(4, 2, "v/c/2/4/0/0 is damaged")]
    make(path, 3)
    assert chunks(path) == before
    assert EnsembleStore(path).verify() == []


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664)])
@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_files_have_the_users_umask_and_no_temporary_one_is_left(tmp_path, umask, mode, suffix):
    previous = os.umask(umask)
    try:
        make(tmp_path / f"e.{suffix}", 1)
    finally:
        os.umask(previous)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}
    assert [path.name for path in tmp_path.iterdir()] == [f"e.{suffix}"]
    assert [path.name for path in files if path.name.startswith(".") and path.name != ".lock"] == []
