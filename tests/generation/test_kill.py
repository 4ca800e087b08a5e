"""kill -9 at any moment loses at most the items in flight, and no reader ever takes a half-written one for whole."""

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
from tests.generation.fake import expected

ROOT = Path(__file__).parents[2]


def start(path, rounds, seed, delay):
    command = [sys.executable, "-m", "tests.generation.killed", str(path), str(rounds), str(seed), str(delay)]
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


def check_kills(tmp_path, rounds, seed, delay):
    truth = expected(members=range(killed.MEMBERS), cases=killed.CASES)
    path, polls, seen, bad = tmp_path / "e.zarr", 0, 0, 0
    program = start(path, rounds, seed, delay)
    while program.poll() is None:
        if is_ensemble_store(path):
            given, wrong = bad_items(path, truth)
            polls, seen, bad = polls + 1, max(seen, given), bad + wrong
        time.sleep(0.05)
    output, _ = program.communicate()
    assert program.returncode == 0
    assert int(output) >= rounds // 2, "too few processes were killed at work for the test to mean anything"
    assert polls >= 3
    assert seen > 0
    assert bad == 0
    store = EnsembleStore(path)
    assert store.completed().all()
    assert store.verify() == []
    for rank in range(killed.PROCESSES):
        run_alone(tmp_path / "whole.zarr", rank)
    assert contents(path) == contents(tmp_path / "whole.zarr")
    np.testing.assert_array_equal(open_ensemble(path).u.values, truth.u.values)
    assert not list(path.rglob("*.partial"))


def run_alone(path, rank):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            patch.setenv(name, "0")  # restored afterwards
        killed.generate(path, rank, 0.0)


def test_killed_processes_end_with_the_bytes_of_an_undisturbed_run(tmp_path):
    check_kills(tmp_path, rounds=5, seed=1, delay=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_many_times_over(tmp_path, seed):
    check_kills(tmp_path, rounds=20, seed=seed, delay=0.15)
