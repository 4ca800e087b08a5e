"""Regression and residual: each half of the cases is explained by the network that never saw it, in the whole chain."""

import copy
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sciffusion.cli import main
from sciffusion.emulator import load
from sciffusion.generation import held_out
from sciffusion.stages.regression import RegressionStage
from sciffusion.training import train
from sciffusion.training.regressing import RegressionModule
from tests.stages.toy import batch_of, moved, toy
from tests.tiny import write_experiment


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    made = toy(tmp_path_factory.mktemp("corrdiff"), "corrdiff")
    stages, data = made.build()
    return made.experiment, data, stages


def gradients(network):
    return sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None)


def test_a_network_learns_from_its_own_half_only_and_answers_for_the_other(built):
    experiment, data, stages = built
    stage: RegressionStage = moved(copy.deepcopy(stages["regression"]))
    batch = batch_of(experiment, data, stage, 8)
    first = torch.nonzero(batch["fold"] == 0).flatten()
    assert 0 < len(first) < 8
    pick = lambda value: {k: pick(v) for k, v in value.items()} if isinstance(value, dict) else value[first]  # noqa: E731
    half = pick(batch)
    stage.zero_grad()
    RegressionModule(stage, experiment.train).loss(half).backward()
    assert gradients(stage.halves[0]) > 0
    assert gradients(stage.halves[1]) == 0
    answer, context = stage.truth(half), stage.conditioned(half)
    torch.testing.assert_close(answer, stage.mean(context, half["z"], 1))
    assert not torch.allclose(answer, stage.mean(context, half["z"], 0))


def test_the_residual_has_unit_variance_and_adds_up_to_the_field(built):
    experiment, data, stages = built
    denoiser = stages["denoiser"]
    batch = batch_of(experiment, data, denoiser, 12)
    keep = torch.ones(12, dtype=torch.bool)
    learned = denoiser.learn(batch, keep)
    np.testing.assert_allclose(learned.y.var(dim=(0, 2, 3)).numpy(), 1, rtol=1e-3)
    outputs = denoiser.truths(batch)
    torch.testing.assert_close(denoiser.frame.value(learned.y, outputs), batch["z"], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = toy(tmp_path_factory.mktemp("run"), "corrdiff")
    train(made.experiment, progress=False)
    return made


def test_members_differ_reproduce_the_coarse_field_and_do_not_depend_on_the_batch(run):
    emulator = load(run.folder)
    conditions, cases = held_out(run.folder)
    check = emulator.check(conditions, cases)
    three = emulator.sample(check, 3, batch_size=3, device="cpu")
    one = emulator.sample(check, [2], batch_size=1, device="cpu")
    assert float(three.a.std("member").min()) > 0
    np.testing.assert_allclose(one.a[0], three.a[2], rtol=0, atol=1e-4)
    fine = conditions["coarse"].sel(time=three.time).load()
    for name in ("a", "b"):
        means = [ds[name].coarsen(y=4, x=4).mean().transpose(..., "time", "y", "x") for ds in (three, fine)]
        np.testing.assert_allclose(means[0], np.broadcast_to(means[1], means[0].shape), atol=2e-4, rtol=1e-6)


def test_a_chain_that_is_stopped_between_its_stages_ends_with_the_same_weights(run, tmp_path):
    whole = load_file(run.folder / "emulator/weights.safetensors")
    again = toy(run.folder.parent, "corrdiff", f"output={tmp_path / 'run'}")
    shutil.copytree(run.folder, tmp_path / "run")
    for part in ("emulator", "stages/denoiser", "checkpoints/denoiser", "prepared/denoiser"):
        shutil.rmtree(tmp_path / "run" / part)
    write_experiment(tmp_path / "run/experiment.yaml", again.experiment.model_dump(mode="json"))
    train(again.experiment, progress=False)
    resumed = load_file(tmp_path / "run/emulator/weights.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(value.equal(resumed[name]) for name, value in whole.items())


def test_a_stage_that_is_trained_further_takes_those_behind_it_along(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    longer = toy(run.folder.parent, "corrdiff", f"output={tmp_path / 'run'}", "train.steps=6")
    settings = longer.experiment.model_copy(update={"train": run.experiment.train})
    write_experiment(tmp_path / "run/experiment.yaml", settings.model_dump(mode="json"))
    assert train(longer.experiment, progress=False).card["stage_steps"] == {"regression": 6, "denoiser": 6}
    behind, alone = (load_file(tmp_path / f"run/stages/{n}/weights.safetensors") for n in ("denoiser", "regression"))
    assert all(behind[name].equal(value) for name, value in alone.items())


def test_the_recipe_is_chosen_on_the_command_line(run, tmp_path, capsys):
    settings = run.experiment.model_dump(mode="json") | {"recipe": "edm", "output": str(tmp_path / "run")}
    stage = settings["stages"][1] | {"inputs": None, "baseline": "coarse"}
    path = write_experiment(tmp_path / "e.yaml", settings | {"stages": [stage]})
    assert main(["train", str(path), "--recipe", "corrdiff", "--no-progress"]) == 0
    assert main(["generate", str(tmp_path / "run"), "--members", "2", "-o", str(tmp_path / "e.zarr"), "--quiet"]) == 0
    assert main(["evaluate", str(tmp_path / "e.zarr"), "--reference", *settings["target"]["source"]["paths"]]) == 0
    assert main(["inspect", str(tmp_path / "run")]) == 0
    assert "stage regression (regression)" in capsys.readouterr().out
