"""Stages answer in their fast form as in their plain one, and training ends the fast form."""

import numpy as np
import pytest
import torch

from sciffusion.context import Context
from sciffusion.emulator import Emulator
from sciffusion.evaluation.crps import crps
from sciffusion.execution.accelerate import Execution
from sciffusion.stages.baselines import build_baselines
from sciffusion.stages.items import Item
from tests.stages.toy import moved, toy

FAST = Execution("bfloat16")


def drawn(stage, prepared, members=8):
    return stage.sample([Item(prepared, member) for member in range(members)], seed=0)


def built(folder, recipe, device="cpu"):
    made = toy(folder, recipe)
    stages, data = made.build()
    for own in stages.values():
        moved(own).to(device)
    emulator = Emulator(list(stages.values()), {})
    check = emulator.check(data.conditions, {"time": data.target.time.values[0]})
    return emulator, emulator.stage.prepare(check.conditions, check.cases[0])


def power(fields):
    return np.abs(np.fft.rfft2(fields.double().cpu().numpy())) ** 2


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("recipe", ["edm", "dit", "corrdiff", "latent", "crps", "ect"])
def test_members_in_bfloat16_have_the_scores_and_the_spectrum_of_float32_ones(tmp_path, recipe, device):
    """Stated: CRPS within 1 %, power at every wavenumber within 2 % on average over members."""
    emulator, prepared = built(tmp_path, recipe, device)
    answers = {}
    for execution in (Execution("float32", graphs=False), FAST):
        for stage in emulator.stages:
            stage.ready(stage.device, execution)
        answers[execution] = drawn(emulator.stage, prepared)
    plain, fast = answers.values()
    assert not torch.equal(plain, fast)
    assert fast.dtype == torch.float32
    truth = drawn(emulator.stage, prepared, 9)[8].cpu().numpy()
    scores = [float(np.mean(crps(fields.cpu().numpy(), truth))) for fields in (plain, fast)]
    assert scores[1] == pytest.approx(scores[0], rel=0.01)
    ratio = power(fast).mean(0) / power(plain).mean(0)
    assert np.abs(np.log(ratio)).mean() < 0.02


@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_baselines_draw_on_the_host_whatever_the_device(tmp_path, device):
    """``meta``: what was moved there could not draw."""
    made = toy(tmp_path, "edm")
    stages, data = made.build()
    baselines = build_baselines(made.experiment, data, stages["denoiser"])
    assert set(baselines) == {"climatology", "interpolation", "linear", "quantile-mapping", "analogues"}
    for stage in baselines.values():
        emulator = Emulator([stage], {})
        check = emulator.check(data.conditions, {"time": data.target.time.values[0]})
        prepared = emulator.stage.prepare(check.conditions, check.cases[0])
        stage.ready(torch.device("cpu"))
        expected = drawn(stage, prepared)
        stage.ready(torch.device(device), FAST)
        assert torch.equal(drawn(stage, prepared), expected)


@pytest.mark.parametrize(("recipe", "expected"), [("dit", "fp8"), ("edm", "bfloat16"), ("corrdiff", "bfloat16")])
def test_fp8_is_what_runs_in_it(tmp_path, recipe, expected):
    """A transformer does, convolutions do not, and a mean, which is the field itself, never does."""
    wide = "stages.0.network={kind: dit, width: 64, depth: 2, heads: 2, patch: 4, embedding: 16}"
    made = toy(tmp_path, recipe, *([wide] if recipe != "edm" else []))
    stages, data = made.build()
    emulator = Emulator([moved(stage) for stage in stages.values()], {})
    assert emulator.precision("fp8", torch.device("cpu")) == expected
    check = emulator.check(data.conditions, {"time": data.target.time.values[0]})
    plain, half, low = (
        emulator.sample(check, 2, precision=name, device="cpu").to_array() for name in ("float32", "bfloat16", "fp8")
    )
    assert bool((low == half).all()) is (expected == "bfloat16")
    assert float(abs(low - plain).max()) < 0.2 * float(plain.std())


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("change", ["train", "load", "boundary"])
def test_whatever_changes_a_network_ends_its_fast_form(tmp_path, change, device):
    emulator, prepared = built(tmp_path, "edm", device)
    stage = emulator.stage
    stage.ready(stage.device, FAST)
    before = drawn(stage, prepared)
    if change == "train":
        stage.train()
        with torch.no_grad():
            for parameter in stage.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape).to(parameter))
        stage.eval()
    elif change == "load":
        stage.load_state_dict(
            {name: value + 0.2 * (name[-6:] == "weight") for name, value in stage.state_dict().items()}
        )
    else:
        stage.set_boundary(("reflect", "reflect"))
    plain = drawn(stage, prepared)
    assert stage.execution is None
    stage.ready(stage.device, FAST)
    after = drawn(stage, prepared)
    assert (after - plain).std() < 0.1 * (after - before).std()


def test_the_same_execution_again_costs_nothing_and_another_one_counts(tmp_path):
    emulator, _ = built(tmp_path, "edm")
    stage = emulator.stage
    stage.ready(stage.device, FAST)
    first = stage.fast(stage.denoiser)
    stage.ready(stage.device, FAST)
    assert stage.fast(stage.denoiser) is first
    stage.ready(stage.device, Execution("float32"))
    assert stage.fast(stage.denoiser) is not first


def test_an_option_that_does_not_exist_is_refused(tmp_path):
    emulator, _ = built(tmp_path, "edm")
    with pytest.raises(TypeError, match="batchsize"):
        emulator.ready(batchsize=4)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_fast_form_is_of_the_whole_denoiser(tmp_path, device):
    """Nothing is done to its answer; in float32 it is the plain denoiser but for the order of sums."""
    emulator, _ = built(tmp_path, "edm", device)
    stage = emulator.stage
    x, sigma = torch.randn(2, *stage.output_shape, device=stage.device), torch.tensor([0.3, 4.0], device=stage.device)
    size, tolerance = x.shape[2:], 1e-5 if device == "cpu" else 1e-2  # TF32 may be on
    cond = Context(torch.randn(2, stage.network.context_channels, *size, device=stage.device))
    with torch.no_grad():
        plain = stage.accelerated(size)(x, sigma, cond)
        stage.ready(stage.device, Execution("float32"))
        torch.testing.assert_close(stage.accelerated(size)(x, sigma, cond), plain, rtol=tolerance, atol=tolerance)
        stage.fast(stage.denoiser)._fast = lambda x, sigma, cond: torch.full_like(x, 3.0)
        assert bool((stage.accelerated(size)(x, sigma, cond) == 3.0).all())
