"""What is published is whole or absent, whoever else writes and whatever goes wrong."""

import multiprocessing
import os

import pytest

from sciffusion import caches


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(caches.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_variable_moves_the_cache(cache):
    assert caches.cache_folder("packed") == cache / "packed"
    assert (cache / "packed").is_dir()


def test_the_default_is_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(caches.VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert caches.cache_folder() == tmp_path / ".cache" / "sciffusion"


def test_nothing_is_there_until_the_block_ends(cache):
    path = caches.cache_folder() / "entry"
    with caches.publish(path) as made:
        made.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(cache) == ["entry"]


def test_a_failure_leaves_the_previous_entry_and_no_rubbish(cache):
    path = caches.cache_folder() / "entry"
    path.write_text("old")

    def fill_the_disk():
        with caches.publish(path) as made:
            made.write_text("half")
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        fill_the_disk()
    assert path.read_text() == "old"
    assert os.listdir(cache) == ["entry"]


def write_folder(path, number):
    for _ in range(20):
        with caches.publish(path) as made:
            made.mkdir()
            for name in "abc":
                (made / name).write_text(str(number))


def test_a_folder_that_several_processes_publish_is_whole(cache):
    path = caches.cache_folder() / "folder"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_folder, args=(path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len({(path / name).read_text() for name in "abc"}) == 1
    assert os.listdir(cache) == ["folder"]
