"""A solver has the order it claims, measured against the exact flow of a Gaussian field, in float64."""

import numpy as np
import pytest
import torch

from sciffusion.diffusion import sample, solvers
from sciffusion.diffusion.problems import GaussianField, power_law

START, END = 20.0, 0.05
SETTINGS = [
    ("euler", {}, 1),
    ("heun", {}, 2),
    ("dpmpp-2s", {}, 2),
    ("dpmpp-2m", {}, 2),
    ("dpmpp-3m", {"bootstrap": True}, 3),
    ("adams", {"order": 2}, 2),
    ("adams", {"order": 3, "bootstrap": True}, 3),
]


@pytest.mark.parametrize(("solver", "settings", "order"), SETTINGS)
def test_error_falls_with_the_order_of_the_solver_on_a_gaussian_field(solver, settings, order):
    field = GaussianField(power_law(3.0), (16,))
    x = START * torch.randn(4, 1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = field.flow(x, START, END)

    def error(steps):
        answer = sample(field.denoiser(), x, np.geomspace(START, END, steps + 1), solver, **settings)
        return float((answer - exact).abs().max())

    assert np.log2(error(128) / error(512)) / 2 >= order - 0.15


@pytest.mark.parametrize(
    ("solver", "settings"),
    [("euler", {}), ("heun", {}), ("heun", {"churn": 4.0}), ("dpmpp-2s", {}), ("dpmpp-2m", {}), ("dpmpp-3m", {})],
)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_calls_are_counted_exactly_and_the_last_step_to_zero_is_the_denoiser(solver, settings, steps):
    seen = []

    class Counting(torch.nn.Module):
        noise = "gaussian"

        def forward(self, x, sigma, cond):
            seen.append(float(sigma[0]))
            return torch.full_like(x, len(seen))

    grid = np.append(np.geomspace(5.0, 0.1, steps), 0.0)
    answer = sample(Counting(), torch.randn(2, 1, 4), grid, solver, noise=lambda i: torch.zeros(2, 1, 4), **settings)
    assert len(seen) == solvers.calls(solver, steps, **settings)
    assert torch.equal(answer, torch.full_like(answer, len(seen)))
