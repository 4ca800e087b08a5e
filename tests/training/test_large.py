"""A store of two terabytes, most of whose chunks are missing: it is opened and trained on in bounded memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.init_data import two_terabytes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SMALL = [
    "train.steps=50",
    "train.batch_size=2",
    "train.warmup=5",
    "train.validate_every=25",
    "train.validation_cases=2",
    "train.accelerator=cpu",
    "train.statistics_cases=32",
    "stages.denoiser.network.channels=16",
    "stages.denoiser.network.multipliers=[1, 2]",
    "stages.denoiser.network.blocks=1",
]


def sciffusion(*arguments, cwd):
    """Peak memory of the command in kB, its own processes included."""
    command = [sys.executable, "-W", "ignore", "-m", "sciffusion", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (cwd / "said").open("w+") as said:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (cwd / "said").read_text()
    return usage.ru_maxrss


def test_two_terabytes_are_opened_and_trained_on_below_three_gigabytes(tmp_path):
    store = two_terabytes(tmp_path / "fine.zarr")
    first = sciffusion("init", "--target", store, "--factor", 4, "-o", "experiment.yaml", cwd=tmp_path)
    overrides = [part for setting in SMALL for part in ("--set", setting)]
    second = sciffusion("train", "experiment.yaml", "--output", "run", "--no-progress", *overrides, cwd=tmp_path)
    assert max(first, second) < 3 * 2**20
    assert (tmp_path / "run/emulator/model.json").is_file()
