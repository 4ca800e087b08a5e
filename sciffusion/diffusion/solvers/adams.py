"""Exponential Adams methods in a choice of frames: what is exact, and what is interpolated.

Notation: lambda = -log sigma, phi(sigma) = sqrt(c^2 + sigma^2). The probability-flow ODE dx/dlambda = D - x, with the
flow of Gaussian data of sd c taken out of it, is

    d(x / phi) / dlambda = K sigma / phi^2,   K = (D - c^2 / phi^2 x) phi / sigma                  (1)

K is the denoiser's answer for c = 0, minus the velocity of the variance-preserving path for c = sd of the data, and
minus the noise (times c, which is divided out) for c = infinity: the data, v and noise predictions of the papers, and
everything between. A method is exact for Gaussian modes of sd c, and interpolates K by a polynomial in lambda.
Adams-Bashforth extrapolates through past answers (Zhang & Chen 2022, arXiv:2204.13902, with noise prediction); the
corrector of Adams-Moulton then uses each new answer to mend the point it was taken at, without another call (Zhao et
al. 2023, arXiv:2302.04867, for data prediction).
"""

import math

import numpy as np

from sciffusion.diffusion.solvers.exponential import eased, through
from sciffusion.diffusion.solvers.table import Array, Plan, Row, check_grid, final
from sciffusion.errors import SciffusionError

__all__ = ["adams"]

PREDICTIONS = {"data": 0.0, "velocity": 1.0, "noise": math.inf}


def adams(
    sigmas: Array, order: int = 3, prediction: str | float = "noise", correct: bool = False, bootstrap: int = 0
) -> Plan:
    """Exponential Adams-Bashforth of ``order`` 1 to 4, with the Adams-Moulton corrector if ``correct``.

    One call per step. ``prediction``: data, velocity, noise, or the number c. The corrector raises the order by one.
    ``bootstrap`` adds that many levels in the first interval (exponential.eased). The default is what `best_sampler`
    chooses for fields at about 20 calls (docs/theory.md).
    """
    if order not in (1, 2, 3, 4):
        raise SciffusionError(f"no exponential Adams-Bashforth of order {order}", "use an order from 1 to 4")
    if isinstance(prediction, str) and prediction not in PREDICTIONS:
        raise SciffusionError(f"no prediction is called {prediction!r}", f"known: {', '.join(PREDICTIONS)}, or sd c")
    c = PREDICTIONS[prediction] if isinstance(prediction, str) else float(prediction)
    grid = eased(check_grid(sigmas), bootstrap)
    rows = [_row(grid[: i + 2], order, c, correct) for i in range(len(grid) - 1)]
    return Plan(tuple(rows), float(grid[0]), float(grid[-1]))


def _row(grid: Array, order: int, c: float, correct: bool) -> Row:
    """The row from the level before the last of ``grid`` to the last."""
    here, there = grid[-2], grid[-1]
    if there == 0:
        return final(here)
    answer, decay = _kept(here, c), _phi(there, c) / _phi(here, c)
    b = _weights(grid[-2::-1][:order], here, there, c)
    if not correct:
        return Row(here, (decay, 0.0), tuple(b), answer=answer)
    if len(grid) == 2:
        return Row(here, (decay, 0.0), tuple(b), y=(1.0, 0.0), answer=answer)
    before = grid[-3]
    ratio, g = _phi(here, c) / _phi(before, c), _weights(grid[-2::-1][: order + 1], before, here, c)
    total = decay * g
    total[: len(b)] += b
    return Row(here, (0.0, decay * ratio), tuple(total), y=(0.0, ratio), g=tuple(g), answer=answer)


def _phi(sigma: float, c: float) -> float:
    return 1.0 if math.isinf(c) else math.hypot(c, sigma)


def _kept(sigma: float, c: float) -> tuple[float, float]:
    """K as factors of D and x."""
    if math.isinf(c):
        return 1 / sigma, -1 / sigma
    phi = _phi(sigma, c)
    return phi / sigma, -(c**2) / (phi * sigma)


def _weights(nodes: Array, here: float, there: float, c: float) -> Array:
    """Weights of K at the levels ``nodes`` in the integral of (1) from ``here`` to ``there``, times phi(there).

    Exact for polynomials in lambda through the nodes.
    """
    h = math.log(here / there)

    def kernel(share: Array) -> Array:
        sigma = here * np.exp(-h * share)
        return h * (sigma if math.isinf(c) else _phi(there, c) * sigma / (c**2 + sigma**2))

    return through(np.log(here / nodes) / h, kernel)
