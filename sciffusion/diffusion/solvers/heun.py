"""Solvers that are linear in sigma: Euler (which is DDIM in this frame) and Heun, both with Karras's churn.

Notation: the ODE is dx/dsigma = (x - D) / sigma (Karras et al. 2022, arXiv:2206.00364, eq. 3).
"""

import math
from collections.abc import Callable

from sciffusion.diffusion.solvers.table import Array, Plan, Row, check_grid, final

__all__ = ["euler", "heun"]

_MOST = math.sqrt(2) - 1  # gamma never more than doubles the variance (algorithm 2)


def euler(
    sigmas: Array, churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Plan:
    """First order, one call per step; settings as in `heun`."""
    return _churned(sigmas, _line, churn, s_tmin, s_tmax, s_noise)


def heun(
    sigmas: Array, churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Plan:
    """Second order: algorithm 1 of Karras et al. 2022, algorithm 2 for ``churn`` = S_churn > 0.

    Noise of sd ``s_noise`` sqrt(raised^2 - sigma^2) lifts the levels in [s_tmin, s_tmax] before the step. 2 calls per
    step, 1 for a final step to 0.
    """
    return _churned(sigmas, _trapezoid, churn, s_tmin, s_tmax, s_noise)


def _churned(
    sigmas: Array,
    step: Callable[[float, float, float], tuple[Row, ...]],
    churn: float,
    s_tmin: float,
    s_tmax: float,
    s_noise: float,
) -> Plan:
    """The rows ``step(raised level, next level, sd of the noise that raises that one)`` of all steps."""
    grid = check_grid(sigmas)
    gamma = min(churn / (len(grid) - 1), _MOST)
    raised = [s * (1 + gamma) if s_tmin <= s <= s_tmax else s for s in map(float, grid[:-1])]
    kicks = [s_noise * math.sqrt(top**2 - s**2) for s, top in zip(map(float, grid[:-1]), raised, strict=True)]
    steps = zip(raised, map(float, grid[1:]), [*kicks[1:], 0.0], strict=True)
    rows = [row for top, there, kick in steps for row in step(top, there, kick)]
    return Plan(tuple(rows), float(grid[0]), float(grid[-1]), kicks[0])


def _line(here: float, there: float, kick: float) -> tuple[Row, ...]:
    return (Row(here, (there / here, 0.0), (1 - there / here,), kick),)


def _trapezoid(here: float, there: float, kick: float) -> tuple[Row, ...]:
    """Trapezium x + (there - here) (d + d') / 2; y holds the step's starting point while x visits the predicted end."""
    if there == 0:
        return (final(here),)
    ratio, half = there / here, (there - here) / 2
    predict = Row(here, (ratio, 0.0), (1 - ratio,), y=(1.0, 0.0))
    correct = Row(there, (half / there, 1 + half / here), (-half / there, -half / here), kick)
    return predict, correct
