"""A signal at any moment loses at most the items in flight, and no reader ever takes a half-written one for whole."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sciffusion.errors import SciffusionError
from sciffusion.fields.ensemble import EnsembleStore, is_ensemble_store, open_ensemble
from tests.generation import killed
from tests.generation.fake import FakeEmulator, conditions, expected
from tests.generation.runs import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The store of one process that nothing disturbs."""
    path = tmp_path_factory.mktemp("undisturbed") / "e.zarr"
    return run(path, FakeEmulator(), conditions(killed.CASES), killed.MEMBERS)


def start(path, *arguments):
    command = [sys.executable, "-m", "tests.generation.killed", str(path), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def bad_items(path, truth):
    """Number of items that a reader is given, and of those that are not what the emulator drew."""
    try:
        ds = open_ensemble(path, partial=True).load(scheduler="synchronous")
    except SciffusionError as error:
        return 0, int("no member is complete" not in str(error))
    good = (ds.u == truth.u.sel(member=ds.member).values) & (ds.v == truth.v.sel(member=ds.member).values)
    whole = good.all(["lat", "lon"]).values
    return int(ds.complete.sum()), int((ds.complete.values & ~whole).sum())


def contents(path):
    """Bytes of all chunks and markers."""
    files = [file for file in path.rglob("*") if file.is_file() and file.name not in {"zarr.json", ".lock"}]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def check_ends(tmp_path, undisturbed, *arguments):
    """Disturb and poll, until something was seen and the last processes may go on; the ends of the others."""
    truth = expected(members=range(killed.MEMBERS), cases=killed.CASES)
    path, polls, seen, bad = tmp_path / "e.zarr", 0, 0, 0
    program = start(path, *arguments)
    while program.poll() is None:
        if is_ensemble_store(path):
            given, wrong = bad_items(path, truth)
            polls, seen, bad = polls + 1, max(seen, given), bad + wrong
        if polls >= 3 and seen > 0:
            (tmp_path / "open").touch()
        time.sleep(0.4)
    output, _ = program.communicate()
    assert program.returncode == 0
    assert bad == 0
    store = EnsembleStore(path)
    assert store.completed().all()
    assert store.verify() == []
    assert contents(path) == contents(undisturbed)
    np.testing.assert_array_equal(open_ensemble(path).u.values, truth.u.values)
    assert not list(path.rglob("*.partial"))
    return output.split()


def test_twenty_killed_processes_end_with_the_bytes_of_an_undisturbed_run(tmp_path, undisturbed):
    ends = check_ends(tmp_path, undisturbed, "SIGKILL", 20, 1)
    assert len(ends) >= 20
    assert set(ends) == {"killed"}


def test_processes_that_are_asked_to_stop_do_so_and_lose_nothing(tmp_path, undisturbed):
    ends = check_ends(tmp_path, undisturbed, "SIGTERM", 8, 2)
    assert ends.count("stopped") >= 6  # of every round one may be asked before it can answer
    assert set(ends) <= {"stopped", "killed"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_many_times_over(tmp_path, undisturbed, seed):
    assert set(check_ends(tmp_path, undisturbed, "SIGKILL", 20, 10 + seed)) == {"killed"}
