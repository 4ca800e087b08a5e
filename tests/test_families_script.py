"""The family table's script at toy size: a row is made once, with numbers that belong together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(folder, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "families.py"), "--work", str(folder / "work")]
    command += ["--out", str(folder / "out"), "--device", "cpu", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_row_is_made_once_and_compared_with_the_exact_answer(tmp_path):
    small = ["--set", "stages.0.network.channels=8", "--set", "stages.0.network.multipliers=[1,2]"]
    printed = script(tmp_path, "--toy", "--problem", "grf", "--recipes", "edm", *small)
    assert printed.startswith("| edm | ")
    (path,) = (tmp_path / "out").glob("*.json")
    row = json.loads(path.read_text())
    assert (row["problem"], row["recipe"], row["seed"], row["members"], row["cases"]) == ("grf", "edm", 0, 4, 4)
    assert row["calls_per_member"] == 20
    assert row["crps_ratio"] > 1  # nothing beats the exact posterior by more than chance, a toy least of all
    assert row["yardstick_ralsd"] < row["ralsd"]
    assert script(tmp_path, "--toy", "--problem", "grf", "--recipes", "edm", *small) == ""
    assert "| edm | " in script(tmp_path, "--table")
