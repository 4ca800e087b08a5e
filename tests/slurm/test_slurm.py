"""Jobs as `sciffusion submit` writes them, in a real SLURM: preempted, asked to stop, killed, and whole in the end."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sciffusion.fields.ensemble import EnsembleStore, is_ensemble_store
from tests.generation.test_kill import contents
from tests.slurm.cluster import PROGRAMS, cluster, until
from tests.tiny import tiny_data, tiny_experiment, write_experiment
from tests.training.test_resume import assert_same, weights

ROOT = Path(__file__).parents[2]
GATE = Path(__file__).parent / "gate"  # holds the processes of jobs until they are asked to stop or the test opens it
STEPS = 200  # of the training
PATIENCE = 600.0  # seconds for a job, on a loaded machine
MISSING = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None]

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a SLURM of one's own needs root"),
]


@pytest.fixture(scope="module")
def slurm():
    with cluster() as one:
        yield one


def command(folder, *words, **variables):
    line = [sys.executable, "-m", "sciffusion", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def submit(slurm, folder, *words):
    """Number of the job."""
    options = ["--scheduler=slurm", "--partition=low", "--time=50min", "--now"]
    variables = slurm.variables | {"PYTHONPATH": f"{GATE}:{ROOT}"}
    return command(folder, "submit", *options, *words, **variables).split()[-1]


def open_gate(folder):
    (folder / "open").touch()


def log_of(folder):
    return "".join(path.read_text() for path in sorted(folder.glob("*.log")))


def wait(true, what, folder):
    def soon():
        assert "with status 1\n" not in log_of(folder), log_of(folder)[-3000:]
        return true()

    until(soon, what, folder, PATIENCE)


def finished(slurm, job):
    states = slurm.states(job)
    assert not set(states) & {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}, states
    return all(state == "COMPLETED" for state in states)


def processes(folder):
    """Processes of sciffusion that work in ``folder``, without srun, by the share of the array that they make."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            here = os.readlink(path / "cwd") == str(folder)
        except OSError:
            continue
        if here and Path(os.fsdecode(words[0])).name.startswith("python") and b"sciffusion" in words:
            share = words[words.index(b"--share") + 1] if b"--share" in words else path.name.encode()
            found[share.decode()] = int(path.name)
    return found


def experiment(data, folder):
    settings = tiny_experiment(data / "data.nc", folder / "run", steps=STEPS, validate_every=50, validation_members=0)
    write_experiment(folder / "experiment.yaml", settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder of two processes that nobody disturbed, and its experiment beside it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    tiny_data(folder / "data.nc")
    experiment(folder, folder)
    command(folder, "train", "experiment.yaml", "--no-progress", "--set=train.devices=2")
    return folder


def test_a_training_that_is_stopped_and_preempted_ends_with_the_same_weights(slurm, trained, tmp_path):
    experiment(trained, tmp_path)
    job = submit(slurm, tmp_path, "--processes=2", "train", "experiment.yaml", "--no-progress")
    wait(lambda: last_step(tmp_path) >= 50, "the first checkpoint", tmp_path)
    slurm.run("scancel", "--signal=USR1", job)
    wait(lambda: "status 85" in log_of(tmp_path), "the stop", tmp_path)
    stopped = last_step(tmp_path)
    assert stopped < STEPS
    wait(lambda: last_step(tmp_path) > stopped, "a checkpoint after the restart", tmp_path)
    preempt(slurm)
    wait(lambda: "restart 2" in log_of(tmp_path), "the second restart", tmp_path)
    open_gate(tmp_path)
    wait(lambda: finished(slurm, job), "the end", tmp_path)
    assert_same(weights(trained / "run"), weights(tmp_path / "run"))


def last_step(folder):
    return max((int(path.stem.removeprefix("step-")) for path in (folder / "run").rglob("step-*.ckpt")), default=0)


def preempt(slurm):
    """A job of high priority that wants the whole node for a moment."""
    slurm.run("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")


SAMPLING = ("--members=16", "--steps=8", "--batch-size=1", "--device=cpu", "--output=e.zarr")


@pytest.fixture(scope="module")
def whole(trained):
    """Bytes of an ensemble that one process made without disturbance."""
    command(trained, "generate", trained / "run", *SAMPLING)
    return contents(trained / "e.zarr")


def complete(store):
    return int(EnsembleStore(store).completed().sum()) if is_ensemble_store(store) else 0


def test_an_array_that_is_preempted_stopped_and_killed_ends_with_the_same_bytes(slurm, trained, whole, tmp_path):
    store = tmp_path / "e.zarr"
    job = submit(slurm, tmp_path, "--array=4", "generate", trained / "run", *SAMPLING)
    wait(lambda: complete(store) == 4, "an item of every task", tmp_path)
    preempt(slurm)
    wait(lambda: log_of(tmp_path).count("are complete already") == 4, "every task again", tmp_path)
    assert complete(store) < len_of(whole)
    running = processes(tmp_path)
    os.kill(running["0/4"], signal.SIGKILL)
    os.kill(running["1/4"], signal.SIGUSR1)
    open_gate(tmp_path)
    wait(lambda: finished(slurm, job), "the end", tmp_path)
    logs = log_of(tmp_path)
    assert "restart 1" in logs
    assert "status 137" in logs
    assert "status 85" in logs
    assert contents(store) == whole
    assert EnsembleStore(store).verify() == []


def len_of(whole):
    return sum(".json" in name for name in whole)


def test_torchrun_in_a_job_is_stopped_by_the_warning_and_goes_on(slurm, trained, whole, tmp_path):
    store = tmp_path / "e.zarr"
    options = ("--launcher=torchrun", "--processes=2")
    job = submit(slurm, tmp_path, *options, "generate", trained / "run", *SAMPLING)
    wait(lambda: complete(store) == 2, "an item of every process", tmp_path)
    slurm.run("scancel", "--batch", "--signal=USR1", job)  # as --signal=B:USR1@300 does in time
    wait(lambda: "status 85" in log_of(tmp_path), "the stop", tmp_path)
    assert 2 <= complete(store) < len_of(whole)
    open_gate(tmp_path)
    wait(lambda: finished(slurm, job), "the end", tmp_path)
    assert "restart 1" in log_of(tmp_path)
    assert contents(store) == whole
