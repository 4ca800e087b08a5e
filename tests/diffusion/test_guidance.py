"""Guidance is a denoiser: it composes with solvers, leaves batch-mates alone and says what it needs."""

import math

import pytest
import torch

from sciffusion.context import Context
from sciffusion.diffusion import Preconditioned, karras, sample
from sciffusion.diffusion.denoiser import Denoiser, require_capturable
from sciffusion.diffusion.guidance import (
    MMPS,
    AutoGuided,
    ClassifierFree,
    DivergenceFree,
    Projected,
    Replacement,
    Retracted,
    by_name,
    multiplicative,
)
from sciffusion.diffusion.problems import GaussianField, power_law
from sciffusion.diffusion.sampling import gaussian
from sciffusion.errors import SciffusionError
from sciffusion.operators import BlockMean, Points, Stations, project

GRID = (6, 8)
METHODS = ("mmps", "tmpd", "pigdm", "dps")


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Network(torch.nn.Module):
    """A small convolutional network of two channels that uses the level and, if there is one, the condition."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")
        self.last = torch.nn.Conv2d(8, 2, 3, padding=1, padding_mode="circular")

    def forward(self, x, c_noise, cond):
        given = x[:, :1] * 0 if cond is None or cond.channels is None else cond.channels
        hidden = self.first(torch.cat([x, given], dim=1)) * (1 + c_noise.reshape(-1, 1, 1, 1))
        return self.last(torch.tanh(hidden))


def network(seed=0):
    return Preconditioned(Network(seed))


def stations():
    return Stations([[0.3, 1.5], [2.0, 7.0], [4.6, 3.2], [5.0, 0.1]], GRID, [False, True])


def inputs(batch):
    x, sigma = 3 * randn(batch, 2, *GRID), torch.linspace(0.02, 8, 64)[:batch]
    return x, sigma, Context(channels=randn(batch, 1, *GRID, seed=1))


# Extrapolation -------------------------------------------------------------------------------------------------------


class Regimes(Denoiser):
    """Exact for x0 ~ N(m, 1) with m = the condition, and for x0 ~ N(0, 1 + 1) without."""

    def forward(self, x, sigma, cond=None):
        s = sigma.reshape(-1, 1, 1) ** 2
        if cond is None or cond.channels is None:
            return x * 2 / (2 + s)
        return cond.channels + (x - cond.channels) / (1 + s)


def test_weight_one_is_no_guidance_and_calls_the_denoiser_once():
    x, sigma, cond = inputs(3)
    denoiser = network()
    calls = []
    denoiser.register_forward_hook(lambda *_: calls.append(1))
    plain = denoiser(x, sigma, cond)
    for guided in (ClassifierFree(denoiser, weight=1.0), AutoGuided(denoiser, network(1), weight=1.0)):
        assert torch.equal(guided(x, sigma, cond), plain)
    assert len(calls) == 3


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.5])
def test_classifier_free_guidance_has_the_score_of_a_power_of_the_likelihood(weight):
    """Score = (1 - w) grad log p(x) + w grad log p(x | c): weight 0 is no condition, above 1 it counts repeatedly."""
    x, sigma = randn(4, 1, 5), torch.tensor([0.1, 0.5, 2.0, 9.0])
    mean = randn(4, 1, 5, seed=1)
    s = sigma.reshape(-1, 1, 1) ** 2
    score = -(1 - weight) * x / (2 + s) - weight * (x - mean) / (1 + s)
    guided = ClassifierFree(Regimes(), weight=weight)(x, sigma, Context(channels=mean))
    torch.testing.assert_close(guided, x + s * score, rtol=1e-4, atol=1e-5)


def test_guidance_acts_in_its_interval_sample_by_sample():
    x, _, cond = inputs(4)
    sigma = torch.tensor([0.5, 1.0, 2.0, 3.0])
    denoiser, weak = network(), network(1)
    plain = denoiser(x, sigma, cond)
    for build in (lambda i: ClassifierFree(denoiser, None, 3.0, i), lambda i: AutoGuided(denoiser, weak, 3.0, i)):
        everywhere, inside = build((0.0, math.inf))(x, sigma, cond), build((0.5, 2.0))(x, sigma, cond)
        assert torch.equal(inside[[0, 3]], plain[[0, 3]])
        assert torch.equal(inside[[1, 2]], everywhere[[1, 2]])
        assert not torch.allclose(inside[[1, 2]], plain[[1, 2]])


def test_the_null_condition_is_shared_by_the_batch_and_keeps_the_cells_that_exist():
    x, sigma, cond = inputs(3)
    valid = randn(3, 1, *GRID, seed=4) > 0
    cond = Context(channels=cond.channels, valid=valid)
    null = Context(channels=randn(1, 1, *GRID, seed=5))
    seen = []
    denoiser = network()
    denoiser.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[2]))
    ClassifierFree(denoiser, null, 2.0)(x, sigma, cond)
    torch.testing.assert_close(seen[1].channels, null.channels.expand(3, 1, *GRID))
    assert torch.equal(seen[1].valid, valid)


def test_autoguidance_takes_the_errors_of_a_weaker_model_out():
    """A model wrong by e and one wrong by 3 e in the same direction: weight 1.5 is exact."""
    field = GaussianField(power_law(2.0), (12,))
    exact = field.denoiser()

    class Wrong(Denoiser):
        def __init__(self, size):
            super().__init__()
            self.size = size

        def forward(self, x, sigma, cond=None):
            return exact(x, sigma) + self.size * torch.sin(x)

    x, sigma = randn(2, 1, 12, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    guided = AutoGuided(Wrong(0.1), Wrong(0.3), weight=1.5)
    torch.testing.assert_close(guided(x, sigma), exact(x, sigma))


# What every guidance keeps -------------------------------------------------------------------------------------------


def wrapped(name, denoiser, pick):
    """A guided denoiser for the samples ``pick`` of a batch of 64."""
    y = randn(64, 2, 4, seed=2)[pick]
    if name in (*METHODS, "replacement"):
        return by_name(name)(denoiser, stations(), y, 0.05)
    coarse = randn(64, 2, 3, 2, seed=3)[pick]
    blocks = BlockMean(GRID, (2, 4))
    return {
        "classifier-free": lambda: ClassifierFree(denoiser, None, 2.0, (0.1, 4.0)),
        "auto": lambda: AutoGuided(denoiser, network(1), 2.0),
        "projected": lambda: Projected(denoiser, project(blocks), coarse),
        "retracted": lambda: Retracted(denoiser, multiplicative(blocks, coarse.exp())),
        "divergence-free": lambda: DivergenceFree(denoiser, (0, 1), (1.0, 2.0)),
        "composed": lambda: Projected(
            MMPS(ClassifierFree(denoiser, None, 1.5), stations(), y, 0.05), project(blocks), coarse
        ),
    }[name]()


NAMES = (*METHODS, "replacement", "classifier-free", "auto", "projected", "retracted", "divergence-free", "composed")


@pytest.mark.parametrize("name", NAMES)
def test_a_guided_member_is_the_same_for_batches_of_1_3_and_64(name):
    denoiser = network()
    x, _, cond = inputs(64)
    z = randn(8, 64, 2, *GRID, seed=6)

    def run(pick):
        part = cond.map(lambda value: value[pick])
        guided = wrapped(name, denoiser, pick)
        return sample(guided, x[pick], karras(4, 0.05, 3.0), "heun", part, lambda i: z[i, pick], churn=2.0)

    whole = run(slice(0, 64))
    assert bool(whole.isfinite().all())
    for batch in (1, 3):
        parts = torch.cat([run(slice(at, at + batch)) for at in range(0, 6, batch)])
        assert float((parts - whole[:6]).abs().max()) < 1e-6 * float(whole.abs().max())  # rounding of convolutions


@pytest.mark.parametrize("name", NAMES)
def test_a_guided_call_does_not_see_what_stands_beside_it(name):
    """The other samples of the batch are replaced by very different ones."""
    denoiser, pick = network(), slice(0, 3)
    x, sigma, cond = inputs(3)
    other = torch.cat([x[:1], 50 * x[1:] + 7])
    guided = wrapped(name, denoiser, pick)
    torch.testing.assert_close(guided(other, sigma, cond)[0], guided(x, sigma, cond)[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("solver", ["dpmpp-2m", "adams", "unipc", "ddpm", "dpmpp-2m-sde", "predictor-corrector"])
@pytest.mark.parametrize("name", METHODS)
def test_guidance_works_inside_every_kind_of_solver_and_leaves_no_graph(name, solver):
    x, _, cond = inputs(2)
    guided = wrapped(name, network(), slice(0, 2))
    end = sample(guided, x, karras(5, 0.05, 3.0), solver, cond, gaussian(x, torch.Generator().manual_seed(0)))
    assert bool(end.isfinite().all())
    assert not end.requires_grad
    assert all(weight.grad is None for weight in guided.parameters())


def test_what_needs_gradients_says_so_and_is_refused_under_capture():
    for name in NAMES:
        guided = wrapped(name, network(), slice(0, 2))
        assert guided.gradients == (name in METHODS or name == "composed")
        if guided.gradients:
            with pytest.raises(SciffusionError, match="sample eagerly"):
                require_capturable(guided)
        else:
            require_capturable(guided)


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("name", ["mmps", "composed"])
def test_compiling_a_guidance_that_needs_gradients_is_refused_clearly(name, fullgraph):
    x, sigma, cond = inputs(2)
    guided = wrapped(name, network(), slice(0, 2))
    torch._dynamo.reset()
    with torch.no_grad(), pytest.raises(Exception, match=r"MMPS needs gradients inside every call.*graph capture") as e:
        torch.compile(guided, backend="aot_eager", fullgraph=fullgraph)(x, sigma, cond)
    assert fullgraph or isinstance(e.value, SciffusionError)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {*METHODS, "composed"}))
def test_guidance_without_gradients_compiles_to_one_graph_with_the_same_answer(name):
    x, sigma, cond = inputs(2)
    guided = wrapped(name, network(), slice(0, 2))
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(guided, backend="aot_eager", fullgraph=True)(x, sigma, cond)
        torch.testing.assert_close(compiled, guided(x, sigma, cond), rtol=1e-5, atol=1e-5)


def test_a_stream_that_records_a_graph_is_refused_like_the_compiler(monkeypatch):
    """What torch says while a CUDA graph is recorded, here on a machine without one."""
    x, sigma, cond = inputs(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(SciffusionError, match=r"MMPS needs gradients.*graph capture"):
        wrapped("mmps", network(), slice(0, 2))(x, sigma, cond)


def test_inference_mode_is_refused_clearly():
    x, sigma, cond = inputs(2)
    with torch.inference_mode(), pytest.raises(SciffusionError, match="no_grad"):
        wrapped("tmpd", network(), slice(0, 2))(x, sigma, cond)


def test_projection_around_observations_satisfies_both_as_far_as_their_errors_allow():
    x, _, cond = inputs(3)
    guided = wrapped("composed", network(), slice(0, 3))
    end = sample(guided, x, karras(12, 0.01, 3.0), "dpmpp-2m", cond)
    assert float((BlockMean(GRID, (2, 4))(end) - guided.y).abs().max()) < 1e-6 * float(end.abs().max())


class Repelling(Denoiser):
    """No network should be like this, but one may be, somewhere: its Jacobian -1/2 is no covariance."""

    def forward(self, x, sigma, cond=None):
        return -x / 2


def test_a_jacobian_that_is_no_covariance_does_no_harm():
    """Moment matching takes no step in such a direction, and TMPD counts it as certain."""
    operator, y = Points(torch.cartesian_prod(torch.arange(6), torch.arange(8)), GRID), randn(2, 2, 48)
    x, sigma, noise = randn(2, 2, *GRID, seed=1), torch.tensor([1.0, 3.0]), 0.1
    prior = Repelling()(x, sigma)
    torch.testing.assert_close(MMPS(Repelling(), operator, y, noise)(x, sigma), prior)
    misfit = y.reshape(prior.shape) - prior
    expected = prior - sigma.reshape(-1, 1, 1, 1) ** 2 / 2 * misfit / noise
    torch.testing.assert_close(by_name("tmpd")(Repelling(), operator, y, noise)(x, sigma), expected)


class Tails(Denoiser):
    noise, dof = "student-t", 5.0

    def forward(self, x, sigma, cond=None):
        return x / 2


class Detached(Denoiser):
    def forward(self, x, sigma, cond=None):
        return x.detach() / 2


def test_wrong_guidance_is_named_with_its_mend():
    y = randn(1, 2, 4)
    with pytest.raises(SciffusionError, match="student-t"):
        MMPS(Tails(), stations(), y, 0.1)
    with pytest.raises(SciffusionError, match="same noise"):
        AutoGuided(network(), Tails(), 2.0)
    with pytest.raises(SciffusionError, match="stack"):
        MMPS(MMPS(network(), stations(), y, 0.1), stations(), y, 0.1)
    with pytest.raises(SciffusionError, match="noise > 0"):
        MMPS(network(), stations(), y, 0.0)
    with pytest.raises(SciffusionError, match="out_shape"):
        MMPS(network(), stations(), randn(1, 2, 5), 0.1)
    with pytest.raises(SciffusionError, match="low < high"):
        ClassifierFree(network(), interval=(2.0, 1.0))
    with pytest.raises(SciffusionError, match="known: mmps"):
        by_name("4dvar")
    with pytest.raises(SciffusionError, match="iterations, tolerance"):
        MMPS(network(), stations(), y, 0.1, zeta=3.0)
    with pytest.raises(SciffusionError, match="it has: none"):
        by_name("tmpd")(network(), stations(), y, 0.1, iterations=3)
    with pytest.raises(SciffusionError, match="without gradients"):
        MMPS(Detached(), stations(), y, 0.1)(randn(1, 2, *GRID), torch.ones(1))
    assert by_name() is MMPS
    assert by_name("replacement") is Replacement
