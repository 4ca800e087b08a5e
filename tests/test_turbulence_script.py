"""The turbulence benchmark at toy size: rows are made once, and networks are compared on the same samples."""

import importlib
import json
import math
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script_module(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("turbulence")


def pretended(module, best):
    class Pretended(module.Rows):
        def __call__(self, rate, seed):
            self.seen.append(rate)
            return self.loss(rate)

        def loss(self, rate):
            return (math.log2(rate / self.rate) - best) ** 2

    rows = Pretended("unet-toy", 1e-3, None, None, 0.0)
    rows.seen = []
    return rows


def script(folder, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "turbulence.py"), "--toy", "--device", "cpu"]
    command += ["--minutes", "600", "--work", str(folder / "work"), "--out", str(folder / "out"), *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_training_lowers_the_loss_and_rows_are_kept(tmp_path):
    small = ["--validation", "4", "--networks", "unet-toy,nonsense,dit-toy@5e-4"]
    assert len([line for line in script(tmp_path, *small, "--samples", "32") if line.startswith(("unet", "dit"))]) == 2
    script(tmp_path, "--validation", "4", "--networks", "unet-toy", "--samples", "1600")
    assert script(tmp_path, "--validation", "4", "--networks", "unet-toy", "--samples", "1600") == []
    rows = {path.stem: strict(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    assert set(rows) == {"unet-toy-32-0", "dit-toy@0.0005-32-0", "unet-toy-1600-0"}
    # After one step both are what they started as, and the zero answer has loss 1 at any level.
    assert rows["unet-toy-32-0"]["loss"] == pytest.approx(rows["dit-toy@0.0005-32-0"]["loss"], rel=1e-3)
    assert rows["unet-toy-1600-0"]["loss"] < 0.95 * rows["unet-toy-32-0"]["loss"]
    assert rows["unet-toy-32-0"]["samples_per_s"] is None  # of one step nothing can be said
    assert rows["unet-toy-1600-0"]["samples_per_s"] > 0
    norm = rows["unet-toy-1600-0"]["gradient_norm"]
    assert 0 < norm["median"] < norm["largest"] < math.inf
    assert len(script(tmp_path, "--table")) == 2 + 3


def strict(text):
    """JSON has no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_search_goes_downhill_and_other_seeds_take_the_best_rate(tmp_path, script_module):
    """The loss is (log2(rate) - best)^2: the rule finds the best rate on either side of the first."""
    cases = (
        (2, 9, {0, 1, 2, 3}),
        (-2, 9, {0, 1, -1, -2, -3}),
        (0, 9, {0, 1, -1}),
        (5, 3, {0, 1, 2}),
        (-9, 3, {0, 1, -1}),
    )
    for best, most, tried in cases:
        rows = pretended(script_module, best)
        found = rows.search(0, most)
        assert {round(math.log2(rate / rows.rate)) for rate in rows.seen} == tried
        assert found == min(rows.seen, key=rows.loss)


def test_a_row_of_other_fields_is_made_again(tmp_path, script_module, monkeypatch):
    """Flows simulated on another kind of device are others: losses on them cannot be compared."""
    made = []

    def measure(name, rate, seed, fields, args):
        made.append(seed)
        return {"loss": len(made), "fields": fields[0].name}

    def loss(fields):
        both = (script_module.Fields(fields, fields),) * 2
        return script_module.Rows("unet-toy", 1e-3, both, Namespace(out=tmp_path, samples=8), math.inf)(1e-3, 0)

    monkeypatch.setattr(script_module, "measure", measure)
    some, others = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert [loss(some), loss(some), loss(others), loss(others)] == [1, 1, 2, 2]


def test_differences_are_paired_by_seed_and_fields(tmp_path, script_module):
    peer, rows = script_module.PEER, []
    losses = {("ours", 1e-3): (0.9, 1.0, 1.2, 9.0), (peer, 5e-4): (1.0, 1.2, 1.1, 1.0), (peer, 1e-3): (0.5,)}
    for (name, rate), values in losses.items():
        for seed, loss in enumerate(values):
            rows.append({"network": name, "rate": rate, "seed": seed, "loss": loss, "samples": 8, "samples_per_s": 1.0})
            rows[-1]["fields"] = "others" if seed == 3 and name == peer else "some"
    for place, row in enumerate(rows):
        (tmp_path / f"{place}.json").write_text(json.dumps(row | {"parameters": 1e6, "tflop_per_field": 1.0}))
    *_, last = script_module.table(tmp_path).splitlines()
    # -0.1, -0.2, 0.1: the single seed at another rate is not taken for the peer, and seed 3 had other fields
    assert last == f"ours less {peer}, 8 samples, seeds 0, 1, 2: -0.0667 (0.1528), -6.1 %; 2 of 3 no worse"
