"""Ensembles on GPUs: the same bytes again, after a kill, and from two GPUs under torchrun."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.config import load_experiment
from sciffusion.datasets.pairs import open_experiment
from sciffusion.emulator import Emulator, load
from sciffusion.execution.transfer import to_device
from sciffusion.fields.ensemble import EnsembleStore, open_ensemble
from sciffusion.generation import generate
from sciffusion.stages import base
from sciffusion.stages.ahead import Ahead, Batch
from sciffusion.stages.build import build_stage
from sciffusion.stages.items import Item
from tests.generation.test_kill import contents
from tests.tiny import tiny_data, tiny_experiment, write_experiment

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
CASES = {"time": slice("2020-01-02", "2020-01-02")}  # four
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An emulator with an untrained network whose answers are not zero, beside its data."""
    folder = tmp_path_factory.mktemp("gpu")
    settings = tiny_experiment(tiny_data(folder / "data.nc"), folder / "run")
    experiment = load_experiment(write_experiment(folder / "experiment.yaml", settings))
    torch.manual_seed(0)
    stage = build_stage(experiment.stages[0], experiment, open_experiment(experiment), {})
    for parameter in stage.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    Emulator([stage], {"recipe": "edm"}).save(folder / "emulator")
    return folder


def make(folder, store, members, solver="dpmpp-2m", device="cuda", **options):
    import xarray as xr

    emulator = load(folder / "emulator")
    sampler = emulator.sampler(solver)
    options = {"device": device, "batch_size": 8, "progress": False, "cases": CASES, "sampler": sampler} | options
    with xr.open_dataset(folder / "data.nc") as data:
        return generate(emulator, data, store, members, **options)


def command(folder, store, members, *launcher):
    words = [sys.executable, *launcher, "-m", "sciffusion", "generate", str(folder / "emulator")]
    words += ["--conditions", str(folder / "data.nc"), "--select", "time=2020-01-02/2020-01-02"]
    words += ["--output", str(store), "--members", str(members), "--solver", "dpmpp-2m", "--batch-size", "8"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([*words, "--device", "cuda", "--quiet"], cwd=ROOT, env=environment)


def test_noise_is_bitwise_that_of_the_cpu(folder, monkeypatch):
    import xarray as xr

    emulator = load(folder / "emulator")
    with xr.open_dataset(folder / "data.nc") as data:
        check = emulator.check(data, CASES)
        items = [Item(emulator.stage.prepare(check.conditions, check.cases[0]), member) for member in range(5)]
    expected = emulator.stage.noise(items, seed=3, step=2, stream="solver")
    emulator.stage.to("cuda")
    with ThreadPoolExecutor(3) as pool:
        noise = emulator.stage.noise(Batch(items, Ahead(pool, 3)), seed=3, step=2, stream="solver")
        assert noise.is_cuda
        assert torch.equal(noise.cpu(), expected)
        monkeypatch.setattr(base, "draws_noise", lambda device: False)
        noise = emulator.stage.noise(Batch(items, Ahead(pool, 3)), seed=3, step=2, stream="solver")
    assert noise.is_pinned()
    assert torch.equal(to_device(noise, torch.device("cuda")).cpu(), expected)


@pytest.mark.parametrize("options", [{}, {"time_coherence": "0.5"}])
def test_members_are_the_same_whoever_draws_their_noise(folder, tmp_path, monkeypatch, options):
    there = make(folder, tmp_path / "there.zarr", 12, "dpmpp-2m-sde", **options)
    monkeypatch.setattr(base, "draws_noise", lambda device: False)
    here = make(folder, tmp_path / "here.zarr", 12, "dpmpp-2m-sde", **options)
    assert contents(here) == contents(there)


@pytest.mark.parametrize("solver", ["dpmpp-2m", "dpmpp-2m-sde"])
def test_the_same_bytes_twice_and_in_another_order(folder, tmp_path, solver):
    once = make(folder, tmp_path / "once.zarr", 12, solver)
    assert contents(make(folder, tmp_path / "again.zarr", 12, solver)) == contents(once)
    parts = make(folder, tmp_path / "parts.zarr", [3, 7], solver)
    make(folder, parts, 12, solver)
    np.testing.assert_array_equal(open_ensemble(parts).sel(member=range(12)).a, open_ensemble(once).a)


def test_float32_members_are_those_of_the_cpu_up_to_rounding(folder, tmp_path):
    there = open_ensemble(make(folder, tmp_path / "gpu.zarr", 4, precision="float32")).load()
    here = open_ensemble(make(folder, tmp_path / "cpu.zarr", 4, device="cpu")).load()
    for name in there.data_vars:
        assert float(abs(there[name] - here[name]).max()) < 1e-4 * float(here[name].std())


def test_resumed_after_a_kill_it_is_what_an_undisturbed_run_writes(folder, tmp_path):
    whole = make(folder, tmp_path / "whole.zarr", 300)
    killed, deadline = tmp_path / "killed.zarr", time.monotonic() + 120
    with command(folder, killed, 300) as process:
        while process.poll() is None and time.monotonic() < deadline and not marked(killed):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    made = marked(killed)
    assert 0 < made < 1200, "it was killed at work"
    make(folder, killed, 300)
    assert contents(killed) == contents(whole)
    assert EnsembleStore(killed).verify() == []


def marked(store):
    return sum(1 for _ in store.glob("complete/.markers/*/*.json"))


@two_gpus
def test_two_gpus_under_torchrun_make_the_ensemble_of_one(folder, tmp_path):
    one = make(folder, tmp_path / "one.zarr", 30)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    with command(folder, tmp_path / "two.zarr", 30, *launcher) as process:
        assert process.wait(timeout=180) == 0
    assert contents(tmp_path / "two.zarr") == contents(one)


@two_gpus
def test_a_gpu_that_is_not_the_current_one_makes_the_same(folder, tmp_path):
    first, second = (make(folder, tmp_path / f"{n}.zarr", 8, device=f"cuda:{n}") for n in (0, 1))
    assert contents(second) == contents(first)
    torch.cuda.set_device(0)
    emulator = load(folder / "emulator")
    import xarray as xr

    with xr.open_dataset(folder / "data.nc") as data:
        one, other = (emulator.sample(data, 4, cases=CASES, device=f"cuda:{n}", batch_size=8) for n in (0, 1))
    np.testing.assert_array_equal(one.a, other.a)
