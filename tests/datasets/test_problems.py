"""Problems on disk: pairs that belong together, the same cases however they are made, and the exact Gaussian answer."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion import cli, config
from sciffusion.datasets import PROBLEMS, write_problem
from sciffusion.datasets.simulators import gaussian, problems, write
from sciffusion.datasets.simulators.box import block_means
from sciffusion.datasets.simulators.kolmogorov import KolmogorovFlow
from sciffusion.datasets.simulators.shallow_water import ShallowWater
from sciffusion.diffusion.problems import GaussianField
from sciffusion.errors import SciffusionError
from sciffusion.operators import BlockMean

SMALL = {
    "grf": {"shape": (16, 16), "factor": 4},
    "grf96": {"shape": (12, 12), "factor": 4},
    "grf3d": {"shape": (8, 8, 8), "factor": 2},
    "kolmogorov": {
        "shape": (16, 16),
        "factor": 4,
        "frames": 3,
        "make": problems._flow(KolmogorovFlow, spin_up=1, steps=8, size=32),
    },
    "kolmogorov-coarse": {
        "shape": (16, 16),
        "factor": 4,
        "frames": 3,
        "make": problems._coarse_run(spin_up=2, steps=8, size=32, coarse=16, lead=2),
    },
    "shallow-water": {
        "shape": (32, 32),
        "frames": 2,
        "interval": 7200.0,
        "make": problems._flow(ShallowWater, spin_up=1, steps=24, size=48),
    },
    "kuramoto-sivashinsky": {"frames": 3},
}


@pytest.fixture
def small(monkeypatch):
    for name, changes in SMALL.items():
        monkeypatch.setitem(PROBLEMS, name, replace(PROBLEMS[name], batch=2, **changes))


def opened(folder, kind):
    return xr.open_zarr(folder / f"{kind}.zarr", consolidated=False, chunks=None)


def test_every_problem_is_tried_here():
    assert set(SMALL) == set(PROBLEMS)


@pytest.mark.parametrize("name", SMALL)
def test_a_problem_is_pairs_of_a_fine_field_and_its_block_means_and_an_experiment(name, small, tmp_path):
    problem = PROBLEMS[name]
    path = write_problem(name, tmp_path / name, cases=(3, 1, 1), progress=False)
    fine, coarse = opened(tmp_path / name, "fine"), opened(tmp_path / name, "coarse")
    rank = len(problem.shape)
    for variable in problem.variables:
        values = torch.from_numpy(fine[variable].values)
        assert bool(torch.isfinite(values).all())
        assert bool((values.flatten(1).std(1) > 0).all())  # every case was written
        means, given = block_means(values, problem.factor, rank), torch.from_numpy(coarse[variable].values)
        departure = float((means - given).square().mean().sqrt() / given.std())
        assert 0.005 < departure < 0.7 if name == "kolmogorov-coarse" else departure < 1e-6
    experiment = config.load_experiment(path)
    assert experiment.target.periodic == list(problem.dims)
    assert experiment.split.model_dump() == {
        "dim": problem.case_dim,
        "train": [(0, 2)],
        "validation": [(3, 3)],
        "test": [(4, 4)],
    }


@pytest.mark.parametrize("name", ["grf", "kolmogorov"])
def test_a_case_is_the_same_in_any_batch_and_after_an_interruption(name, small, tmp_path, monkeypatch):
    write_problem(name, tmp_path / "whole", cases=(3, 1, 1), batch=5, progress=False)
    plain, made = write._write_batch, []

    def interrupted(problem, folder, numbers, seed, device):
        plain(problem, folder, numbers, seed, device)
        made.append(list(numbers))
        if len(made) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(write, "_write_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_problem(name, tmp_path / "parts", cases=(3, 1, 1), progress=False)
    assert not (tmp_path / "parts" / "experiment.yaml").exists()
    assert json.loads((tmp_path / "parts" / "made.json").read_text())["done"] == 2
    write_problem(name, tmp_path / "parts", cases=(3, 1, 1), progress=False)
    assert made == [[0, 1], [2, 3], [2, 3], [4]]
    for kind in ("fine", "coarse"):
        xr.testing.assert_allclose(opened(tmp_path / "parts", kind), opened(tmp_path / "whole", kind), atol=1e-6)


@pytest.mark.parametrize(("name", "frames"), [("kolmogorov", 8), ("kuramoto-sivashinsky", 64)])
def test_a_frame_is_read_without_a_whole_trajectory_unless_that_is_small(name, frames):
    for kind in ("fine", "coarse"):
        field = write._template(PROBLEMS[name], kind, 2, {})["u"]
        assert field.chunks[:2] == ((1, 1), (frames,) * (64 // frames))


def test_other_data_in_the_folder_are_left_alone(small, tmp_path):
    write_problem("grf", tmp_path / "grf", cases=(2, 1, 1), progress=False)
    before = opened(tmp_path / "grf", "fine").load()
    with pytest.raises(SciffusionError, match="holds other data"):
        write_problem("grf", tmp_path / "grf", cases=(2, 1, 1), seed=1, progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(SciffusionError, match="not empty"):
        write_problem("grf", tmp_path / "mine", progress=False)
    xr.testing.assert_identical(before, opened(tmp_path / "grf", "fine").load())


@pytest.mark.parametrize(
    ("wrong", "message"), [({"name": "grff"}, "known: grf"), ({"cases": (1, 0, 1)}, "three positive")]
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(wrong, message, tmp_path):
    with pytest.raises(SciffusionError, match=message):
        write_problem(**{"name": "grf", "folder": tmp_path / "new"} | wrong)
    assert not (tmp_path / "new").exists()


# --- the exact answer


def test_the_posterior_is_that_of_the_dense_formula():
    field = gaussian.law((8, 8), 3.0)
    ours, y = gaussian.BlockPosterior(field, 2), torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    dense = field.posterior(BlockMean((8, 8), (2, 2)), y - y.mean())
    torch.testing.assert_close(ours.mean(y - y.mean()), dense.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours.variance.sqrt(), dense.cell_sd(), rtol=0, atol=1e-9)


def test_the_floor_is_the_one_measured_elsewhere():
    """evaluation.md: 0.21714 for 64^2 cells, 8 x 8 means, k^-3."""
    assert gaussian.BlockPosterior(gaussian.law((64, 64), 3.0), 8).crps_floor == pytest.approx(0.21714, abs=2e-5)


def test_draws_have_the_means_that_were_given_and_the_spread_of_the_formula():
    field = gaussian.law((16, 16), 3.0)
    posterior = gaussian.BlockPosterior(field, 4)
    truth = gaussian.draw([0, 1], field, seed=0, name="test")
    members = posterior.sample(block_means(truth, 4, 2), 2000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        block_means(members, 4, 2), block_means(truth, 4, 2).expand(2000, 2, 1, 4, 4), rtol=0, atol=1e-9
    )
    ratio = members.var(0)[:, 0] / posterior.variance
    # 512 correlated estimates, each with a relative error of sqrt(2 / 2000) = 3 %
    assert float(ratio.mean()) == pytest.approx(1, abs=0.02)
    assert float((ratio - 1).abs().max()) < 5 * math.sqrt(2 / 2000)


def test_draws_follow_the_law():
    """Cells have variance 1 and modes fall as k^-3."""
    field = gaussian.law((32, 32), 3.0)
    assert isinstance(field, GaussianField)
    x = gaussian.draw(range(400), field, seed=0, name="test")[:, 0].numpy()
    power = (np.abs(np.fft.rfft2(x)) ** 2).mean(0)
    k = field.wavenumber()
    inside = (k >= 2) & (k <= 14)
    slope = np.polyfit(np.log(k[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-3.0, abs=0.03)  # 300 modes of 400 draws: standard error 0.006
    assert np.abs(power[0, 0]) < 1e-20
    assert x.var() == pytest.approx(1, abs=0.02)


# --- the command


def test_the_command_lists_and_makes_problems(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["problem"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(PROBLEMS)
    assert cli.main(["problem", "grf", "--cases", "2,1,1", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next: sciffusion train grf/experiment.yaml"
    assert opened(tmp_path / "grf", "fine").sizes["sample"] == 4
    assert cli.main(["problem", "grf", "-o", "other", "--cases", "2,x"]) == 2
    assert "three counts" in capsys.readouterr().err
