"""Several processes on one store, on several kinds of devices: who makes what, how, and what is refused."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.ensemble import EnsembleStore, open_ensemble
from sciffusion.fields.locks import held
from sciffusion.fields.markers import FOLDER
from sciffusion.generation import engine, sizing
from sciffusion.generation.processes import Process
from sciffusion.generation.sizing import choose_batch
from tests.generation.fake import FakeEmulator, conditions, expected
from tests.generation.runs import as_process, fields, run


def test_several_processes_share_the_items_and_the_last_one_finalises(tmp_path, monkeypatch):
    path, drawn = tmp_path / "e.nc", []
    monkeypatch.setattr(Process, "others", lambda self: [])  # as if the others were at work
    for rank in (0, 2, 1):
        as_process(monkeypatch, rank, 3)
        emulator = FakeEmulator()
        assert not path.exists()
        run(path, emulator)
        drawn += emulator.drawn
    assert sorted(drawn) == [(case, member) for case in range(4) for member in range(3)]
    xr.testing.assert_equal(fields(path).drop_vars(["lat", "lon"]), expected())


def test_a_process_that_is_done_takes_over_the_shares_of_dead_ones_only(tmp_path, monkeypatch):
    path, first, last = tmp_path / "e.zarr", FakeEmulator(fail_after=3), FakeEmulator()
    as_process(monkeypatch, 0, 3)
    with pytest.raises(KeyboardInterrupt):
        run(path, first)
    with EnsembleStore(path).claim("2-of-3", own=True) as alive:
        assert alive
        run(path, last)
    made = set(first.drawn + last.drawn)
    assert made == {(case, member) for case in range(4) for member in range(3) if (case + member) % 3 != 2}
    assert int(EnsembleStore(path).completed().sum()) == 8
    as_process(monkeypatch, 2, 3)
    run(path)
    xr.testing.assert_equal(fields(path).drop_vars(["lat", "lon"]), expected())
    assert not list(path.rglob(".*.lock"))


def test_nobody_waits_for_a_first_process_that_does_not_come(tmp_path, monkeypatch):
    as_process(monkeypatch, 2, 3)
    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda seconds: pytest.fail("it waits"))
    monkeypatch.setattr("sciffusion.generation.target.time", clock)
    run(tmp_path / "e.zarr")
    assert EnsembleStore(tmp_path / "e.zarr").completed().all()


def test_a_process_waits_while_another_one_begins_the_store(tmp_path, monkeypatch):
    as_process(monkeypatch, 0, 2)
    monkeypatch.setattr("sciffusion.generation.target._PATIENCE", 0.5)
    with (
        held(tmp_path / ".e.zarr.lock", without_locks=False),
        pytest.raises(SciffusionError, match="another process has not begun it"),
    ):
        run(tmp_path / "e.zarr")
    assert os.listdir(tmp_path) == [".e.zarr.lock"]
    run(tmp_path / "e.zarr")
    assert os.listdir(tmp_path) == ["e.zarr"]


def test_a_process_leaves_its_share_to_the_one_that_took_it_over(tmp_path, monkeypatch):
    path, again = run(tmp_path / "e.zarr"), FakeEmulator()
    with EnsembleStore(path).claim("0-of-1", own=True):
        run(path, again, members=5)
    assert again.drawn == []
    assert not EnsembleStore(path).completed().all()


@pytest.fixture
def elsewhere(monkeypatch):
    """As on another device model."""
    monkeypatch.setattr("sciffusion.generation.identity.device_model", lambda device: "another CPU")


def test_going_on_elsewhere_has_to_be_allowed_and_is_recorded(tmp_path, monkeypatch, request):
    path = tmp_path / "e.zarr"
    with pytest.raises(KeyboardInterrupt):
        run(path, FakeEmulator(fail_after=6))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    request.getfixturevalue("elsewhere")
    with pytest.raises(SciffusionError, match=r"device: '.*' in the store, 'another CPU' now(.|\n)*--allow-mixed"):
        run(path)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    run(path, allow_mixed=True, batch_size=2)
    xr.testing.assert_equal(fields(path).drop_vars(["lat", "lon"]), expected())
    status = EnsembleStore(path).status()
    assert {(entry["device"], entry["batch_size"]) for entry in status.executions} == {
        (status.identity["execution"]["device"], 3),
        ("another CPU", 2),
    }
    markers = [json.loads(file.read_text())["execution"] for file in (path / FOLDER).glob("0*/*.json")]
    assert sorted(map(markers.count, set(markers))) == [6, 6]
    assert json.loads(open_ensemble(path).attrs["sciffusion_executions"]) == status.executions


def test_elsewhere_a_complete_ensemble_is_complete_until_an_item_is_damaged(tmp_path, request):
    path, again = run(tmp_path / "e.zarr"), FakeEmulator()
    request.getfixturevalue("elsewhere")
    run(path, again)
    assert again.drawn == []
    (path / "u/c/1/2/0/0").write_bytes(b"")
    with pytest.raises(SciffusionError, match="--allow-mixed"):
        run(path, again)
    with pytest.raises(SciffusionError, match="--allow-mixed"):
        run(path, again, members=5)
    assert EnsembleStore(path).members == [0, 1, 2]


def test_running_out_of_memory_in_the_middle_keeps_what_is_complete(tmp_path):
    path, emulator = tmp_path / "e.zarr", FakeEmulator(fail_after=6, error=torch.OutOfMemoryError("CUDA"))
    with pytest.raises(SciffusionError, match="out of memory with 3 items per network call"):
        run(path, emulator)
    assert EnsembleStore(path).completed().sum() == 6
    assert EnsembleStore(path).verify() == []


def limited(most):
    """A network call that has memory for ``most`` items."""
    sizes = []

    def call(size):
        sizes.append(size)
        if size > most:
            raise torch.OutOfMemoryError("CUDA")

    return call, sizes


def test_the_micro_batch_is_what_fits_and_wastes_little_on_padding(monkeypatch):
    gpu, fits = torch.device("cuda"), 32
    monkeypatch.setattr("sciffusion.generation.sizing.microbatch", lambda call, device, most: fits)
    assert choose_batch(limited(99)[0], gpu, items=33) == 17
    assert choose_batch(limited(99)[0], gpu, items=1000) == 32
    assert choose_batch(limited(99)[0], gpu, items=5) == 5
    call, sizes = limited(9)
    assert choose_batch(call, gpu, items=1000) == 8
    assert sizes == [32, 16, 8]
    monkeypatch.setattr("sciffusion.generation.sizing.microbatch", lambda call, device, most: most)
    assert choose_batch(limited(999)[0], gpu, items=10_000, cells=256 * 256) == 32
    assert choose_batch(limited(999)[0], gpu, items=10_000, cells=10**7) == 1
    assert choose_batch(call, torch.device("cpu"), items=1000) == 4
    with pytest.raises(SciffusionError, match="out of memory with 1 items"):
        choose_batch(limited(0)[0], gpu, items=1000)
    with pytest.raises(SciffusionError, match=r"out of memory with 64 items per network call(.|\n)*--batch-size"):
        choose_batch(call, gpu, items=1000, asked=64)


@pytest.mark.parametrize(
    ("environment", "process"),
    [
        ({}, Process(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Process(3, 4, 1)),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "2"}, Process(2, 8, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, Process(0, 1, 0)),  # a batch script, not an srun step
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, Process(1, 2, 0)),
    ],
)
def test_the_launcher_says_which_process_this_is(environment, process):
    assert Process.here(environment) == process


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_item_has_one_maker_and_work_is_even(size):
    items = [(case, member) for case in range(21) for member in range(4)]
    shares = [[item for item in items if Process(rank, size).mine(*item)] for rank in range(size)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 4


@pytest.mark.parametrize(
    ("name", "process", "expected"),
    [
        (None, Process(), "cuda:0"),
        (None, Process(3, 8, 3), "cuda:1"),
        ("cuda", Process(1, 2, 1), "cuda:1"),
        ("cuda:0", Process(1, 2, 1), "cuda:0"),
        ("cpu", Process(1, 2, 1), "cpu"),
    ],
)
def test_every_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch, name, process, expected):
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    device = engine._device(name, process)
    assert device == torch.device(expected)
    assert current == ([] if expected == "cpu" else [device])


@pytest.mark.parametrize(
    ("device", "precision", "compiled"), [("cuda", "fp8", True), ("cuda", "bfloat16", False), ("cpu", "fp8", False)]
)
def test_fp8_is_compiled_on_a_gpu_however_short_the_job(monkeypatch, device, precision, compiled):
    monkeypatch.setattr(sizing, "_trial", lambda *_: None)
    emulator, settings = FakeEmulator(), {"device": device, "precision": precision, "sampler": None}
    found = sizing.chosen(emulator, emulator.check(conditions()), 4, 2, settings)
    assert found == {"precision": precision, "compiled": compiled, "batch_size": 2}
