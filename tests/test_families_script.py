"""The family table's script at toy size: rows are made once, with numbers that belong together; what fails is told."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
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
    assert row["crps_ratio"] == pytest.approx(row["crps"] / row["exact_crps"])
    assert row["exact_crps"] == pytest.approx(0.217, rel=0.15)  # of any four truths; in expectation it is the floor
    assert row["yardstick_crps"] == pytest.approx(row["exact_crps"], rel=0.1)  # four draws of it
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


def row(recipe, seed=0, **changed):
    """A row as the script writes it, with numbers that tell it from others."""
    k = np.arange(1, 33).tolist()
    power = (np.arange(1, 33.0) ** -2).tolist()
    return {
        "problem": "grf", "recipe": recipe, "seed": seed, "crps": 0.218, "crps_ratio": 1.004, "spread_skill": 0.99,
        "crps_ratio_interval": [1.0, 1.008], "exact_crps": 0.2175,
        "ralsd": 0.1, "yardstick_crps": 0.2171, "yardstick_ralsd": 0.08,
        "yardstick_spread_skill": 1.0, "coarse_rms": 0.01, "calls_per_member": 20.0, "seconds_per_member": 0.002,
        "members": 50, "cases": 64, "minutes": 2.0, "training_minutes": 2.0, "training_steps": {"denoiser": 5000},
        "training_cases": 8192, "parameters": 4_500_000, "train": {"batch_size": 128},
        "device": "GPU", "date": "2026-11-25", "commit": "abc1234",
        "spectra": {"wavenumber": k, "truth": power, "members": power, "yardstick": power},
    } | changed  # fmt: skip


def test_the_page_says_what_reaches_its_aims_and_what_is_missing(tmp_path):
    results = tmp_path / "results"
    (results / "failed").mkdir(parents=True)
    made = [row("edm", crps_ratio=1.004), row("edm", seed=1, crps_ratio=1.006), row("dit", crps_ratio=1.03)]
    made += [row("ect", crps_ratio=1.03, spread_skill=0.9), row("latent", crps_ratio=1.2)]
    fields = xr.Dataset({"truth": (("y", "x"), np.eye(16)), "member": (("member", "y", "x"), np.ones((2, 16, 16)))})
    for entry in made:
        name = f"grf-{entry['recipe']}-{entry['seed']}"
        (results / f"{name}.json").write_text(json.dumps(entry))
        fields.to_netcdf(results / f"{name}.nc")
    failure = {"problem": "grf", "recipe": "flow", "seed": 0, "why": "the time was over", "date": "2026-11-25"}
    (results / "failed" / "grf-flow-0.json").write_text(json.dumps(failure))
    command = [sys.executable, str(ROOT / "benchmarks" / "families.py"), "--out", str(results), "--page", str(tmp_path)]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    page = (tmp_path / "families.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0][2:] for line in lines] == ["recipe", "edm", "dit", "ect", "latent"]  # the best first
    assert "| edm | 1.005 ± 0.001 | 0.990 |" in page
    assert "(expected 0.2175)" in page
    assert "±0.004" in page
    assert "Aims reached: `edm`." in page
    assert "- `dit` misses: CRPS within 2 %." in page
    assert "- `ect` misses: spread/skill within 3 % of the teacher's." in page  # 1.03 is within 3 % of 1.005
    assert "- `latent` misses: CRPS within 10 %." in page
    text = " ".join(page.split())
    assert "`flow`: failed on 2026-11-25 (the time was over)" in text
    assert "`forecast`: needs the state before" in text
    assert "`corrdiff`" in text.split("Missing: ")[1].split(": not run yet")[0]
    for picture in ("families-grf.png", "families-grf-spectra.png"):
        assert f"](images/{picture})" in page
        image = plt.imread(tmp_path / "images" / picture)
        assert image[..., :3].std() > 0.05  # something is drawn
