"""Adaptive Runge-Kutta for likelihoods and reference solutions: Dormand & Prince 1980, orders 5(4), as a table.

Every sample has its own step size and its own error control, so its answer does not depend on its batch-mates; a
sample that has arrived waits with steps of length 0. The loop looks at the device after every step: not for capture.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.errors import SciffusionError

__all__ = ["Solution", "rk45", "solve"]

# Butcher tableau: stages A (row by row), order-5 weights (= last row, so that the last stage is the next first one),
# and their difference to the order-4 weights.
_A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_C = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

Rate = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """State (batch, ...) at the end and the number of calls of the right-hand side (each on the whole batch)."""

    state: Tensor
    calls: int


def solve(
    rate: Rate, state: Tensor, start: float, end: float, rtol: float, atol: float, max_steps: int = 10_000
) -> Solution:
    """Integrate d state / dt = rate(t, state), t (batch,), state (batch, n), from ``start`` to ``end``.

    A step is accepted per sample when the rms over n of error / (atol + rtol |state|) is at most 1. Raises
    SciffusionError when ``max_steps`` do not suffice.
    """
    t = state.new_full(state.shape[:1], start)
    sign = 1.0 if end > start else -1.0
    h = torch.full_like(t, (end - start) / 100)
    first = rate(t, state)
    calls = 1
    for _ in range(max_steps):
        left = end - t
        if not bool((left != 0).any()):
            return Solution(state, calls)
        last = h.abs() >= left.abs()
        h = torch.where(last, left, h)
        stages, new = _stages(rate, t, state, h, first)
        calls += len(_A)
        error = h[:, None] * sum(e * k for e, k in zip(_ERROR, stages, strict=True) if e)
        size = atol + rtol * torch.maximum(state.abs(), new.abs())
        norm = (error / size).square().mean(1).sqrt().nan_to_num(nan=math.inf)
        accepted = norm <= 1
        here = accepted[:, None]
        state, first = torch.where(here, new, state), torch.where(here, stages[-1], first)
        t = torch.where(accepted, torch.where(last, torch.full_like(t, end), t + h), t)
        h = sign * h.abs().clamp(min=1e-12) * (0.9 * norm.clamp(min=1e-10) ** -0.2).clamp(0.2, 5.0)
    raise SciffusionError(f"the ODE was not solved in {max_steps} steps", "loosen rtol and atol")


def _stages(rate: Rate, t: Tensor, state: Tensor, h: Tensor, first: Tensor) -> tuple[list[Tensor], Tensor]:
    """All seven slopes and the order-5 solution, which is where the last slope is taken."""
    slopes = [first]
    point = state
    for row, c in zip(_A, _C, strict=True):
        point = state + h[:, None] * sum(a * k for a, k in zip(row, slopes, strict=True) if a)
        slopes.append(rate(t + c * h, point))
    return slopes, point


def rk45(
    denoiser: Denoiser,
    x: Tensor,
    start: float,
    end: float,
    cond: Context | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
) -> Solution:
    """The probability-flow ODE from level ``start`` to ``end`` (both > 0), either way: dx / dlog(sigma) = x - D."""

    def rate(log_sigma: Tensor, flat: Tensor) -> Tensor:
        field = flat.reshape(x.shape)
        return (field - denoiser(field, log_sigma.exp(), cond).to(x.dtype)).flatten(1)

    with torch.no_grad():
        solution = solve(rate, x.flatten(1), math.log(start), math.log(end), rtol, atol)
    return Solution(solution.state.reshape(x.shape), solution.calls)
