"""A training that is killed and started again ends with bitwise the weights of an undisturbed one."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sciffusion.errors import SciffusionError
from tests.tiny import tiny_data, tiny_experiment, write_experiment

ROOT = Path(__file__).parents[2]


def command(path, program="sciffusion"):
    return [sys.executable, "-m", program, "train", str(path), "--no-progress"]


def run(path, **extra):
    env = {**os.environ, "OMP_NUM_THREADS": "1", **extra}
    return subprocess.run(command(path), cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def weights(folder):
    return load_file(folder / "emulator" / "weights.safetensors")


def metrics(folder):
    """Rows of the losses, at the steps at which a run is validated; a stop logs its last loss too."""
    with (folder / "metrics" / "denoiser" / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) % 10 == 0 or row["validation/loss"]]


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert value.equal(two[name]), name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    settings = tiny_experiment(tiny_data(folder / "data.nc"), folder / "run", steps=30, validate_every=10)
    done = run(write_experiment(folder / "experiment.yaml", settings))
    assert done.returncode == 0, done.stderr
    (folder / "said").write_text(done.stderr)
    return folder


def test_the_terminal_and_the_log_have_our_lines_only(undisturbed):
    said = (undisturbed / "said").read_text().splitlines()
    assert [line for line in said if not re.match(r"\d\d:\d\d:\d\d (INFO|WARNING) ", line)] == []
    assert any("step 30 of 30" in line for line in said)
    assert (undisturbed / "run" / "sciffusion.log").read_text().splitlines() == said


def interrupted(undisturbed, folder, number):
    """Start the same training elsewhere and send it ``number`` in its 13th step: there is a checkpoint of the tenth."""
    settings = tiny_experiment(undisturbed / "data.nc", folder / "run", steps=30, validate_every=10)
    path = write_experiment(folder / "experiment.yaml", settings)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(path, "tests.training.held"), cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True
    )
    while not list((folder / "run" / "checkpoints" / "denoiser").glob("step-000000010.ckpt")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    process.wait()
    return path, process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGUSR1])
def test_a_killed_training_resumes_to_the_same_bits(undisturbed, tmp_path, number):
    path, process = interrupted(undisturbed, tmp_path, number)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGUSR1: 85}[number]
    assert not (tmp_path / "run" / "emulator").exists()
    done = run(path)
    assert done.returncode == 0, done.stderr
    assert_same(weights(undisturbed / "run"), weights(tmp_path / "run"))
    assert [row["step"] for row in metrics(tmp_path / "run")] == ["10", "10", "20", "20", "30", "30"]
    assert metrics(tmp_path / "run") == metrics(undisturbed / "run")  # nothing lost, nothing twice, no odd validation


@pytest.mark.slow
def test_two_processes_train_together(undisturbed, tmp_path):
    settings = tiny_experiment(undisturbed / "data.nc", tmp_path / "run", steps=30, validate_every=10, devices=2)
    done = run(write_experiment(tmp_path / "experiment.yaml", settings))
    assert done.returncode == 0, done.stderr
    one, two = weights(undisturbed / "run"), weights(tmp_path / "run")
    assert one.keys() == two.keys()
    # the same data per step, other noise per process: the same problem, not the same weights
    moved = [(one[name] - two[name]).abs().max() for name in one if "network" in name]
    assert max(moved) > 0
    assert done.stdout.count("trained; next:") == 1
    assert [line for line in done.stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d INFO ", line)] == []
    assert [done.stderr.count(f"validation at step {step}") for step in (10, 20, 30)] == [1, 1, 1]


@pytest.mark.slow
def test_validation_shared_among_processes_finds_the_same_to_the_bit(undisturbed, tmp_path):
    found = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        settings = tiny_experiment(undisturbed / "data.nc", folder, steps=10, validate_every=10, devices=devices)
        settings["split"]["validation"] = [["2020-01-04T00:00", "2020-01-04T12:00"]]  # three cases
        settings["train"]["learning_rate"] = 1e-30  # no weight moves
        done = run(write_experiment(tmp_path / f"{devices}.yaml", settings))
        assert done.returncode == 0, done.stderr
        found.append([value for name, value in metrics(folder)[-1].items() if name.startswith("validation/")])
    assert found[0] == found[1]
    assert all(found[0])


def test_a_full_disk_leaves_the_last_checkpoint_and_the_same_command_goes_on(undisturbed, tmp_path, small_disk):
    (small_disk / "filler").write_bytes(bytes(4 * 2**20 - 450_000))  # room for one checkpoint of 260 kB
    settings = tiny_experiment(undisturbed / "data.nc", small_disk / "run", steps=30, validate_every=10)
    path = write_experiment(tmp_path / "experiment.yaml", settings)
    done = run(path)
    assert done.returncode == 2
    assert "No space left on device\n  -> free some space" in done.stderr
    checkpoints = small_disk / "run" / "checkpoints" / "denoiser"
    assert [file.name for file in checkpoints.iterdir()] == ["step-000000010.ckpt"]
    (small_disk / "filler").unlink()
    done = run(path)
    assert done.returncode == 0, done.stderr
    assert_same(weights(undisturbed / "run"), weights(small_disk / "run"))


def test_a_batch_that_processes_cannot_share_is_refused_before_anything_is_measured(undisturbed, tmp_path):
    from sciffusion.training.run import train

    with pytest.raises(SciffusionError, match="batch_size 4 is not a multiple of 3 processes"):
        train(tiny_experiment(undisturbed / "data.nc", tmp_path / "run", devices=3))
    assert not (tmp_path / "run").exists()


def test_a_run_folder_of_another_experiment_is_refused(undisturbed):
    from sciffusion.training.run import train

    settings = tiny_experiment(undisturbed / "data.nc", undisturbed / "run", steps=30, validate_every=10, seed=7)
    with pytest.raises(SciffusionError, match=r"train\.seed differs"):
        train(settings)
