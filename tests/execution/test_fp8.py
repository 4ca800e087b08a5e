"""fp8 as an option: members of a trained transformer keep their scores and spectra, and what cannot do it says so."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from sciffusion.diffusion import NoiseRange, denoising_loss, karras
from sciffusion.diffusion.denoiser import Preconditioned
from sciffusion.diffusion.problems import GaussianField, power_law
from sciffusion.diffusion.sampling import sample
from sciffusion.evaluation.crps import crps
from sciffusion.execution import precision
from sciffusion.execution.accelerate import Execution, accelerate
from sciffusion.networks import fp8
from sciffusion.networks.dit import DiT
from sciffusion.networks.unet import UNet
from sciffusion.stage_settings import DiTSettings, UNetSettings

CPU = torch.device("cpu")
FIELD = GaussianField(power_law(2.0), (64,))
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def transformer(**settings):
    torch.manual_seed(0)
    settings = {"width": 64, "depth": 2, "heads": 2, "patch": 2, "embedding": 32, "dropout": 0.0} | settings
    return DiT(1, 1, rank=1, boundary=("periodic",), settings=DiTSettings(**settings))


def awake(network):
    """With values in the parameters that start at zero."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return network


@pytest.fixture(scope="module")
def trained():
    """A denoiser of Gaussian fields whose spectrum falls by three orders of magnitude."""
    network, levels, steps, draws = transformer(), NoiseRange.fit(3.0), 250, seeded(1)
    optimiser = torch.optim.Adam(network.parameters())
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        fields = FIELD.sample(32, draws).float()
        loss = denoising_loss(Preconditioned(network), fields, None, levels, draws).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def members(network, name, device):
    fast = accelerate(network, device, Execution(name, graphs=False))
    noise = 80 * torch.randn(256, 1, 64, generator=seeded(2)).to(device)
    with torch.no_grad():
        return sample(Preconditioned(fast), noise, karras(12, 0.01, 80.0), "dpmpp-2m").cpu()


def power(fields):
    return (np.abs(np.fft.rfft(fields.double().numpy())) ** 2).mean((0, 1))


@pytest.mark.parametrize("device", DEVICES)
def test_members_in_fp8_have_the_scores_and_the_spectrum_of_float32_ones(trained, device):
    """Stated: CRPS within 1 %, power within 1 % on average over wavenumbers, from the same noise."""
    if (reason := fp8.refusal(torch.device(device))) is not None:
        pytest.skip(reason)
    plain, half, low = (members(trained, name, torch.device(device)) for name in ("float32", "bfloat16", "fp8"))
    truth = FIELD.sample(1, seeded(3))[0].float().numpy()
    scores = [float(np.mean(crps(fields.numpy(), truth))) for fields in (plain, low)]
    assert scores[1] == pytest.approx(scores[0], rel=0.01)
    assert np.abs(np.log(power(low) / power(plain))).mean() < 0.01
    assert (low - plain).square().mean() > (half - plain).square().mean()  # it was rounded further


def test_answers_that_are_the_field_itself_are_not_rounded():
    network, x, noise = awake(transformer()), torch.randn(2, 1, 64, generator=seeded(0)), torch.zeros(2)
    plain = network.eval()(x, noise)
    direct = accelerate(network, CPU, Execution("fp8"), direct=True)(x, noise)
    torch.testing.assert_close(direct, plain, rtol=1e-5, atol=1e-5)
    assert (accelerate(network, CPU, Execution("fp8"))(x, noise) - plain).abs().max() > 1e-4


def test_guidance_differentiates_the_network_in_bfloat16():
    network, x = awake(transformer()), torch.randn(2, 1, 64, generator=seeded(0)).requires_grad_()
    found = {}
    for name in ("fp8", "bfloat16"):
        fast = accelerate(network, CPU, Execution(name))
        (found[name],) = torch.autograd.grad(fast(x, torch.zeros(2)).square().sum(), x)
    torch.testing.assert_close(found["fp8"], found["bfloat16"], rtol=0, atol=0)
    assert found["fp8"].abs().max() > 0


def test_a_network_without_a_layer_for_it_runs_in_bfloat16_and_says_so_once(caplog):
    precision._say.cache_clear()
    torch.manual_seed(0)
    settings = UNetSettings(channels=16, multipliers=[1, 2], blocks=1, embedding=16)
    network = awake(UNet(1, 1, rank=1, boundary=("periodic",), settings=settings))
    x, noise = torch.randn(2, 1, 32, generator=seeded(0)), torch.zeros(2)
    half = accelerate(network, CPU, Execution("bfloat16"))(x, noise)
    with caplog.at_level(logging.WARNING, logger="sciffusion"):
        answers = [accelerate(network, CPU, Execution("fp8", graphs=g))(x, noise) for g in (True, False)]
    for answer in answers:
        torch.testing.assert_close(answer, half, rtol=0, atol=0)
    line = "no fp8 (this UNet has no layer for it): bfloat16 instead"
    assert [record.message for record in caplog.records] == [line]


def test_a_device_without_it_runs_in_bfloat16_and_says_so_once(monkeypatch, caplog):
    precision._say.cache_clear()
    monkeypatch.setattr(fp8, "refusal", lambda device: "A100 has no units for it")
    network = transformer()
    with caplog.at_level(logging.WARNING, logger="sciffusion"):
        assert precision.precision_name("fp8", CPU, [network]) == "bfloat16"
        accelerate(network, CPU, Execution("fp8"))
    assert [record.message for record in caplog.records] == ["no fp8 (A100 has no units for it): bfloat16 instead"]
    assert all(getattr(module, "rounded", None) is None for module in network.modules())


def test_the_name_of_the_precision_is_that_of_what_runs():
    assert precision.precision_name("fp8", CPU, [transformer()]) == "fp8"
    assert precision.precision_name("fp8", CPU, [transformer(width=32)]) == "bfloat16"
    assert precision.precision_name("fp8", CPU) == "bfloat16"
    assert precision.precision_name("auto", CPU, [transformer()]) == "float32"


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
def test_on_a_gpu_it_is_recorded_as_everything_else(compile, monkeypatch, tmp_path):
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path))
    gpu, network = torch.device("cuda"), awake(transformer())
    if (reason := fp8.refusal(gpu)) is not None:
        pytest.skip(reason)
    x, noise = torch.randn(4, 1, 64, generator=seeded(0)).to(gpu), torch.zeros(4, device=gpu)
    with torch.no_grad():
        plain = network.eval().to(gpu)(x, noise)
        fast = accelerate(network, gpu, Execution("fp8", compile=compile))
        for _ in range(2):
            error = (fast(x, noise) - plain).square().mean().sqrt()
        assert error < 0.05 * plain.square().mean().sqrt()
    assert not fast._fast.broken
    assert not (compile and fast._fast.function.broken)
