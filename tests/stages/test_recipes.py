"""Every recipe goes from its name to a scored ensemble; its noise levels and losses are those of its paper."""

import math

import numpy as np
import pytest
import torch

from sciffusion import recipes
from sciffusion.cli import main
from sciffusion.conditioners import text_encoder
from sciffusion.diffusion.paths import DiscreteVP, RectifiedFlow
from sciffusion.emulator import load
from sciffusion.generation import held_out
from sciffusion.stages import levels
from sciffusion.training import train
from tests.stages.toy import toy
from tests.tiny import tiny_data, tiny_experiment, write_experiment

NEEDS_TEACHER = {"progressive", "scd"}  # trained in test_flowmap.py
ELSEWHERE = {"corrdiff", "crps", "ect", "sct", "meanflow", "forecast", "precipitation", "window"}


@pytest.mark.parametrize("name", sorted(set(recipes.names()) - NEEDS_TEACHER - ELSEWHERE))
def test_every_recipe_trains_and_samples(tmp_path, name):
    if name == "latent-text" and not text_encoder.available():
        pytest.skip("needs the extra sciffusion[text]")
    made = toy(tmp_path, name)
    train(made.experiment, progress=False)
    emulator = load(made.folder)
    ensemble = emulator.sample(emulator.check(*held_out(made.folder)), 2, device="cpu")
    assert bool(np.isfinite(ensemble.a).all())
    assert float(ensemble.a.std("member").mean()) > 0
    assert emulator.card["recipe"] == name


def test_the_list_of_recipes_says_what_each_is_for(capsys):
    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{name}" in f"\n{text}" for name in recipes.names())
    assert text.count("for: ") == text.count("network calls a member") == len(recipes.names())
    assert main(["recipes", "flow"]) == 0
    assert "path: rectified" in capsys.readouterr().out


def test_init_writes_the_recipe_that_is_asked_for(tmp_path, capsys):
    tiny_data(tmp_path / "fine.nc")
    out = tmp_path / "experiment.yaml"
    assert main(["init", "--target", str(tmp_path / "fine.nc"), "--recipe", "corrdiff", "-o", str(out)]) == 0
    text = out.read_text()
    assert "recipe: corrdiff" in text
    assert "constraint: coarse  # coarse = C(fine)" in text
    assert main(["init", "--target", str(tmp_path / "fine.nc"), "--recipe", "cordiff", "-o", str(out)]) == 2


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("levels")

    def build(name):
        return toy(folder, name).build()[0]["denoiser"]

    return build


def test_ddpm_trains_and_samples_on_its_own_levels_only(stages):
    stage = stages("ddpm")
    assert isinstance(stage.path, DiscreteVP)
    drawn = levels.training_levels(stage.settings.noise, stage.noise_range, stage.path).sample(64)
    own = torch.as_tensor(stage.path.levels, dtype=torch.float32)
    assert torch.isin(drawn, own).all()
    grid = levels.grid(stage.settings.sampler.model_copy(update={"steps": 250}), stage.noise_range, stage.path)
    assert len(grid) == 251
    assert np.isin(grid[:-1], stage.path.levels).all()
    karras = levels.grid(stage.settings.sampler.model_copy(update={"grid": "karras"}), stage.noise_range, stage.path)
    assert np.isin(karras[:-1], stage.path.levels).all()


@pytest.mark.parametrize("name", ["ddpm", "score-ve", "score-vp"])
def test_the_loss_of_the_noise_is_the_weighted_error_of_the_field(stages, name):
    """D = x - sigma F, so |F - z|^2 = |D - x0|^2 / sigma^2."""
    stage = stages(name)
    sigma = torch.tensor([0.1, 3.0])
    weight = levels.level_weight(stage.settings.noise, stage.parameterization)
    torch.testing.assert_close(weight(sigma), sigma**-2)


def test_flow_times_are_logit_normal_and_its_path_ends_short_of_one(stages):
    stage = stages("flow")
    assert isinstance(stage.path, RectifiedFlow)
    largest = stage.noise_range.sigma_max
    assert stage.path.t_max == pytest.approx(1 - 1 / (1 + largest))
    drawn = levels.training_levels(stage.settings.noise, stage.noise_range, stage.path)
    z = torch.logit(stage.path.time(drawn.sample(20000).double()))
    inner = z[(z.abs() < 2)]  # away from the log-uniform tenth, which covers the ends
    expected = math.erf(1 / math.sqrt(2)) / math.erf(2 / math.sqrt(2))
    assert float((inner.abs() < 1).double().mean()) == pytest.approx(expected, abs=0.02)
    times = levels.grid(stage.settings.sampler.model_copy(update={"steps": 5}), stage.noise_range, stage.path)
    steps = np.diff(times[:-1] / (1 + times[:-1]))
    np.testing.assert_allclose(steps, steps[0])


@pytest.mark.parametrize("name", ["score-ve", "score-vp"])
def test_score_models_draw_times_uniformly_up_to_the_level_that_the_data_need(stages, name):
    stage = stages(name)
    t = stage.path.time(
        levels.training_levels(stage.settings.noise, stage.noise_range, stage.path).sample(4096).double()
    )
    share = (t - stage.path.t_min) / (stage.path.t_max - stage.path.t_min)
    np.testing.assert_allclose(np.sort(share.numpy()), (np.arange(4096) + 0.5) / 4096, atol=2e-3)
    assert stage.path.sigma_max == pytest.approx(max(80, stage.path.sigma_max))


def test_the_whole_command_line_with_a_recipe_of_ones_own_data(tmp_path):
    settings = tiny_experiment(tiny_data(tmp_path / "data.nc"), tmp_path / "run", steps=2, validate_every=2)
    path = write_experiment(tmp_path / "e.yaml", settings)
    short = ["--set", "stages.denoiser.sampler.steps=3"]
    assert main(["train", str(path), "--recipe", "flow", "--no-progress", *short]) == 0
    assert main(["generate", str(tmp_path / "run"), "--members", "2", "-o", str(tmp_path / "e.zarr"), "--quiet"]) == 0
    assert main(["evaluate", str(tmp_path / "e.zarr"), "--reference", str(tmp_path / "data.nc")]) == 0
