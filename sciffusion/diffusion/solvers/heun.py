"""Solvers that are linear in sigma: Euler (which is DDIM in this frame) and Heun, both with Karras's churn.

Notation: the ODE is dx/dsigma = (x - D) / sigma (Karras et al. 2022, arXiv:2206.00364, eq. 3).
"""

import math

from sciffusion.diffusion.solvers.table import Array, Plan, Row, check_grid, final

__all__ = ["euler", "heun"]

_MOST = math.sqrt(2) - 1  # gamma never more than doubles the variance (algorithm 2)


def _raised(grid: Array, churn: float, s_tmin: float, s_tmax: float) -> list[float]:
    """The level of every step after noise was added: sigma (1 + gamma)."""
    gamma = min(churn / (len(grid) - 1), _MOST)
    return [float(s * (1 + gamma)) if gamma > 0 and s_tmin <= s <= s_tmax else float(s) for s in grid[:-1]]


def _kicks(grid: Array, raised: list[float], s_noise: float) -> list[float]:
    """Sd of the noise that lifts each level to its raised one, and 0 after the last step."""
    lifts = [s_noise * math.sqrt(max(top**2 - s**2, 0.0)) for s, top in zip(grid[:-1], raised, strict=True)]
    return [*lifts, 0.0]


def euler(
    sigmas: Array, churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Plan:
    """First order, one call per step; settings as in `heun`."""
    grid = check_grid(sigmas)
    raised = _raised(grid, churn, s_tmin, s_tmax)
    kicks = _kicks(grid, raised, s_noise)
    rows = [
        Row(top, (there / top, 0.0), (1 - there / top,), kick)
        for top, there, kick in zip(raised, map(float, grid[1:]), kicks[1:], strict=True)
    ]
    return Plan(tuple(rows), float(grid[0]), float(grid[-1]), kicks[0])


def heun(
    sigmas: Array, churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0
) -> Plan:
    """Second order: algorithm 1 of Karras et al. 2022, algorithm 2 for ``churn`` = S_churn > 0.

    Noise of sd ``s_noise`` sqrt(raised^2 - sigma^2) lifts the levels in [s_tmin, s_tmax] before the step. 2 calls per
    step, 1 for a final step to 0.
    """
    grid = check_grid(sigmas)
    raised = _raised(grid, churn, s_tmin, s_tmax)
    kicks = _kicks(grid, raised, s_noise)
    rows: list[Row] = []
    for top, there, kick in zip(raised, map(float, grid[1:]), kicks[1:], strict=True):
        rows += _trapezoid(top, there, kick) if there > 0 else [final(top)]
    return Plan(tuple(rows), float(grid[0]), float(grid[-1]), kicks[0])


def _trapezoid(here: float, there: float, kick: float) -> tuple[Row, Row]:
    """Trapezium x + (there - here) (d + d') / 2; y holds the step's starting point while x visits the predicted end."""
    ratio, half = there / here, (there - here) / 2
    predict = Row(here, (ratio, 0.0), (1 - ratio,), y=(1.0, 0.0))
    correct = Row(there, (half / there, 1 + half / here), (-half / there, -half / here), kick)
    return predict, correct
