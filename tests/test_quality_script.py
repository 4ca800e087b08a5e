"""Quality against time: rows of solvers on a run of the family table, kept, scored against the exact posterior."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(name, folder, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / name), "--device", "cpu", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_rows_are_kept_and_compared_with_the_exact_posterior(tmp_path):
    toy = ["--toy", "--set", "stages.0.network.channels=8", "--set", "stages.0.network.multipliers=[1,2]"]
    script("families.py", tmp_path, *toy, "--problem", "grf", "--recipes", "edm", "--work", "w", "--out", "o")
    few = ["w/runs/grf-edm-0", "--cases", "2", "--members", "4", "--solvers", "adams,heun", "--calls", "1,7"]
    assert len(script("quality.py", tmp_path, *few, "--out", "q.json")) == 4
    assert script("quality.py", tmp_path, *few, "--out", "q.json", "--plot", "q.png") == []
    known = json.loads((tmp_path / "q.json").read_text())
    assert known["exact"]["crps_ratio"] == 1
    calls = {name: row["calls"] for name, row in known["rows"].items()}
    assert calls == {"adams/1": 1, "adams/7": 7, "heun/1": 1, "heun/7": 7}
    assert known["rows"]["adams/1"]["ralsd"] > known["exact"]["ralsd"]  # one call gives the mean, which is smooth
    assert (tmp_path / "q.png").stat().st_size > 10_000
