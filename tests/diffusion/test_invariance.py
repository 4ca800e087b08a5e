"""A member is the same whatever is computed beside it, and however; noise laws are carried by all parts together."""

import math

import numpy as np
import pytest
import torch

from sciffusion.context import Context
from sciffusion.diffusion import Masked, NoiseRange, Preconditioned, denoising_loss, karras, paths, sample, solvers
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.likelihood import log_likelihood
from sciffusion.diffusion.noises import draw, heavy_tails
from sciffusion.diffusion.problems import GaussianField, GaussianMixture, power_law
from sciffusion.diffusion.sampling import gaussian, integrate, levels
from sciffusion.errors import SciffusionError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Network(torch.nn.Module):
    """A small convolutional network that uses the level and the condition."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(2, 8, 3, padding=1, padding_mode="circular")
        self.last = torch.nn.Conv2d(8, 1, 3, padding=1, padding_mode="circular")

    def forward(self, x, c_noise, cond):
        hidden = self.first(torch.cat([x, cond.channels], dim=1)) * (1 + c_noise.reshape(-1, 1, 1, 1))
        return self.last(torch.tanh(hidden))


def inputs(batch):
    x = 40 * torch.randn(batch, 1, 6, 9, generator=seeded())
    cond = Context(channels=torch.randn(batch, 1, 6, 9, generator=seeded(1)))
    z = torch.randn(60, batch, 1, 6, 9, generator=seeded(2))
    return x, cond, z


SOLVERS = [
    ("dpmpp-2m", {}),
    ("heun", {"churn": 10.0}),
    ("adams", {}),
    ("dpmpp-3m-sde", {}),
    ("predictor-corrector", {}),
]


@pytest.mark.parametrize(("solver", "settings"), SOLVERS)
def test_a_member_is_the_same_for_batches_of_1_3_and_64(solver, settings):
    denoiser = Preconditioned(Network())
    x, cond, z = inputs(64)
    sigmas = karras(8, 0.02, 40.0)
    whole = sample(denoiser, x, sigmas, solver, cond, lambda i: z[i], **settings)
    for batch in (1, 3):
        parts = []
        for at in range(0, 6, batch):
            pick = slice(at, at + batch)
            part = cond.map(lambda value, pick=pick: value[pick])
            parts.append(sample(denoiser, x[pick], sigmas, solver, part, lambda i, p=pick: z[i][p], **settings))
        difference = (torch.cat(parts) - whole[:6]).abs().max()  # rounding: convolutions depend on the batch size
        assert float(difference) < 1e-6 * float(whole.abs().max())


@pytest.mark.parametrize(
    ("solver", "settings", "backend"),
    [*((*s, "aot_eager") for s in SOLVERS), pytest.param("adams", {}, "inductor", marks=pytest.mark.slow)],
)
def test_eager_equals_compiled_in_one_graph(solver, settings, backend):
    denoiser = Preconditioned(Network())
    x, cond, z = inputs(2)
    plan = solvers.plan(solver, karras(3, 0.02, 40.0), **settings)
    sigma = levels(plan, x)

    def run(x, sigma, channels, z):
        return integrate(denoiser, x, plan, sigma, Context(channels=channels), lambda i: z[i])

    with torch.no_grad():
        eager = run(x, sigma, cond.channels, z)
        torch._dynamo.reset()
        compiled = torch.compile(run, backend=backend, fullgraph=True)(x, sigma, cond.channels, z)
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", solvers.names())
def test_the_loop_never_asks_the_device_for_a_number(solver):
    """On the meta device tensors have no values, so whatever waits for one fails; the coefficients are on the host."""
    x = torch.empty(2, 1, 4, device="meta")
    plan = solvers.plan(solver, karras(5, 0.02, 40.0))
    assert all(type(c) is float for row in plan.rows for c in (row.sigma, row.noise, *row.x, *row.b, *row.y, *row.g))
    end = sample(Halved(), x, [], plan, noise=lambda i: torch.empty_like(x))
    assert (end.device.type, end.shape) == ("meta", x.shape)


@pytest.mark.parametrize("solver", solvers.names())
@pytest.mark.parametrize("sigma_max", [80.0, 1000.0])
def test_float32_is_enough_down_to_the_smallest_levels(solver, sigma_max):
    """From levels of 1,000 to 0.002, where differences of large numbers would show.

    The members are those of float64 to 2e-5 of their sd, some hundred units of rounding.
    """
    laws = [GaussianField(power_law(4.0), (8, 8), mean=mean) for mean in (0.3, -0.5)]
    denoiser, z = GaussianMixture(laws).denoiser(), torch.randn(42, 4, 1, 8, 8, generator=seeded(), dtype=torch.float64)
    wide, narrow = (
        sample(
            denoiser,
            (sigma_max * z[0]).to(dtype),
            karras(20, 0.002, sigma_max, 9.0),
            solver,
            noise=lambda i, dtype=dtype: z[i + 1].to(dtype),
        )
        for dtype in (torch.float64, torch.float32)
    )
    assert float((narrow - wide).abs().max()) < 2e-5 * float(wide.std())


class Halved(Denoiser):
    def forward(self, x, sigma, cond=None):
        return x / 2


def test_arithmetic_follows_the_start_and_networks_in_low_precision_are_cast():
    class Low(Denoiser):
        def forward(self, x, sigma, cond=None):
            assert sigma.dtype == x.dtype
            return (x / (1 + sigma.reshape(-1, 1, 1) ** 2)).to(torch.bfloat16)

    for dtype in (torch.float32, torch.float64):
        assert sample(Low(), torch.ones(2, 1, 4, dtype=dtype), karras(5, 0.1, 5.0)).dtype == dtype
    network = torch.nn.Conv1d(1, 1, 1).bfloat16()
    denoiser = Preconditioned(_Cast(network))
    for dtype in (torch.float32, torch.float64):  # of sigma; the answer has that of x
        assert denoiser(torch.ones(2, 1, 4), torch.ones(2, dtype=dtype)).dtype == torch.float32


class _Cast(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, c_noise, cond):
        return self.network(x.bfloat16())


def test_the_start_and_the_condition_are_left_alone_and_gradients_can_be_turned_on():
    class Guided(Denoiser):
        def forward(self, x, sigma, cond=None):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_(True)
                (slope,) = torch.autograd.grad((leaf**2).sum(), leaf)
            return slope / 4

    x = torch.randn(2, 1, 4, generator=seeded())
    kept = x.clone()
    answer = sample(Guided(), x, karras(4, 0.1, 5.0), "heun")
    assert torch.equal(x, kept)
    assert not answer.requires_grad


def test_progress_counts_the_calls():
    seen = []
    sample(
        Guide(), torch.zeros(1, 1, 4), karras(3, 0.1, 5.0), "heun", progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(i, 5) for i in range(1, 6)]


class Guide(Denoiser):
    def forward(self, x, sigma, cond=None):
        return x


def test_noise_that_is_missing_is_asked_for():
    with pytest.raises(SciffusionError, match="noise="):
        sample(Guide(), torch.zeros(1, 1, 4), karras(3, 0.1, 5.0), "ddpm")


# Student-t noise -----------------------------------------------------------------------------------------------------


class TailDenoiser(Denoiser):
    """Exact for one value x0 = 0 or 1 with even odds under Student-t noise: the posterior mean by Bayes."""

    noise, dof = "student-t", 5.0

    def forward(self, x, sigma, cond=None):
        sigma = sigma.reshape(-1, 1, 1)
        law = torch.distributions.StudentT(self.dof)
        odds = law.log_prob((x - 1) / sigma) - law.log_prob(x / sigma)
        return torch.sigmoid(odds)


def test_student_noise_has_its_variance_its_tails_and_one_scale_per_sample():
    z = torch.randn(200_000, 1, 2, generator=seeded(), dtype=torch.float64)
    heavy = heavy_tails(z, 6.0, seeded(1))
    assert float(heavy.var()) == pytest.approx(6 / 4, rel=0.02)
    oracle = torch.distributions.StudentT(torch.tensor(6.0))
    share = float((heavy[:, 0, 0] > 3.143).double().mean())  # the 99 % quantile of t with 6 degrees of freedom
    assert share == pytest.approx(0.01, rel=0.1)
    assert float(oracle.log_prob(torch.tensor(0.0))) < 0  # a proper density
    torch.testing.assert_close(heavy[:, 0, 0] / z[:, 0, 0], heavy[:, 0, 1] / z[:, 0, 1])
    assert heavy_tails(z, math.inf) is z


def test_loss_start_and_preconditioning_share_the_law_of_the_denoiser():
    """The loss of the exact denoiser is below that of any linear one only if the noise drawn is its own."""
    denoiser = TailDenoiser()
    z = draw(denoiser, torch.zeros(100_000, 1, 1, dtype=torch.float64), seeded())
    assert float(z.var()) == pytest.approx(5 / 3, rel=0.05)
    start = paths.VPLinear().start(torch.ones(1, 1, 1), 10.0, denoiser)
    assert float(start) == 10.0
    assert Preconditioned(torch.nn.Identity(), dof=5.0).noise == "student-t"
    assert Masked(denoiser).dof == 5.0
    x0 = torch.bernoulli(torch.full((4000, 1, 1), 0.5), generator=seeded())
    exact, worse = (denoising_loss(d, x0, None, NoiseRange(0.3, 3.0), seeded(1)).mean() for d in (denoiser, Shrunk()))
    assert float(exact) < float(worse)


class Shrunk(TailDenoiser):
    def forward(self, x, sigma, cond=None):
        return 0.9 * super().forward(x, sigma) + 0.05


def test_the_ode_of_student_noise_carries_tails_to_the_data():
    """Deterministic solvers map t noise onto the two values with even odds; adding Gaussian noise is refused."""
    denoiser = TailDenoiser()
    z = heavy_tails(torch.randn(4000, 1, 1, generator=seeded(), dtype=torch.float64), 5.0, seeded(1))
    end = sample(denoiser, 0.5 + 30 * z, np.append(np.geomspace(30, 0.01, 60), 0.0), "heun")
    assert float((end.round() - end).abs().quantile(0.95)) < 0.02
    assert float(end.mean()) == pytest.approx(0.5, abs=0.03)
    for solver, settings in (("ddpm", {}), ("heun", {"churn": 3.0})):
        with pytest.raises(SciffusionError, match="student-t"):
            sample(denoiser, z, karras(4, 0.1, 5.0), solver, noise=gaussian(z), **settings)
    with pytest.raises(SciffusionError, match="student-t"):
        log_likelihood(denoiser, z, 0.1, 5.0)
