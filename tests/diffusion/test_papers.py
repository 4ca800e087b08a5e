"""Published algorithms, written out in their own notation and coordinates, are the tables of solvers/ and the paths.

A mixture of Gaussian fields gives a nonlinear, exact denoiser; everything in float64, so that equality is to rounding.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from sciffusion.diffusion import Preconditioned, karras, parameterization, paths, sample, solvers
from sciffusion.diffusion.problems import GaussianField, GaussianMixture, power_law

LAWS = [GaussianField(power_law(3.0), (6,), mean=m, variance=v) for m, v in [(0.7, 0.8), (-0.4, 0.3)]]
EXACT = GaussianMixture(LAWS, [0.4, 0.6]).denoiser()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Z, START = normal(60, 3, 1, 6, seed=1), normal(3, 1, 6)


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def denoise(x, sigma):
    return EXACT(x, torch.full((len(x),), float(sigma), dtype=x.dtype))


def in_vp(sigmas):
    """alpha_t and sigma_t of the variance-preserving path at levels of our frame, 1 and 0 at the level 0."""
    alpha = 1 / np.sqrt(1 + np.asarray(sigmas) ** 2)
    return alpha, np.asarray(sigmas) * alpha


# DDPM and DDIM: discrete time, x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps -----------------------------------

SCHEDULE = paths.DiscreteVP.linear(50, 1e-3, 0.2)
BAR = np.cumprod(1 - SCHEDULE.betas)


class EpsilonNetwork(torch.nn.Module):
    """The network that DDPM trains: told the index of a step and x_t of unit variance, it answers the noise."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, x_t, index, cond=None):
        self.asked.append(float(index[0]))
        bar = torch.as_tensor(BAR)[index.long()].reshape(-1, 1, 1)
        sigma = (1 / bar - 1).sqrt()
        return (x_t / bar.sqrt() - EXACT(x_t / bar.sqrt(), sigma.flatten())) / sigma


def trained():
    return EpsilonNetwork(), parameterization.Epsilon(clock=SCHEDULE.index)


