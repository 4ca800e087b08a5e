"""Quality against time and precision: rows on a run of the family table, kept, scored against what is exact."""

import json
import math
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
    few += ["--minutes", "600"]
    assert len(script("quality.py", tmp_path, *few, "--out", "q.json")) == 4
    assert script("quality.py", tmp_path, *few, "--out", "q.json", "--plot", "q.png") == []
    known = json.loads((tmp_path / "q.json").read_text())
    assert known["exact"]["crps_ratio"] == 1
    calls = {name: row["calls"] for name, row in known["rows"].items()}
    assert calls == {"adams/1": 1, "adams/7": 7, "heun/1": 1, "heun/7": 7}
    assert known["rows"]["adams/1"]["ralsd"] > known["exact"]["ralsd"]  # one call gives the mean, which is smooth
    assert (tmp_path / "q.png").stat().st_size > 10_000


@pytest.mark.slow
def test_precisions_are_compared_from_the_same_noise(tmp_path):
    network = "stages.0.network={kind: dit, width: 64, depth: 2, heads: 2, patch: 8, embedding: 16}"
    toy = ["--toy", "--problem", "grf", "--recipes", "dit", "--set", network]
    script("families.py", tmp_path, *toy, "--work", "w", "--out", "o")
    few = ["w/runs/grf-dit-0", "--cases", "2", "--members", "4", "--out", "p.json"]
    assert len(script("precision.py", tmp_path, *few)) == 2
    assert script("precision.py", tmp_path, *few) == []
    rows = json.loads((tmp_path / "p.json").read_text())["rows"]
    fp8, half = (rows[f"grf-dit-0/{name}"] for name in ("fp8", "bfloat16"))
    assert (fp8["ran_in"], half["ran_in"]) == ("fp8", "bfloat16")
    assert 0 < half["apart"] < 0.1  # of the sd: the members are the same but for rounding
    assert 0 < fp8["apart"] < 0.1
    assert fp8["power_ratio"] != half["power_ratio"]
    assert (
        fp8["power_mean"]
        < fp8["power_most"]
        == pytest.approx(max(abs(math.log(r)) for r in fp8["power_ratio"]), abs=1e-5)
    )
