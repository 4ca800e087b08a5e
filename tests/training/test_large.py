"""A store of two terabytes, most of whose chunks are missing: it opens at once and trains in bounded memory."""

import os
import resource
import subprocess
import sys
import time
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
    command = [sys.executable, "-W", "ignore", "-m", "sciffusion", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_terabytes_open_in_a_minute_and_train_below_three_gigabytes(tmp_path):
    store = two_terabytes(tmp_path / "fine.zarr")
    start = time.monotonic()
    sciffusion("init", "--target", store, "--factor", 4, "-o", "experiment.yaml", cwd=tmp_path)
    assert time.monotonic() - start < 60
    overrides = [part for setting in SMALL for part in ("--set", setting)]
    sciffusion("train", "experiment.yaml", "--output", "run", "--no-progress", *overrides, cwd=tmp_path)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 3 * 2**20  # kB; the largest child so far
    assert (tmp_path / "run/emulator/model.json").is_file()
