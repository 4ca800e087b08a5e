"""The speed script at toy size: rows are complete, consistent, kept, and not measured twice."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def script(out, *arguments):
    command = [sys.executable, "benchmarks/speed.py", "--toy", "--device", "cpu", "--out", str(out), *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_rows_are_measured_once_and_resumed(tmp_path):
    out = tmp_path / "speed.json"
    assert len(script(out, "--rows", "call/").splitlines()) == 4
    (machine,) = json.loads(out.read_text())
    assert torch.__version__ in machine
    first = json.loads(out.read_text())[machine]
    assert len(script(out, "--train").splitlines()) == 6  # sample, grid and training rows; the others are there
    table = json.loads(out.read_text())[machine]
    assert {name: row for name, row in table["rows"].items() if name in first["rows"]} == first["rows"]
    assert [name for name, row in table["rows"].items() if "error" in row] == []
    for name, row in table["rows"].items():
        assert row["fields_per_s"] == pytest.approx(row["batch"] / row["seconds"], rel=1e-3), name
    call, sample = (
        table["rows"][f"{task}/unet-toy/16/b2/{mode}"] for task, mode in (("call", "bf16"), ("sample", "loop"))
    )
    assert call["ceiling_share"] > 0
    assert call["seconds"] < sample["seconds"]  # of 18 calls
    assert table["rows"]["call/unet-toy/16/bmax/eager"]["batch"] == 4


def test_a_task_that_fails_or_hangs_costs_its_own_time_only():
    """Errors and limits are results of one task; the next one runs, in a new process after either."""
    code = (
        "import sys, time; sys.path.insert(0, 'benchmarks')\n"
        "from speed_workers import perform\n"
        "from tests.execution.tasks import act\n"
        "end = time.monotonic() + 200\n"
        "print(dict(perform(act, ['a', 'raise', 'hang', 'die', 'b'], workers=1, limit=12, until=end)))\n"
        "start = time.monotonic()\n"
        "late = dict(perform(act, ['hang'], workers=1, limit=60, until=start + 3))\n"
        "print(late, time.monotonic() - start < 60)\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    results, late = done.stdout.splitlines()
    found = ast.literal_eval(results)
    assert found["a"] == {"done": "a"}
    assert found["b"] == {"done": "b"}
    assert found["raise"] == {"error": "ValueError: told to"}
    assert found["hang"] == {"error": "took more than 12 s"}
    assert found["die"] == {"error": "its process ended with code 3"}
    assert late == "{} True"


def test_the_list_names_the_peers_and_all_sizes():
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "benchmarks/speed.py", "--list", "--train"]
    names = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    for part in ("physicsnemo-songunet/256/b16", "diffusers-unet2d", "unet-10", "dit-100", "/512/bmax/", "train/"):
        assert part in names


def test_the_page_shows_what_was_measured():
    """Every line of its tables of networks is one of the table that the script makes of the committed results."""
    command = [sys.executable, "benchmarks/speed.py", "--table"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "performance.md").read_text()
    shown = [line for line in page.splitlines() if line.startswith(("| call/", "| sample/", "| train/", "| grid/"))]
    assert len(shown) > 10
    assert set(shown) <= set(made.splitlines())
