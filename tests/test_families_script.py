"""The family table's script at toy size: rows are made once, with numbers that belong together; what fails is told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

import sciffusion as sf

ROOT = Path(__file__).parents[1]
SMALL = ["--set", "stages.0.network.channels=8", "--set", "stages.0.network.multipliers=[1,2]"]


def script(folder, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "families.py"), "--work", str(folder / "work")]
    command += ["--out", str(folder / "out"), "--keep", str(folder / "kept"), "--device", "cpu", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_rows_are_made_once_and_failures_cost_the_others_nothing(tmp_path):
    # forecast needs a state before, which independent draws do not have
    printed = script(tmp_path, "--toy", "--problem", "grf", "--recipes", "ect,forecast,edm", "--jobs", "2", *SMALL)
    assert "grf-forecast-0: failed" in printed
    failed = json.loads((tmp_path / "out" / "failed" / "grf-forecast-0.json").read_text())
    assert failed["why"].startswith("SciffusionError")
    assert "Traceback" in (tmp_path / "out" / "logs" / "grf-forecast-0.txt").read_text()

    row, student = (json.loads((tmp_path / "out" / f"grf-{name}-0.json").read_text()) for name in ("edm", "ect"))
    assert (row["problem"], row["recipe"], row["seed"], row["members"], row["cases"]) == ("grf", "edm", 0, 4, 4)
    assert (row["calls_per_member"], student["calls_per_member"]) == (20, 2)
    assert row["crps_ratio"] > 1  # nothing beats the exact posterior by more than chance, a toy least of all
    assert row["yardstick_ralsd"] < row["ralsd"]
    assert row["training_steps"] == {"denoiser": 90}
    assert row["spectra"]["truth"][0] > 10 * row["spectra"]["truth"][-1]
    with xr.open_dataset(tmp_path / "out" / "grf-edm-0.nc") as shown:
        assert shown["member"].sizes == {"member": 2, "y": 64, "x": 64}
        means = shown["truth"].coarsen(y=8, x=8).mean().values
        assert shown["coarse"].values == pytest.approx(means, abs=2e-3)  # three digits are kept

    assert script(tmp_path, "--toy", "--problem", "grf", "--recipes", "edm,ect", *SMALL) == ""
    assert "| edm | " in script(tmp_path, "--table")


@pytest.mark.slow
def test_a_kept_emulator_teaches_where_its_run_is_gone(tmp_path):
    script(tmp_path, "--toy", "--problem", "grf", "--recipes", "edm", *SMALL)
    with_run = sf.load(tmp_path / "work" / "runs" / "grf-edm-0")
    (tmp_path / "work").rename(tmp_path / "gone")
    printed = script(tmp_path, "--toy", "--problem", "grf", "--recipes", "progressive", *SMALL)
    assert "| progressive | " in printed
    restored = sf.load(tmp_path / "work" / "runs" / "grf-edm-0")
    apart = max(
        float((a - b).detach().abs().max() / (1e-6 + b.detach().abs().max()))
        for a, b in zip(restored.stage.parameters(), with_run.stage.parameters(), strict=True)
    )
    assert 0 < apart < 2**-8  # 16-bit floats


def test_no_row_is_begun_that_would_not_end_in_time(tmp_path):
    printed = script(tmp_path, "--toy", "--problem", "grf", "--recipes", "edm,flow", "--jobs", "2", "--until", "20")
    assert printed.count("not begun") == 2
    assert not list((tmp_path / "out").glob("*.json"))
