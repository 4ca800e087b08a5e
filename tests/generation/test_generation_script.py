"""The benchmark of generation at toy size: every row is there, and its stores are complete."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(*arguments):
    command = [sys.executable, "benchmarks/generation.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :])


def test_every_row_is_measured_at_toy_size(tmp_path):
    size = ["--network", "tiny", "--side", "16", "--variables", "2", "--members", "3", "--cases", "2", "--steps", "3"]
    rows = script(*size, "--one-case", "4", "--obvious-cases", "1", "--budget", "0.1", "--device", "cpu")
    assert rows["engine"]["faults"] == 0
    assert 0 < rows["engine"]["share"] < 1.5
    assert rows["engine"]["members_per_s"] == pytest.approx(6 / rows["engine"]["seconds"], rel=0.01)
    assert 0 < rows["cold"]["generate_s"] < rows["cold"]["verified_s"]
    if importlib.util.find_spec("diffusers") is None:
        assert rows["obvious"] == {"error": "diffusers is not installed"}
    else:
        assert rows["obvious"]["members_per_s"] > 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_cases():
    """1000 members of 4 x 64 x 64 in float32: one case is 62 MiB, four are 250 MiB; kept are some batches only."""
    row = script("--memory")["memory"]
    assert row["members"] == 1000
    assert row["4_cases_mib"] < row["1_cases_mib"] + 20
