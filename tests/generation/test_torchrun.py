"""One, two or four processes under torchrun make the same ensemble, to the byte."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.generation.test_kill import contents
from tests.tiny import tiny_data, tiny_experiment, write_experiment

ROOT = Path(__file__).parents[2]


def run(folder, *words):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_a_byte(tmp_path):
    settings = tiny_experiment(tiny_data(tmp_path / "data.nc"), tmp_path / "run", steps=2, validation_members=0)
    write_experiment(tmp_path / "experiment.yaml", settings)
    run(tmp_path, "sciffusion", "train", "experiment.yaml", "--no-progress")
    made = {}
    for count in (1, 2, 4):
        launcher = ("torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "sciffusion")
        words = ("generate", "run", "--members=7", "--device=cpu", f"--output={count}.zarr")
        run(tmp_path, *launcher, *words)
        made[count] = contents(tmp_path / f"{count}.zarr")
    assert made[1] == made[2] == made[4]
    assert len(made[1]) > 7
