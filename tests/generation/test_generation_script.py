"""The benchmark of generation at toy size: every row is there, and its stores are complete."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(*arguments, code=0):
    command = [sys.executable, "benchmarks/generation.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :])


def agree(one, other, product):
    """Whether they do, where all three are rounded to three digits after the point."""
    return one * other == pytest.approx(product, abs=0.00051 * (1 + one + other))


def test_every_row_is_measured_at_toy_size_and_kept(tmp_path):
    size = ["--network", "tiny", "--side", "16", "--variables", "2", "--members", "3", "--cases", "2", "--steps", "3"]
    options = [*size, "--one-case", "4", "--budget", "0.1", "--device", "cpu", "--out", str(tmp_path / "rows.json")]
    options += ["--limit", "6000"]
    rows = script(*options, "--rows", "engine", "one", "cold", "host")
    engine, one, cold, host = (rows[name] for name in ("engine", "one", "cold", "host"))
    assert engine["faults"] == 0
    assert agree(engine["share"], engine["network_members_per_s"], engine["members_per_s"])
    assert agree(engine["members_per_s"], engine["seconds"], 6)
    assert one["faults"] == 0
    assert agree(one["members_per_s"], one["seconds"], 4)
    assert 0 < cold["generate_s"] <= cold["verified_s"]
    assert agree(host["members_per_s"], host["pretended_ms"] / 1000, host["share"])
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    kept = script(*options, "--rows", "engine", "host", "--limit", "1")  # no time to make them again
    assert kept == rows


def test_a_row_that_takes_too_long_is_an_error_and_the_others_go_on(tmp_path):
    size = ["--network", "tiny", "--side", "16", "--variables", "2", "--members", "3", "--cases", "2", "--device=cpu"]
    rows = script(*size, "--rows", "host", "obvious", "--pretend", "60000", "--limit", "12", code=1)
    assert "no time was left" in rows["host"]["error"]  # ended, or on a busy machine not begun
    assert "error" in rows["obvious"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_cases():
    """1000 members of 4 x 64 x 64 in float32: one case is 62 MiB, four are 250 MiB; kept are some batches only."""
    row = script("--memory")["memory"]
    assert row["members"] == 1000
    assert row["4_cases_mib"] < row["1_cases_mib"] + 20
