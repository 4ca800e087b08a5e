"""What a solver does to Gaussian data, in closed form, and the choice of a sampler by it.

For x0 ~ N(0, v) the denoiser is D = v / (v + sigma^2) x, so a plan is linear from its start and noises to its end, and
the sd it gives to a mode of variance v is known without sampling. The ratio to the exact sd sqrt(v + sigma_end^2) is
the solver's own spectral error: what a spectrum of samples shows, with a perfect network.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sciffusion.diffusion.sigmas import karras
from sciffusion.diffusion.solvers import calls, plan
from sciffusion.diffusion.solvers.table import Array, Plan, Row

__all__ = ["Choice", "best_sampler", "end_variance", "solver_gain"]


def solver_gain(
    solver: str | Plan, sigmas: Sequence[float] | Array, variance: ArrayLike, /, **settings: object
) -> Array:
    """Ratio of the sd that ``solver`` gives to modes of ``variance`` (> 0) to the exact one, in the shape of variance.

    The start has the exact variance v + sigma_0^2; noises are independent. 1 is perfect, below 1 loses power.
    """
    table = solver if isinstance(solver, Plan) else plan(solver, sigmas, **settings)
    v = np.asarray(variance, dtype=np.float64)
    ratio = end_variance(table, v.ravel()) / (v.ravel() + table.end**2)
    return np.asarray(np.sqrt(ratio).reshape(v.shape))


def end_variance(table: Plan, variance: Array) -> Array:
    """Variance that each mode (mode,) ends with: the rows carry a factor of the covariance of (x, y, K_r, ...).

    A factor (mode, size, source), one source for the start and for each noise: carrying the covariance itself would
    square the rounding of a solver that is far from stable.
    """
    size = 2 + table.depth
    factor = np.zeros((len(variance), size, 1))
    factor[:, 0, 0] = np.sqrt(variance + table.start**2 + table.kick**2)
    for row in table.rows:
        step = _update(row, size) @ _call(row.answer[0] * variance / (variance + row.sigma**2) + row.answer[1], size)
        factor = step @ factor
        if row.noise:
            source = np.zeros((len(variance), size, 1))
            source[:, 0] = row.noise
            factor = np.concatenate([factor, source], axis=2)
    return np.asarray((factor[:, 0] ** 2).sum(axis=1))


def _call(gain: Array, size: int) -> Array:
    """The map (mode, size, size) of a call: older answers move on, the newest is gain times x."""
    step = np.zeros((len(gain), size, size))
    step[:, [0, 1], [0, 1]] = 1.0
    step[:, 2, 0] = gain
    step[:, np.arange(3, size), np.arange(2, size - 1)] = 1.0
    return step


def _update(row: Row, size: int) -> Array:
    """Equations (1) and (2) of table.py as a matrix (size, size)."""
    step = np.eye(size)
    step[0], step[1] = 0.0, 0.0
    step[0, :2], step[0, 2 : 2 + len(row.b)] = row.x, row.b
    step[1, :2], step[1, 2 : 2 + len(row.g)] = row.y, row.g
    return step


@dataclass(frozen=True)
class Choice:
    """A sampler, and its worst relative error of the sd over the modes asked for."""

    solver: str
    settings: Mapping[str, Any]
    steps: int
    rho: float
    error: float


CANDIDATES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("dpmpp-2m", {}),
    ("dpmpp-3m", {}),
    ("dpmpp-2s", {}),
    ("heun", {}),
    ("unipc", {}),
    ("unipc", {"order": 3}),
    *(("adams", {"order": n, "correct": c}) for n in (2, 3, 4) for c in (False, True)),
    *(("adams", {"order": 3, "prediction": sd, "correct": True}) for sd in (0.1, 1.0, 3.0)),
)


def best_sampler(
    variance: ArrayLike,
    budget: int,
    sigma_min: float,
    sigma_max: float,
    candidates: Iterable[tuple[str, Mapping[str, Any]]] = CANDIDATES,
    rhos: Iterable[float] = (5.0, 7.0, 9.0),
) -> Choice:
    """The solver and Karras grid of at most ``budget`` calls with the least worst error over modes of ``variance``."""
    rhos = tuple(rhos)
    choices = []
    for name, settings in candidates:
        steps = _steps(name, settings, budget)
        for rho in rhos:
            gain = solver_gain(name, karras(steps, sigma_min, sigma_max, rho), variance, **settings)
            error = np.nan_to_num(np.abs(gain - 1), nan=np.inf).max()
            choices.append(Choice(name, settings, steps, rho, float(error)))
    return min(choices, key=lambda choice: choice.error)


def _steps(name: str, settings: Mapping[str, Any], budget: int) -> int:
    """The most steps that ``budget`` calls allow."""
    return max(steps for steps in range(1, budget + 1) if calls(name, steps, **settings) <= budget)