def test_levels_of_the_discrete_schedule_are_those_of_alpha_bar():
    np.testing.assert_allclose(SCHEDULE.levels, np.sqrt(1 / BAR - 1), rtol=1e-10)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_algorithm_2_over_all_its_steps(variance):
    """x_{t-1} = (x_t - beta_t / sqrt(1 - bar_t) eps) / sqrt(alpha_t) + sd_t z, without noise at the end."""
    network, kind = trained()
    x = START
    for t in reversed(range(len(BAR))):
        beta, bar, before = SCHEDULE.betas[t], BAR[t], BAR[t - 1] if t else 1.0
        eps = network(x, torch.full((3,), float(t)))
        x = (x - beta / math.sqrt(1 - bar) * eps) / math.sqrt(1 - beta)
        sd = math.sqrt(beta if variance == "large" else beta * (1 - before) / (1 - bar))
        if t:
            x = x + sd * Z[len(BAR) - t]
    denoiser, start = Preconditioned(network, kind), START / math.sqrt(BAR[-1])
    network.asked.clear()
    same(sample(denoiser, start, SCHEDULE.grid(50), "ddpm", noise=lambda i: Z[i], variance=variance), x)
    assert network.asked == list(range(49, -1, -1))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_is_equation_12_on_a_part_of_the_steps(eta):
    """Song et al. 2021, arXiv:2010.02502: sd = eta sqrt((1 - bar') / (1 - bar)) sqrt(1 - bar / bar')."""
    network, kind = trained()
    picked = [49, 33, 16, 0]
    x = START
    for i, t in enumerate(picked):
        bar, after = BAR[t], BAR[picked[i + 1]] if t else 1.0
        eps = network(x, torch.full((3,), float(t)))
        sd = eta * math.sqrt((1 - after) / (1 - bar)) * math.sqrt(1 - bar / after)
        x0 = (x - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        x = math.sqrt(after) * x0 + math.sqrt(1 - after - sd**2) * eps + sd * Z[i + 1]
    assert SCHEDULE.grid(4)[:-1] == pytest.approx(SCHEDULE.levels[picked])
    found = sample(
        Preconditioned(network, kind),
        START / math.sqrt(BAR[-1]),
        SCHEDULE.grid(4),
        "ddim",
        noise=lambda i: Z[i],
        eta=eta,
    )
    same(found, x)


# Continuous time: any path's own coordinates -----------------------------------------------------------------------


def test_rectified_flow_is_euler_in_its_own_time():
    """dx_t / dt = v(x_t, t) = E[z - x0 | x_t], from t = 1 - eps to 0 in equal steps (Liu et al. 2022)."""
    path, steps = paths.RectifiedFlow(eps=0.01, t_min=0.11), 9
    x = START
    times = torch.linspace(path.t_max, path.t_min, steps, dtype=torch.float64).tolist()
    for t, s in zip(times, [*times[1:], 0.0], strict=True):
        velocity = (x - denoise(x / (1 - t), t / (1 - t))) / t
        x = x + (s - t) * velocity
    same(sample(EXACT, START / path.eps, path.grid(steps), "euler"), x)


@pytest.mark.parametrize("path", [paths.VPLinear(), paths.SubVP(), paths.VPCosine(), paths.Trigonometric()])
def test_ddim_in_any_paths_coordinates_is_euler_in_the_frame(path):
    """x_s = alpha_s D + s_s (x_t - alpha_t D) / s_t: over the same levels this solver alone knows nothing of the path.

    The others differ by the clock in which they interpolate; here all use the log of sigma.
    """
    steps = 7
    t = torch.linspace(path.t_max, path.t_min, steps + 1, dtype=torch.float64)
    alpha, sd = path.alpha(t), path.sd(t)
    x = START
    for i in range(steps):
        d = denoise(x / alpha[i], sd[i] / alpha[i])
        x = alpha[i + 1] * d + sd[i + 1] * (x - alpha[i] * d) / sd[i]
    end = sample(EXACT, START / alpha[0], path.grid(steps, final_zero=False), "euler")
    same(path.from_frame(end, path.level(t[-1]).expand(3)), x)


@pytest.mark.parametrize("churn", [{}, {"churn": 12.0, "s_tmin": 0.1, "s_tmax": 5.0, "s_noise": 1.03}])
def test_heun_is_algorithm_2_of_edm(churn):
    """Karras et al. 2022: lines 4 to 11."""
    sigmas = karras(8, 0.02, 20.0)
    x = 20 * START
    for i, (t, after) in enumerate(pairwise(sigmas)):
        inside = churn and churn["s_tmin"] <= t <= churn["s_tmax"]
        gamma = min(churn["churn"] / 8, math.sqrt(2) - 1) if inside else 0.0
        raised = t + gamma * t
        if gamma:
            x = x + math.sqrt(raised**2 - t**2) * churn["s_noise"] * Z[i]
        d = (x - denoise(x, raised)) / raised
        ahead = x + (after - raised) * d
        if after:
            other = (ahead - denoise(ahead, after)) / after
            ahead = x + (after - raised) * (d / 2 + other / 2)
        x = ahead
    # ours counts the noise after every call, two of which make a step: number r + 1 belongs to step (r + 1) / 2
    same(sample(EXACT, 20 * START, sigmas, "heun", noise=lambda r: Z[(r + 1) // 2], **churn), x)


def test_predictor_corrector_is_the_reverse_diffusion_sampler_with_langevin_steps():
    """Song et al. 2021, arXiv:2011.13456, algorithms 2 and 4, with the expected norms and exact noise of the docs."""
    sigmas, snr = np.geomspace(10.0, 0.1, 6), 0.2
    x, calls = 10 * START, 0
    for sigma, after in pairwise(sigmas):
        gap = sigma**2 - after**2
        calls += 1
        x = x + gap * (denoise(x, sigma) - x) / sigma**2 + math.sqrt(gap) * Z[calls]
        for _ in range(2):
            calls += 1
            epsilon = 2 * (snr * after) ** 2  # 2 (snr |z| / |score|)^2 for |score| = |z| / sigma
            noise = math.sqrt(2 * epsilon - (epsilon / after) ** 2)
            x = x + epsilon * (denoise(x, after) - x) / after**2 + noise * Z[calls]
    settings = {"corrections": 2, "snr": snr}
    same(sample(EXACT, 10 * START, sigmas, "predictor-corrector", noise=lambda i: Z[i], **settings), x)


# DPM-Solver++ and UniPC in variance-preserving coordinates: lambda = log(alpha / sigma), h its steps -----------------

GRID = np.geomspace(20.0, 0.05, 9)
ALPHA, SIGMA = in_vp(GRID)
LAMBDA = np.log(ALPHA / SIGMA)


def data(x, i):
    """x_theta(x, t_i): the data prediction at x_t."""
    return denoise(x / ALPHA[i], GRID[i])


def frame(x):
    """The end of a loop in variance-preserving coordinates, back in ours."""
    return x / ALPHA[-1]


def test_dpmpp_2m_is_algorithm_2_of_its_paper():
    """Lu et al. 2022, arXiv:2211.01095."""
    x, before = START, None
    for i in range(1, len(GRID)):
        h, now = LAMBDA[i] - LAMBDA[i - 1], data(x, i - 1)
        r = (LAMBDA[i - 1] - LAMBDA[i - 2]) / h if i > 1 else math.inf
        d = now if before is None else (1 + 1 / (2 * r)) * now - before / (2 * r)
        x, before = SIGMA[i] / SIGMA[i - 1] * x - ALPHA[i] * math.expm1(-h) * d, now
    same(sample(EXACT, START / ALPHA[0], GRID, "dpmpp-2m"), frame(x))


def test_dpmpp_2m_sde_is_that_of_its_paper():
    """Appendix E: e^-2h in place of e^-h, and noise of sd sigma_t sqrt(1 - e^-2h)."""
    x, before = START, None
    for i in range(1, len(GRID)):
        h, now = LAMBDA[i] - LAMBDA[i - 1], data(x, i - 1)
        slope = 0 if before is None else (now - before) * h / (LAMBDA[i - 1] - LAMBDA[i - 2])
        decay = SIGMA[i] / SIGMA[i - 1] * math.exp(-h)
        drift = ALPHA[i] * -math.expm1(-2 * h) * (now + slope / 2)
        x, before = decay * x + drift + SIGMA[i] * math.sqrt(-math.expm1(-2 * h)) * Z[i], now
    same(sample(EXACT, START / ALPHA[0], GRID, "dpmpp-2m-sde", noise=lambda i: Z[i]), frame(x))


@pytest.mark.parametrize("r", [0.5, 0.3])
def test_dpmpp_2s_is_algorithm_1_of_its_paper(r):
    x = START
    for i in range(1, len(GRID)):
        h, now = LAMBDA[i] - LAMBDA[i - 1], data(x, i - 1)
        middle = math.exp(-(LAMBDA[i - 1] + r * h))
        alpha, sigma = in_vp(middle)
        u = sigma / SIGMA[i - 1] * x - alpha * math.expm1(-r * h) * now
        d = (1 - 1 / (2 * r)) * now + denoise(u / alpha, middle) / (2 * r)
        x = SIGMA[i] / SIGMA[i - 1] * x - ALPHA[i] * math.expm1(-h) * d
    same(sample(EXACT, START / ALPHA[0], GRID, "dpmpp-2s", r=r), frame(x))


def unipc_weights(r, h, variant):
    """a and B(h) of their theorem 3.1 for data prediction: R_p(h) a B(h) = phi_p(h); the constant 1/2 where p = 1."""
    b = h if variant == "bh1" else math.expm1(h)  # h is negative here: the paper's -h for data prediction
    if len(r) == 1:
        return np.array([0.5]), b
    phi, factorial, rows = math.expm1(h) / h - 1, 1, []
    for n in range(1, len(r) + 1):
        rows.append(phi * factorial / b)
        factorial *= n + 1
        phi = phi / h - 1 / factorial
    return np.linalg.solve(np.vander(r, increasing=True).T, rows), b


@pytest.mark.parametrize(("order", "variant"), [(1, "bh2"), (2, "bh1"), (2, "bh2"), (3, "bh1"), (3, "bh2")])
def test_unipc_is_that_of_its_paper(order, variant):
    """Zhao et al. 2023, arXiv:2302.04867: multistep UniP-p, then UniC-p with the answer at its end, on data."""
    x, answers, corrected = START, [], START
    for i in range(1, len(GRID)):
        answers.append(data(x, i - 1))
        if i > 1:  # UniC: the step to the point whose answer came last, with that answer
            corrected = unipc_step(corrected, answers, i - 1, order, variant, correct=True)
        x = unipc_step(corrected, answers, i, order, variant, correct=False)
    same(sample(EXACT, START / ALPHA[0], GRID, "unipc", order=order, variant=variant), frame(x))


def unipc_step(x, answers, i, order, variant, correct):
    """From t_{i-1} to t_i, given the answers at t_0 ... (up to t_i for the corrector)."""
    p, h = min(order, i), LAMBDA[i] - LAMBDA[i - 1]
    at = [i - 1 - m for m in range(1, p)] + ([i] if correct else [])
    r = np.array([(LAMBDA[k] - LAMBDA[i - 1]) / h for k in at])
    base = SIGMA[i] / SIGMA[i - 1] * x - ALPHA[i] * math.expm1(-h) * answers[i - 1]
    if not at:
        return base
    a, b = unipc_weights(r, -h, variant)
    return base - ALPHA[i] * b * sum(
        weight * (answers[k] - answers[i - 1]) / ratio for weight, k, ratio in zip(a, at, r, strict=True)
    )


def test_ddpm_and_euler_are_dpmpp_1_and_its_sde():
    """First order in lambda: DPM-Solver++(1) is DDIM, its SDE is ancestral sampling with the small variance."""
    assert solvers.plan("dpmpp-1", GRID) == solvers.plan("euler", GRID)
    for a, b in zip(solvers.plan("dpmpp-1-sde", GRID).rows, solvers.plan("ddpm", GRID).rows, strict=True):
        assert (a.x[0], a.b[0], a.noise) == pytest.approx((b.x[0], b.b[0], b.noise), rel=1e-12)
