"""The compiled derivative along a trajectory is the one that is written, which runs where torch cannot compile."""

import logging
from functools import partial

import pytest
import torch

from sciffusion.config import UNetSettings
from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Preconditioned
from sciffusion.diffusion.distillation import trajectory_derivative
from sciffusion.diffusion.flowmap import FlowMap, NetworkMap
from sciffusion.execution.derivative import CompiledDerivative
from sciffusion.networks.unet import UNet


@pytest.fixture
def graphs(monkeypatch):
    """How many graphs were compiled so far; to torch's own operators, for C++ takes a minute."""
    torch._dynamo.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    yield lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"] - before
    torch._dynamo.reset()


def fields(seed):
    generator = torch.Generator().manual_seed(seed)
    x, end, channels = (torch.randn(2, 1, 8, 8, generator=generator) for _ in range(3))
    sigma = 0.5 + torch.rand(2, generator=generator)
    return x, sigma, sigma / 3, end, Context(channels=channels)


def test_the_compiled_derivative_is_the_eager_one(graphs):
    """In one graph, for every map of a network; the network itself, compiled, still runs compiled."""
    torch.manual_seed(0)
    settings = UNetSettings(channels=8, multipliers=[1, 2], blocks=1, embedding=16, dropout=0.0)
    network = UNet(1, 1, rank=2, boundary=("periodic",) * 2, context_channels=1, late_features=2, settings=settings)
    for weight in (network.head.weight, network.embedding.late.weight):
        torch.nn.init.normal_(weight, std=0.1)
    network.compile(backend="aot_eager", dynamic=False)
    denoiser, compiled = Preconditioned(network), CompiledDerivative()
    for seed in range(2):
        student = NetworkMap(denoiser)
        x, sigma, sigma_to, end, cond = fields(seed)
        got = compiled(student, x, sigma, sigma_to, end, cond)
        assert not got.requires_grad
        expected = trajectory_derivative(student, x, sigma, sigma_to, end, cond)
        assert float(expected.abs().max()) > 0.1
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
        student.average(x, sigma, sigma_to, cond).square().mean().backward()
        assert graphs() == 2  # the derivative's and the step's
    with torch.autocast("cpu", torch.bfloat16):
        half = compiled(student, x, sigma, sigma_to, end, cond)
    assert graphs() == 3
    assert 0 < float((half - expected).square().mean().sqrt()) < 0.03 * float(expected.square().mean().sqrt())


class Unfit(FlowMap):
    """A map that torch does not compile in one piece."""

    def average(self, x, sigma, sigma_to, cond=None):
        torch._dynamo.graph_break()
        return sigma[:, None, None, None] * x.sin()


def test_what_cannot_be_compiled_is_derived_as_it_is_and_said_once(graphs, caplog):
    derivative, student = CompiledDerivative(), Unfit()
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            at = fields(seed)
            assert torch.equal(derivative(student, *at), trajectory_derivative(student, *at))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("the derivative along trajectories is not compiled (Unsupported: ")
