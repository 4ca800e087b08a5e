"""The benchmark of the evaluation runs, and its rows agree on what they compute."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
OTHER_NUMBERS = ("xskillscore", "xrft", "pysteps")  # as the notes of the table say


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("evaluation")


@pytest.mark.parametrize("task", ["crps", "ranks", "energy", "spectrum"])
def test_rows_at_small_size_agree_and_make_a_table(benchmark, task):
    names = [name for name in benchmark.TASKS[task].rows if benchmark.installed(name) and name not in OTHER_NUMBERS]
    rows = {name: benchmark.row(task, name, benchmark.SMALL, 1) for name in names}
    assert {"ours (numpy)", "ours (torch)"} <= set(rows)
    first = rows["ours (numpy)"]
    assert all(row["value"] == pytest.approx(first["value"], rel=1e-5) for row in rows.values())
    assert all(0 < row["clock_s"] < 60 and row["extra_mb"] < 1e3 for row in rows.values())
    page = benchmark.table({"tasks": {task: rows}, "size": benchmark.asdict(benchmark.SMALL)})
    assert page.count("\n") == 1 + len(rows)


def test_the_rows_on_a_gpu_are_checked_against_numpy_and_merge(benchmark, tmp_path, monkeypatch, capsys):
    """On the CPU instead of a GPU; a number that is not numpy's ends the run with 1."""
    rows = importlib.import_module("evaluation_gpu")
    given, kept = tmp_path / "gpu.json", tmp_path / "all.json"
    kept.write_text('{"tasks": {}}')
    page = tmp_path / "page.md"
    page.write_text((FOLDER.parent / "docs" / "scores.md").read_text())
    arguments = ["--gpu", "--device", "cpu", "--small", "--repeats", "1", "--out", str(given)]
    assert run(benchmark, monkeypatch, arguments) == 0
    for _ in range(2):  # in the place of what stands there
        run(benchmark, monkeypatch, ["--merge", str(given), "--out", str(kept), "--docs", str(page)])
    found = json.loads(kept.read_text())
    assert found["tasks"] == {}
    assert list(found["gpu"]["tasks"]) == list(benchmark.TASKS)
    assert all({rows.NUMPY, rows.HOST, rows.PLACED} <= set(each) for each in found["gpu"]["tasks"].values())
    assert rows.table(found["gpu"]) in capsys.readouterr().out
    assert page.read_text().count(rows.table(found["gpu"])) == 1
    assert "The fair CRPS of 1000 members" in page.read_text().partition(benchmark.MARKS[1])[2]
    monkeypatch.setitem(rows.ON_DEVICE, "ranks", lambda *given: 1.0)
    assert run(benchmark, monkeypatch, arguments) == 1


def run(benchmark, monkeypatch, arguments):
    """Exit code of the script."""
    monkeypatch.setattr(sys, "argv", ["evaluation.py", *arguments])
    try:
        benchmark.main()
    except SystemExit as end:
        return end.code


@pytest.mark.slow
def test_the_script_at_small_size(tmp_path):
    for arguments in (["--tasks", "ranks", "--repeats", "1"], ["--stream"]):
        command = [sys.executable, FOLDER / "evaluation.py", "--small", "--out", tmp_path / "a.json", *arguments]
        subprocess.run(command, capture_output=True, check=True)
    found = json.loads((tmp_path / "a.json").read_text())
    assert {"ours (numpy)", "ours (torch)", "scores"} <= set(found["tasks"]["ranks"])
    ways = found["stream"]["ways"]
    assert ways["crps"]["value"] == pytest.approx(ways["crps, dask"]["value"], rel=1e-12)
