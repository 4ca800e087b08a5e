"""Paths are clocks: inverses, closed forms, and the same samples whichever path or parameterisation carries D."""

import numpy as np
import pytest
import torch

from sciffusion.diffusion import Preconditioned, karras, parameterization, paths, sample
from sciffusion.diffusion.objectives import denoising_error
from sciffusion.diffusion.problems import GaussianField, power_law
from sciffusion.diffusion.sigmas import DiscreteLevels, NoiseRange, UniformTime
from sciffusion.diffusion.solvers.gain import solver_gain
from sciffusion.diffusion.weights import LearnedUncertainty, edm_weight, matched_weight, min_snr, noise_weight
from sciffusion.errors import SciffusionError

PATHS = [
    paths.VPLinear(),
    paths.SubVP(),
    paths.VPCosine(),
    paths.VE(),
    paths.RectifiedFlow(),
    paths.Trigonometric(),
]
NAMES = ["edm", "epsilon", "x0", "velocity", "flow"]
FIELD = GaussianField(power_law(3.0), (12,))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def times(path):
    return torch.linspace(path.t_min, path.t_max, 50, dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_time_is_the_inverse_of_level_and_levels_rise(path):
    t = times(path)
    levels = path.level(t)
    assert (levels.diff() > 0).all()
    torch.testing.assert_close(path.time(levels), t, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(levels, path.sd(t) / path.alpha(t), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("path", [paths.VPLinear(), paths.SubVP()], ids=["vp", "sub-vp"])
def test_sde_coefficients_give_the_marginals(path):
    """d log alpha / dt = -beta / 2, and d sd^2 / dt = -beta sd^2 + g^2 with the paper's g (eq. 11 and 14)."""
    t = times(path).requires_grad_(True)
    beta = 0.1 + 19.9 * t
    (decay,) = torch.autograd.grad(path.alpha(t).log().sum(), t, retain_graph=True)
    torch.testing.assert_close(decay, -beta / 2)
    (growth,) = torch.autograd.grad((path.sd(t) ** 2).sum(), t)
    integral = path.integral(t)
    g2 = beta * (1 - torch.exp(-2 * integral)) if isinstance(path, paths.SubVP) else beta
    torch.testing.assert_close(growth, -beta * path.sd(t) ** 2 + g2, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_a_path_is_a_change_of_scale(path):
    t = times(path)[10:20]
    x0, z = FIELD.sample(10, seeded()), torch.randn(10, 1, 12, generator=seeded(1), dtype=torch.float64)
    x_t = path.alpha(t)[:, None, None] * x0 + path.sd(t)[:, None, None] * z
    x = path.into_frame(x_t, t)
    torch.testing.assert_close(x, x0 + path.level(t)[:, None, None] * z)
    torch.testing.assert_close(path.from_frame(x, path.level(t)), x_t)


def test_end_points():
    z = torch.ones(1, 1, 4)
    assert float(paths.VPLinear().start(z, 3.0)[0, 0, 0]) == pytest.approx(10**0.5)
    assert float(paths.VE().start(z, 3.0)[0, 0, 0]) == 3.0
    flow = paths.RectifiedFlow(eps=1e-3)
    assert flow.sigma_max == pytest.approx(999.0)
    assert flow.grid(10)[[0, -1]] == pytest.approx([999.0, 0.0])
    assert paths.VE(0.01, 50.0).grid(5)[[0, -2]] == pytest.approx([50.0, 0.01])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_members_started_on_a_path_arrive_with_the_variance_of_the_data(path):
    """White data of unit variance, for which Adams' steps with the velocity are exact whatever the grid.

    A start of sd sqrt(1 + sigma^2) is exact, VE's lacks the data's own part; the last step is x <- D, not the flow.
    """
    law, grid = GaussianField(np.ones_like, (4,)), path.grid(6)
    z = torch.randn(3, 1, 4, generator=seeded(), dtype=torch.float64)
    assert (grid[0], grid[-2], grid[-1]) == (path.sigma_max, pytest.approx(path.sigma_min), 0.0)
    assert path.time(torch.tensor(grid[0])) == pytest.approx(path.t_max)
    end = sample(law.denoiser(), path.start(z), grid, "adams", prediction="velocity")
    exact = end * np.sqrt(1 + path.sigma_min**2)
    share = path.sigma_max / np.hypot(1, path.sigma_max) if isinstance(path, paths.VE) else 1.0
    torch.testing.assert_close(exact, share * z, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_float32_is_enough_from_the_smallest_level_to_the_largest(path):
    """1 - alpha^2 would lose half of the digits near t_min; a few units of float32 rounding of t are left."""
    t = times(path).float()
    level, wide = path.level(t), path.level(t.double())
    for found, exact in [
        (level, wide),
        (path.sd(t), path.sd(t.double())),
        (path.alpha(t), path.alpha(t.double())),
        (path.level(path.time(level)), wide),
    ]:
        torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=0)


class Exact(torch.nn.Module):
    """The network that a parameterisation would have learnt for FIELD, told the level through a clock."""

    def __init__(self, kind, level_of):
        super().__init__()
        self.kind, self.level_of = kind, level_of

    def forward(self, x_in, c_noise, cond):
        sigma = self.level_of(c_noise)
        c_skip, c_out, c_in, _ = (c.reshape(-1, 1, 1) for c in self.kind(sigma))
        x = x_in / c_in
        return (FIELD.denoiser()(x, sigma) - c_skip * x) / c_out


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("solver", ["dpmpp-2m", "heun", "unipc"])
def test_same_samples_whatever_path_and_parameterisation_carry_the_denoiser(name, solver):
    sigmas = karras(12, 0.02, 40.0)
    z = torch.randn(3, 1, 12, generator=seeded(), dtype=torch.float64)
    expected = sample(FIELD.denoiser(), 40 * z, sigmas, solver)
    for path in PATHS:
        kind = parameterization.by_name(name, clock=path.time)
        network = Preconditioned(Exact(parameterization.by_name(name), path.level), kind)
        torch.testing.assert_close(sample(network, 40 * z, sigmas, solver), expected, rtol=1e-6, atol=1e-6)


def test_velocity_is_minus_edm_and_flow_is_noise_minus_field():
    """The targets that make D exact: F = (x0 - c_skip x) / c_out for a known x0."""
    x0, z = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    sigma = torch.rand(5, dtype=torch.float64) * 3 + 0.1

    def target(name):
        c_skip, c_out, _, _ = parameterization.by_name(name)(sigma)
        return (x0 - c_skip * (x0 + sigma * z)) / c_out

    alpha = (1 + sigma**2).rsqrt()
    torch.testing.assert_close(target("epsilon"), z)
    torch.testing.assert_close(target("x0"), x0)
    torch.testing.assert_close(target("velocity"), alpha * z - sigma * alpha * x0)
    torch.testing.assert_close(target("velocity"), -target("edm"))
    torch.testing.assert_close(target("flow"), z - x0)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *((name, paths.Trigonometric()) for name in ("edm", "epsilon", "x0", "velocity")),
        ("flow", paths.RectifiedFlow()),
    ],
)
def test_a_network_is_shown_the_papers_own_x_t(name, path):
    """c_in x is alpha x0 + s z of a variance-preserving path, whichever it is, or of the flow."""
    sigma = torch.logspace(-2, 2, 9, dtype=torch.float64)
    x = torch.randn(9, 1, 3, generator=seeded(), dtype=torch.float64)
    _, _, c_in, c_noise = parameterization.by_name(name, clock=path.time)(sigma)
    torch.testing.assert_close(c_in[:, None, None] * x, path.from_frame(x, sigma))
    torch.testing.assert_close(path.level(c_noise), sigma)
    torch.testing.assert_close(parameterization.by_name(name)(sigma)[3], sigma.log() / 4)


@pytest.mark.parametrize("name", ["edm", "velocity"])
@pytest.mark.parametrize("dof", [float("inf"), 5.0])
def test_input_and_target_have_unit_variance(name, dof):
    """For data of sd sigma_data and noise of the named law, at every level (EDM appendix B.6, t-EDM section 3.4)."""
    sigma = torch.logspace(-2, 2, 9, dtype=torch.float64)
    c_skip, c_out, c_in, _ = parameterization.by_name(name)(sigma, 0.5, dof)
    noise = sigma**2 * (1 if dof == float("inf") else dof / (dof - 2))
    torch.testing.assert_close(c_in**2 * (0.25 + noise), torch.ones_like(sigma))
    torch.testing.assert_close(((1 - c_skip) ** 2 * 0.25 + c_skip**2 * noise) / c_out**2, torch.ones_like(sigma))


def test_discrete_schedules_have_the_published_ends_and_snap():
    linear, cosine = paths.DiscreteVP.linear(), paths.DiscreteVP.cosine()
    assert linear.levels[[0, -1]] == pytest.approx([0.01, 157.4], rel=1e-3)
    assert cosine.betas.max() == 0.999
    snapped = linear.snap(karras(20, 0.02, 120.0))
    assert np.isin(snapped[:-1], linear.levels).all()
    assert snapped[-1] == 0
    assert (np.diff(snapped) < 0).all()
    assert np.abs(np.log(snapped[:-1] / karras(20, 0.02, 120.0)[:-1])).max() < 0.2
    index = linear.index(torch.as_tensor(linear.levels))
    assert torch.equal(index, torch.arange(1000, dtype=torch.float64))
    assert len(linear.grid(50)) == 51


@pytest.mark.parametrize("betas", [[0.1, 1.0], [0.0, 0.1], [[0.1, 0.2]]])
def test_betas_that_are_no_schedule_are_refused(betas):
    with pytest.raises(SciffusionError, match="betas"):
        paths.DiscreteVP(np.array(betas))


def test_the_discrete_cosine_is_the_continuous_one_at_its_nodes():
    """Alpha_bar(t) = cos^2 over its value at 0, until betas are capped at 0.999."""
    discrete, path = paths.DiscreteVP.cosine(200), paths.VPCosine()
    t = torch.arange(1, 200, dtype=torch.float64) / 200
    np.testing.assert_allclose(discrete.levels[:-1], path.level(t).numpy(), rtol=1e-9)
    assert discrete.levels[-1] == pytest.approx(np.sqrt((1 + discrete.levels[-2] ** 2) / 1e-3 - 1))
    assert float(path.level(torch.tensor(0.5))) == pytest.approx(
        np.sqrt((np.cos(0.008 / 1.008 * np.pi / 2) / np.cos(0.508 / 1.008 * np.pi / 2)) ** 2 - 1)
    )
    assert paths.DiscreteVP.cosine().levels[-2] > path.sigma_max > 100  # the cut of the continuous path


def test_continuous_vp_is_the_limit_of_the_discrete_schedule():
    """Betas of 1 / T times beta(t): the levels meet at the nodes as 1 / T."""
    path = paths.VPLinear()

    def gap(steps):
        t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        discrete = paths.DiscreteVP(((0.1 + 19.9 * t) / steps).numpy())
        return np.abs(np.log(discrete.levels[steps // 2] / float(path.level(t[steps // 2]))))

    assert gap(4000) < 0.3 * gap(1000)


def test_ancestral_sampling_on_the_trained_levels_reproduces_the_spectrum():
    levels = paths.DiscreteVP.linear().grid(1000)
    for variance in ("small", "large"):
        assert solver_gain("ddpm", levels, [1.0, 0.1], variance=variance) == pytest.approx(1.0, abs=0.02)


def test_logit_normal_time_is_log_normal_sigma():
    """With t = sigma / (1 + sigma), logit t = log sigma: one is normal (m, s) when the other is."""
    draws = NoiseRange(1e-4, 1e4, p_mean=0.5, p_std=1.0, uniform=0.0).sample(40_000, seeded()).double()
    logit = torch.logit(draws / (1 + draws))
    assert float(logit.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(logit.std()) == pytest.approx(1.0, abs=0.02)


def test_levels_are_uniform_in_time_or_in_the_discrete_step():
    t = UniformTime(1e-3).sample(10_000, seeded()).double()
    counts, _ = np.histogram((t / (1 + t)).numpy(), bins=10, range=(0, 1))
    assert np.abs(counts - 1000).max() < 20
    schedule = paths.DiscreteVP.linear(100)
    draws = DiscreteLevels(schedule.levels).sample(5000, seeded())
    assert torch.equal(torch.bincount(schedule.nearest(draws)), torch.full((100,), 50))


def test_weights_are_those_of_the_papers_losses():
    """|D - x0|^2 weighed is |F - target|^2, for an arbitrary network."""
    sigma, z = torch.tensor([0.1, 1.0, 7.0]), torch.randn(3, 1, 12, generator=seeded())
    x0 = torch.randn(3, 1, 12, generator=seeded(1))
    network = torch.nn.Conv1d(1, 1, 3, padding=1)
    for name, target in [("epsilon", z), ("flow", z - x0), ("x0", x0)]:
        kind = parameterization.by_name(name)
        denoiser = Preconditioned(_Plain(network), kind)
        error = denoising_error(denoiser, x0, sigma, z)
        c_in = kind(sigma)[2].reshape(-1, 1, 1)
        direct = (network(c_in * (x0 + sigma.reshape(-1, 1, 1) * z)) - target).square().mean((1, 2))
        torch.testing.assert_close(matched_weight(kind)(sigma) * error, direct, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(matched_weight(parameterization.EDM())(sigma), edm_weight(sigma))
    torch.testing.assert_close(matched_weight(parameterization.Epsilon())(sigma), noise_weight(sigma))
    torch.testing.assert_close(min_snr(sigma), torch.tensor([5.0, 1.0, 1 / 49]))


class _Plain(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, c_noise, cond):
        return self.network(x)


def test_learned_uncertainty_finds_the_log_of_the_loss():
    """The minimum over u of loss / e^u + u is at u = log loss, where the weighed loss has unit scale everywhere."""
    torch.manual_seed(0)
    module = LearnedUncertainty()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    sigma = torch.logspace(-2, 2, 32)
    loss = 0.1 + sigma / (1 + sigma)
    for _ in range(400):
        optimiser.zero_grad()
        module(loss, sigma).mean().backward()
        optimiser.step()
    assert (module.log_variance(sigma) - loss.log()).abs().max() < 0.1
