"""A solver has the order it claims, in float64, on two problems: one with an exact flow, one solved to 1e-11."""

import functools

import numpy as np
import pytest
import torch

from sciffusion.diffusion import sample, solvers
from sciffusion.diffusion.problems import DenseGaussian, GaussianField, GaussianMixture, power_law
from sciffusion.diffusion.solvers.adaptive import rk45, solve
from sciffusion.diffusion.solvers.exponential import multistep, weights
from sciffusion.errors import SciffusionError

START, END = 20.0, 0.05
EASED = 9  # halvings of the first interval: makes the error of a low-order start smaller than that of the steps
SOLVERS = [
    ("euler", {}, 1),
    ("dpmpp-1", {}, 1),
    ("ddim", {}, 1),
    ("heun", {}, 2),
    ("dpmpp-2s", {}, 2),
    ("dpmpp-2s", {"r": 0.3}, 2),
    ("dpmpp-2m", {}, 2),
    ("dpmpp-3m", {"bootstrap": EASED}, 3),
    ("adams", {"order": 1}, 1),
    ("adams", {"order": 2, "prediction": "data"}, 2),
    ("adams", {"order": 2, "prediction": "velocity"}, 2),
    ("adams", {"order": 3, "bootstrap": EASED}, 3),
    ("adams", {"order": 3, "prediction": 0.3, "bootstrap": EASED}, 3),
    ("adams", {"order": 4, "bootstrap": EASED}, 4),
    ("adams", {"order": 1, "correct": True}, 2),
    ("adams", {"order": 2, "correct": True}, 3),
    ("adams", {"order": 3, "correct": True, "bootstrap": EASED}, 4),
    ("adams", {"order": 4, "correct": True, "bootstrap": EASED}, 5),
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


def test_the_order_of_every_deterministic_solver_is_measured():
    """And no solver is stochastic without saying so: test_gain measures those."""
    assert {name for name in solvers.names() if not solvers.plan(name, grid(4)).stochastic} == {s for s, *_ in SOLVERS}


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


@pytest.mark.parametrize("tolerance", [1e-5, 1e-7, 1e-9])
def test_rk45_converges_with_its_tolerance(tolerance):
    """On the field to the exact flow; on the mixture to 3,000 steps of a fifth-order solver."""
    for denoiser, x, exact in (gaussian_field(), fine_mixture()):
        found = rk45(denoiser, x, START, END, rtol=tolerance, atol=tolerance)
        assert float((found.state - exact).abs().max()) < 3 * tolerance
        back = rk45(denoiser, found.state, END, START, rtol=tolerance, atol=tolerance)
        assert float((back.state - x).abs().max()) < 300 * tolerance * START  # errors grow on the way up


@functools.cache
def fine_mixture():
    """The end of `mixture` by another route than rk45: that of `mixture` itself is checked by it, too."""
    denoiser, x, exact = mixture()
    fine = sample(denoiser, x, grid(3000), "adams", order=4, correct=True, bootstrap=EASED)
    assert float((fine - exact).abs().max()) < 1e-10
    return denoiser, x, fine


def test_rk45_steps_for_each_sample_by_itself():
    denoiser, x, _ = gaussian_field()
    alone = torch.cat([rk45(denoiser, one, START, END, rtol=1e-6, atol=1e-6).state for one in x.split(1)])
    together = rk45(denoiser, x, START, END, rtol=1e-6, atol=1e-6).state
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-13)


def test_rk45_counts_its_calls_and_gives_up_after_so_many_steps():
    seen = []

    def rate(t, state):
        seen.append(1)
        return -state * t[:, None].cos()

    found = solve(rate, torch.ones(2, 3, dtype=torch.float64), 0.0, 5.0, 1e-8, 1e-8)
    assert found.calls == len(seen)
    torch.testing.assert_close(found.state, torch.full_like(found.state, np.exp(-np.sin(5.0))), rtol=0, atol=1e-7)
    with pytest.raises(SciffusionError, match="loosen"):
        solve(rate, torch.ones(1, 1), 0.0, 5.0, 1e-6, 1e-6, max_steps=3)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(
    ("solver", "settings"),
    [
        *((name, {}) for name in solvers.names()),
        ("heun", {"churn": 4.0}),
        ("ddim", {"eta": 1.0}),
        ("predictor-corrector", {"corrections": 2}),
        ("unipc", {"order": 3}),
        ("adams", {"order": 4, "correct": True}),
    ],
)
def test_calls_are_what_is_promised_and_the_last_step_to_zero_is_the_denoiser(solver, settings, steps):
    seen = []

    class Counting(torch.nn.Module):
        noise = "gaussian"

        def forward(self, x, sigma, cond):
            seen.append(float(sigma[0]))
            return torch.full_like(x, len(seen))

    levels = np.append(np.geomspace(5.0, 0.1, steps), 0.0)
    answer = sample(Counting(), torch.randn(2, 1, 4), levels, solver, noise=lambda i: torch.ones(2, 1, 4), **settings)
    extra = {"heun": 1, "dpmpp-2s": 1, "dpmpp-2s-sde": 1, "predictor-corrector": settings.get("corrections", 1)}
    expected = steps + (steps - 1) * extra.get(solver, 0)  # the step to zero takes one call
    assert len(seen) == solvers.calls(solver, steps, **settings) == expected
    assert torch.equal(answer, torch.full_like(answer, len(seen)))


def test_calls_without_a_step_to_zero():
    for solver, expected in {"adams": 7, "heun": 14, "predictor-corrector": 14, "dpmpp-2s": 14}.items():
        assert solvers.calls(solver, 7, final_zero=False) == expected
    assert solvers.calls("adams", 7, final_zero=False, bootstrap=3) == 10


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
