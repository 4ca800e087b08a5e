"""The turbulence benchmark at toy size: rows are made once, and networks are compared on the same samples."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(folder, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "turbulence.py"), "--toy", "--device", "cpu"]
    command += ["--work", str(folder / "work"), "--out", str(folder / "out"), *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_training_lowers_the_loss_and_rows_are_kept(tmp_path):
    small = ["--validation", "4", "--networks", "unet-toy,nonsense,dit-toy@1e-3"]
    assert len([line for line in script(tmp_path, *small, "--samples", "32") if line.startswith(("unet", "dit"))]) == 2
    script(tmp_path, "--validation", "4", "--networks", "unet-toy", "--samples", "1600")
    assert script(tmp_path, "--validation", "4", "--networks", "unet-toy", "--samples", "1600") == []
    rows = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    assert set(rows) == {"unet-toy-32-0", "dit-toy@1e-3-32-0", "unet-toy-1600-0"}
    # After one step both are what they started as, and the zero answer has loss 1 at any level.
    assert rows["unet-toy-32-0"]["loss"] == pytest.approx(rows["dit-toy@1e-3-32-0"]["loss"], rel=1e-3)
    assert rows["unet-toy-1600-0"]["loss"] < 0.95 * rows["unet-toy-32-0"]["loss"]
    assert len(script(tmp_path, "--table")) == 2 + 3
