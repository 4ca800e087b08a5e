"""The path of a researcher with own files: init, train, generate, evaluate, on four data sets unlike each other.

Trainings are short, on a CPU; what is asked is that every step runs on what the one before wrote, that the layout
survives, and that the result beats climatology and the dressed interpolation, or the verdict says that it does not.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciffusion.fields.ensemble import open_ensemble
from tests import synthetic

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]

QUICK = [
    "train.steps=100",
    "train.warmup=15",
    "train.learning_rate=2.0e-3",
    "train.batch_size=4",
    "train.validate_every=50",
    "train.validation_members=0",
    "train.accelerator=cpu",
    "train.devices=1",
    "stages.denoiser.network.channels=16",
    "stages.denoiser.network.multipliers=[1, 2]",
    "stages.denoiser.network.blocks=1",
    "stages.denoiser.sampler.steps=10",
]

CASES = {
    "precipitation": (synthetic.precipitation, [], {"lat": 45, "lon": 90}),
    "masked": (synthetic.masked_region, ["--factor", "4"], {"y": 50, "x": 62}),
    "box": (synthetic.box, ["--dx", "1.0", "--factor", "4"], {"z": 16, "y": 16, "x": 16}),
    "realizations": (synthetic.ensemble, [], {"lat": 32, "lon": 40}),
}


def sciffusion(*arguments, cwd):
    command = [sys.executable, "-W", "ignore", "-m", "sciffusion", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def environment():
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


def reference(path):
    return xr.open_zarr(path, consolidated=False) if str(path).endswith(".zarr") else xr.open_mfdataset(
        str(path), combine="nested", concat_dim="snapshot"
    ) if "*" in str(path) else xr.open_dataset(path)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_four_commands_lead_from_files_to_a_scored_ensemble(name, tmp_path):
    make, options, sizes = CASES[name]
    target = make(tmp_path)
    sciffusion("init", "--target", target, *options, "-o", "experiment.yaml", cwd=tmp_path)
    overrides = [part for setting in QUICK for part in ("--set", setting)]
    sciffusion("train", "experiment.yaml", "--output", "run", "--no-progress", *overrides, cwd=tmp_path)
    sciffusion("generate", "run", "--members", 4, "--output", "ens.zarr", "--quiet", cwd=tmp_path)
    baselines = []
    for baseline in ("climatology", "interpolation"):
        path = f"{baseline}.zarr"
        sciffusion("generate", "run", "--baseline", baseline, "--members", 4, "--output", path, "--quiet", cwd=tmp_path)
        baselines.append(f"{baseline}={path}")
    report = ["--report", "report.html", "--json", "scores.json"]
    said = sciffusion("evaluate", "ens.zarr", "--reference", target, "--baselines", *baselines, *report, cwd=tmp_path)

    ensemble, truth = open_ensemble(tmp_path / "ens.zarr"), reference(target)
    assert ensemble.sizes["member"] == 4
    assert {dim: ensemble.sizes[dim] for dim in sizes} == sizes
    for variable in ensemble.data_vars:
        assert ensemble[variable].attrs.get("units") == truth[variable].attrs.get("units")
        finite = np.isfinite(ensemble[variable]).transpose("member", ...)
        case = {dim: 0 for dim in truth[variable].dims if dim not in sizes}
        assert (finite.isel(member=0, **case).values == np.isfinite(truth[variable].isel(case)).values).all()
    if name == "precipitation":
        assert float(ensemble["pr"].min()) >= 0
    if name == "realizations":
        assert ensemble.sizes["realization"] == 5
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores
    for baseline in ("climatology", "interpolation"):
        assert f"Beats {baseline}" in said or f"Does NOT beat {baseline}" in said, said
    assert (tmp_path / "report.html").stat().st_size < 10e6
