"""docs/theory.md names every public class and tests that exist, and its table of solvers is that of the last run."""

import ast
import importlib
import inspect
import json
import os
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path

import sciffusion.diffusion

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/theory.md").read_text()
QUOTED = {word for part in re.findall(r"`([^`\n]+)`", PAGE) for word in re.findall(r"\w+", part)}
RESULTS = ROOT / "benchmarks/results/solvers.json"


def public_classes():
    """Every class in the ``__all__`` of a module of the package, by name."""
    found = {}
    for module in pkgutil.walk_packages(sciffusion.diffusion.__path__, "sciffusion.diffusion."):
        members = vars(importlib.import_module(module.name))
        found |= {name: members[name] for name in members.get("__all__", ()) if inspect.isclass(members[name])}
    return found


def test_every_public_class_is_named():
    classes = public_classes()
    assert len(classes) > 50
    assert sorted(set(classes) - QUOTED) == []


def test_every_test_it_names_exists():
    named = {word for word in QUOTED if word.startswith("test_")}
    files = list(Path(__file__).parent.glob("test_*.py"))
    functions = {node.name for file in files for node in ast.parse(file.read_text()).body if hasattr(node, "name")}
    assert len(named) > 20
    assert sorted(named - functions - {file.stem for file in files}) == []


def test_the_table_of_solvers_is_that_of_the_committed_run(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(sys, "argv", ["solvers.py", "--table", str(RESULTS)])
    runpy.run_path(str(ROOT / "benchmarks/solvers.py"), run_name="__main__")
    assert capsys.readouterr().out.strip() in PAGE
    run = json.loads(RESULTS.read_text())
    for word in (run["date"], run["cpu"], *run["versions"].values()):
        assert word in PAGE


def test_ours_are_at_least_as_accurate_as_the_best_peer_in_the_committed_run():
    """And to a tenth of a per cent where the methods are the same; every sampler made the calls it was allowed."""
    samplers = json.loads(RESULTS.read_text())["samplers"]
    assert {name.split()[0] for name in samplers} == {"sciffusion", "k-diffusion", "diffusers", "azula"}
    for problem in ("field", "mixture"):
        for calls in ("8", "16", "32"):
            rmse = {name: row[problem][calls]["rmse"] for name, row in samplers.items()}
            ours = min(value for name, value in rmse.items() if value and name.startswith("sciffusion"))
            assert ours <= min(value for name, value in rmse.items() if value and not name.startswith("sciffusion"))
            assert all(row[problem][calls]["made"] in (int(calls) - 1, int(calls)) for row in samplers.values())
    cost = {name: row["overhead_us"] for name, row in samplers.items()}
    assert max(cost[name] for name in ("sciffusion dpmpp-2m", "sciffusion adams", "sciffusion euler")) < min(
        value for name, value in cost.items() if not name.startswith("sciffusion") and "Heun" not in name
    )
    assert cost["sciffusion heun"] < min(cost["k-diffusion Heun"], cost["azula Heun"])


def test_the_benchmark_runs_without_peers(tmp_path):
    command = [sys.executable, "benchmarks/solvers.py", "--output", str(tmp_path), "--size", "8", "--batch", "1"]
    command += ["--calls", "4", "8", "--repeats", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    run = json.loads((tmp_path / "solvers.json").read_text())
    assert (tmp_path / "solvers.png").stat().st_size > 10_000
    assert "sciffusion adams c 10" in said
    ours = run["samplers"]["sciffusion adams"]["field"]
    assert ours["8"]["rmse"] < ours["4"]["rmse"]
