"""The benchmark of the demo's network at toy size: a trained emulator beats one after two steps, and rows are kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(out, *arguments):
    command = [sys.executable, "benchmarks/demo_network.py", "--toy", "--device", "cpu", "--out", str(out), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_candidates_are_scored_like_the_shipped_emulator(tmp_path):
    options = ["--networks", "weights,lean", "--calls", "2", "--splits", "validation"]
    assert len(script(tmp_path, *options)) == 2
    rows = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    shipped, lean = rows["weights-0-2-validation"], rows["lean-0-2-validation"]
    assert shipped["mean_ratio"] < lean["mean_ratio"]
    assert shipped["mean_ratio"] == pytest.approx(sum(shipped["ratio"].values()) / 3, abs=1e-4)
    assert shipped["solver"] == lean["solver"]
    assert script(tmp_path, *options) == []
    *_, first, last = script(tmp_path, "--table")
    assert [line.split(" | ")[1] for line in (first, last)] == ["weights, 0", "lean, 0"]
