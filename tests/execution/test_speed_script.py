"""The speed script at toy size: rows are complete, consistent, kept, and not measured twice."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def python(*words, **variables):
    """What Python prints, run from the root of the repository."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def script(out, *arguments):
    patient = ("--minutes", "600", "--limit", "6000")
    return python("benchmarks/speed.py", "--toy", "--device", "cpu", *patient, "--out", str(out), *arguments)


def test_rows_are_measured_once_and_resumed(tmp_path):
    out = tmp_path / "speed.json"
    assert len(script(out, "--rows", "call/").splitlines()) == 5
    (machine,) = json.loads(out.read_text())
    assert torch.__version__ in machine
    first = json.loads(out.read_text())[machine]
    assert len(script(out, "--train").splitlines()) == 6  # sample, grid and training rows; the others are there
    table = json.loads(out.read_text())[machine]
    assert {name: row for name, row in table["rows"].items() if name in first["rows"]} == first["rows"]
    assert [name for name, row in table["rows"].items() if "error" in row] == []
    for name, row in table["rows"].items():
        assert row["fields_per_s"] == pytest.approx(row["batch"] / row["seconds"], rel=1e-3), name
    for task, mode, calls in (("call", "bf16", 1), ("sample", "loop", 18), ("train", "bare", 3)):
        row = table["rows"][f"{task}/unet-toy/16/b2/{mode}"]
        rate = calls * 2 * row["tflop_per_field"] / row["seconds"]
        assert row["ceiling_share"] == pytest.approx(rate / row["ceiling_tflop_per_s"], rel=1e-3)
    assert table["rows"]["call/unet-toy/16/bmax/eager"]["batch"] == 4
    assert "said" not in table["rows"]["call/dit-toy/16/b2/fp8"]  # nothing fell back


def test_a_task_that_fails_or_hangs_costs_its_own_time_only(tmp_path):
    """Errors and limits are results of one task; the next one runs, in a new process after either."""
    code = (
        "import sys; sys.path.insert(0, 'benchmarks')\n"
        "import speed_workers; from speed_workers import perform\n"
        "from tests.execution.tasks import Clock, act\n"
        "speed_workers.time = clock = Clock()\n"
        "speed_workers.wait = clock.wait\n"
        "print(dict(perform(act, ['a', 'raise', 'hang', 'die', 'b'], limit=12, until=200)))\n"
        "print(dict(perform(act, ['hang'], limit=60, until=15)), clock.now)\n"
    )
    results, late = python("-c", code, HANGING=str(tmp_path / "hanging")).splitlines()
    found = ast.literal_eval(results)
    assert found["a"] == {"done": "a"}
    assert found["b"] == {"done": "b"}
    assert found["raise"] == {"error": "ValueError: told to"}
    assert found["hang"] == {"error": "took more than 12 s"}
    assert found["die"] == {"error": "its process ended with code 3"}
    assert late == "{} 15.0"


def test_what_compiles_ahead_is_waited_for_and_stands_still_while_a_clock_runs(tmp_path):
    """The task that needs the endless one comes last, though it was the first asked for."""
    code = (
        "import sys, time; sys.path.insert(0, 'benchmarks')\n"
        "from speed_workers import perform\n"
        "from tests.execution.tasks import together\n"
        f"ahead, tasks = ('ahead', {str(tmp_path)!r}), [(name, {str(tmp_path)!r}) for name in ('needs', 'quiet')]\n"
        "needs = {tasks[0]: ahead}.get\n"
        "for task, result in perform(\n"
        "    together, tasks, limit=400, until=time.monotonic() + 800, ahead=[ahead], jobs=1, needs=needs\n"
        "):\n"
        "    print(task[0], result)\n"
    )
    found = python("-c", code).splitlines()
    assert set(found) == {"quiet {'seen': 1}", "ahead {'done': 'ahead'}", "needs {'done': 'needs'}"}
    assert found[-1].startswith("needs")


@pytest.fixture
def plan(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("speed_plan")


def test_parts_share_all_rows_evenly_and_code_is_compiled_by_one(plan):
    rows = list(dict.fromkeys(importlib.import_module("speed_rows").rows(toy=False, train=True)))
    parts = [plan.share(rows, part, 2, {}, 6) for part in range(2)]
    assert sorted(row.name for part in parts for row in part) == sorted(row.name for row in rows)
    codes = [{row.compiled for row in part if row.compiled} for part in parts]
    assert not codes[0] & codes[1]
    places = {row.name: number for number, part in enumerate(parts) for row in part}
    for task, batch, mode in (("call", 16, "compiled"), ("sample", 16, "compiled"), ("call", 1, "compiled")):
        bf16 = f"{task}/dit-100/256/b{batch}/{mode}"
        assert places[bf16] == places[f"{bf16}-fp8"], "their ratio is of one card"
    one, other = (sum(plan.expected(row, {}) for row in part) for part in parts)
    assert one == pytest.approx(other, rel=0.2)
    assert plan.expected(rows[0], {rows[0].name: {"row_s": 3.5}}) == 3.5


def test_merged_parts_replace_older_rows_but_no_measurement_by_an_error(plan, tmp_path):
    path, old = tmp_path / "speed.json", {"seconds": 1.0}
    plan.save(path, {"one": {"rows": {"a": old, "b": old, "c": {"error": "memory"}}}})
    plan.save(plan.part_file(path, 0, 2), {"one": {"rows": {"a": {"seconds": 2.0}, "c": old}}})
    plan.save(plan.part_file(path, 1, 2), {"one": {"rows": {"b": {"error": "time"}}}, "two": {"rows": {"a": old}}})
    assert plan.merge(path) == 4
    merged = plan.read(path)
    assert merged["one"] == {"rows": {"a": {"seconds": 2.0}, "b": old, "c": old}}
    assert merged["two"]["rows"] == {"a": old}
    assert plan.merge(path) == 4  # nothing is left to do
    assert list(tmp_path.iterdir()) == [path]


def test_a_clock_that_sinks_does_not_change_a_ratio(monkeypatch):
    """A sample of 18 calls and 1 % of its own, on a device that becomes 10 % slower while it is measured."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    timing, done = importlib.import_module("speed_timing"), [0]

    def timed(call, device, count):
        done[0] += 1
        return call() * (1 + 0.1 * min(1, done[0] / 50))

    monkeypatch.setattr(timing, "_timed", timed)
    found = timing.ratio(lambda: 0.015, lambda: 18 * 0.015 / 0.99, 18, torch.device("cuda"))
    assert found == pytest.approx(0.99, abs=0.002)


def test_the_list_names_the_peers_and_all_sizes():
    names = python("benchmarks/speed.py", "--list", "--train")
    for part in ("physicsnemo-songunet/256/b16", "diffusers-unet2d", "unet-10", "/512/b16/", "/16384/", "train/"):
        assert part in names


def test_the_page_shows_what_was_measured():
    """Every line of its tables of networks is one of the table that the script makes of the committed results."""
    made = python("benchmarks/speed.py", "--table")
    page = (ROOT / "docs" / "performance.md").read_text()
    shown = [line for line in page.splitlines() if line.startswith(("| call/", "| sample/", "| train/", "| grid/"))]
    assert len(shown) > 10
    assert set(shown) <= set(made.splitlines())
