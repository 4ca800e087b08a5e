"""A solver has the order it claims, in float64, on two problems: one with an exact flow, one solved to 1e-11."""

import functools

import numpy as np
import pytest
import torch

from sciffusion.diffusion import sample, solvers
from sciffusion.diffusion.problems import DenseGaussian, GaussianField, GaussianMixture, power_law
from sciffusion.diffusion.solvers.adaptive import rk45
from sciffusion.diffusion.solvers.exponential import multistep, weights

START, END = 20.0, 0.05
EASED = 9  # halvings of the first interval: makes the error of a low-order start smaller than that of the steps
SOLVERS = [
    ("euler", {}, 1),
    ("dpmpp-1", {}, 1),
    ("ddim", {}, 1),
    ("heun", {}, 2),
    ("dpmpp-2s", {}, 2),
    ("dpmpp-2m", {}, 2),
    ("dpmpp-3m", {"bootstrap": EASED}, 3),
    ("adams", {"order": 2, "prediction": "data"}, 2),
    ("adams", {"order": 2, "prediction": "velocity"}, 2),
    ("adams", {"order": 3, "bootstrap": EASED}, 3),
    ("adams", {"order": 3, "prediction": 0.3, "bootstrap": EASED}, 3),
    ("adams", {"order": 4, "bootstrap": EASED}, 4),
    ("adams", {"order": 2, "correct": True}, 3),
    ("adams", {"order": 3, "correct": True, "bootstrap": EASED}, 4),
    ("unipc", {"order": 1}, 2),
    ("unipc", {"order": 2, "variant": "bh1"}, 3),
    ("unipc", {"order": 2}, 3),
    ("unipc", {"order": 3, "bootstrap": EASED}, 4),
]


def grid(steps):
    return np.geomspace(START, END, steps + 1)


def start(cells):
    return START * torch.randn(4, 1, cells, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@functools.cache
def gaussian_field():
    """Denoiser, start and exact end for a power-law field."""
    field, x = GaussianField(power_law(3.0), (16,)), start(16)
    return field.denoiser(), x, field.flow(x, START, END)


@functools.cache
def mixture():
    """The same for two regimes with different means and spectra: a nonlinear denoiser."""
    mean = torch.linspace(0.5, 1.5, 4, dtype=torch.float64)
    tilt = torch.eye(4, dtype=torch.float64) * 0.5 + 0.2
    laws = [DenseGaussian(mean, tilt), DenseGaussian(-mean, 0.6 * torch.eye(4, dtype=torch.float64))]
    denoiser, x = GaussianMixture(laws, [0.4, 0.6]).denoiser(), start(4)
    return denoiser, x, rk45(denoiser, x, START, END, rtol=1e-11, atol=1e-11).state


@pytest.mark.parametrize(("problem", "steps"), [(gaussian_field, 128), (mixture, 192)])
@pytest.mark.parametrize(("solver", "settings", "order"), SOLVERS)
def test_error_falls_with_the_order_of_the_solver(problem, steps, solver, settings, order):
    denoiser, x, exact = problem()
    error = [(sample(denoiser, x, grid(n), solver, **settings) - exact).abs().max() for n in (steps, 2 * steps)]
    assert float(torch.log2(error[0] / error[1])) >= order - 0.15


def published_3m(nodes, h, kappa):
    """Weights of the third-order multistep update in the code that came with arXiv:2211.01095 (and its followers)."""
    if len(nodes) < 3:
        return weights(nodes, h, kappa)
    d, r0, r1 = np.eye(3), -nodes[1] / h, (nodes[1] - nodes[2]) / h
    near, far = (d[0] - d[1]) / r0, (d[1] - d[2]) / r1
    first, second = near + r0 / (r0 + r1) * (near - far), (near - far) / (r0 + r1)
    phi1 = np.expm1(-h)
    phi2 = phi1 / h + 1
    return -phi1 * d[0] + phi2 * first - (phi2 / h - 0.5) * second


def test_published_3m_takes_half_of_the_second_difference_and_is_second_order():
    """`second` is f[0, 1, 2] h^2, half of the second derivative that phi3 has to be multiplied by."""
    denoiser, x, exact = gaussian_field()

    def error(steps, rule):
        table = multistep(grid(steps), 3, rule, bootstrap=EASED)
        return float((sample(denoiser, x, grid(steps), table) - exact).abs().max())

    assert np.log2(error(256, published_3m) / error(512, published_3m)) == pytest.approx(2, abs=0.15)
    assert error(512, weights) < 0.1 * error(512, published_3m)


def test_rk45_reaches_its_tolerance_and_each_sample_by_itself():
    denoiser, x, exact = gaussian_field()
    errors = [(rk45(denoiser, x, START, END, rtol=tol, atol=tol).state - exact).abs().max() for tol in (1e-4, 1e-7)]
    assert errors[0] < 3e-3
    assert errors[1] < 3e-6
    alone = torch.cat([rk45(denoiser, one, START, END, rtol=1e-6, atol=1e-6).state for one in x.split(1)])
    together = rk45(denoiser, x, START, END, rtol=1e-6, atol=1e-6).state
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(
    ("solver", "settings", "expected"),
    [
        ("euler", {}, lambda n: n),
        ("heun", {}, lambda n: 2 * n - 1),
        ("heun", {"churn": 4.0}, lambda n: 2 * n - 1),
        ("ddim", {"eta": 1.0}, lambda n: n),
        ("ddpm", {}, lambda n: n),
        ("euler-maruyama", {}, lambda n: n),
        ("predictor-corrector", {"corrections": 2}, lambda n: 3 * n - 2),
        ("dpmpp-2s", {}, lambda n: 2 * n - 1),
        ("dpmpp-2s-sde", {}, lambda n: 2 * n - 1),
        ("dpmpp-2m", {}, lambda n: n),
        ("dpmpp-2m-sde", {}, lambda n: n),
        ("dpmpp-3m", {}, lambda n: n),
        ("unipc", {"order": 3}, lambda n: n),
        ("adams", {"order": 4}, lambda n: n),
    ],
)
def test_calls_are_what_is_promised_and_the_last_step_to_zero_is_the_denoiser(solver, settings, expected, steps):
    seen = []

    class Counting(torch.nn.Module):
        noise = "gaussian"

        def forward(self, x, sigma, cond):
            seen.append(float(sigma[0]))
            return torch.full_like(x, len(seen))

    levels = np.append(np.geomspace(5.0, 0.1, steps), 0.0)
    answer = sample(Counting(), torch.randn(2, 1, 4), levels, solver, noise=lambda i: torch.zeros(2, 1, 4), **settings)
    assert len(seen) == solvers.calls(solver, steps, **settings) == expected(steps)
    assert torch.equal(answer, torch.full_like(answer, len(seen)))


def test_every_solver_keeps_a_known_field():
    """For x0 known, D and the noise are constant: tables in these predictions end at x0 plus the noise scaled down."""
    field = torch.randn(2, 1, 4, dtype=torch.float64)

    class Known(torch.nn.Module):
        noise = "gaussian"

        def forward(self, x, sigma, cond):
            return field

    z = torch.randn(2, 1, 4, dtype=torch.float64)
    for solver, settings, _ in SOLVERS:
        if settings.get("prediction") not in (None, "data", "noise"):
            continue
        end = sample(Known(), field + START * z, grid(12), solver, **settings)
        torch.testing.assert_close(end, field + END * z, rtol=1e-9, atol=1e-9)
