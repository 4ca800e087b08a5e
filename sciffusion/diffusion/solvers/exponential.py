"""Exponential integrators: the linear part of the reverse process exactly, the denoiser by a polynomial in lambda.

Notation: lambda = -log sigma, h = lambda_{i+1} - lambda_i, kappa = 1 + eta. The reverse SDE with eta times the
full one's noise variance (eta = 0: the probability-flow ODE) is solved from lambda_i to lambda_{i+1} by

    x_{i+1} = e^{-kappa h} x_i + kappa int_0^h e^{-kappa (h-s)} D(lambda_i + s) ds
              + sigma_{i+1} sqrt(1 - e^{-2 eta h}) z                                          (1)

(Lu et al. 2022, arXiv:2211.01095, prop. 4.1 and appendix E). A method is a choice of nodes at which the denoiser is
known and of weights that integrate the polynomial through them. A step to sigma = 0, where h is infinite, is x <- D.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from sciffusion.diffusion.solvers.table import Array, Plan, Row, check_grid, final

__all__ = ["dpmpp_2m", "dpmpp_2s", "dpmpp_3m", "eased", "multistep", "through", "weights"]

Rule = Callable[[Array, float, float], Array]
_POINTS, _GAUSS = np.polynomial.legendre.leggauss(64)


def through(nodes: Array, kernel: Callable[[Array], Array]) -> Array:
    """Weights at ``nodes`` of the integral over 0 < s < 1 of ``kernel(s)`` times the polynomial through them.

    By Gauss-Legendre quadrature, whose 64 points are exact to rounding for the exponentials here.
    """
    share = (_POINTS + 1) / 2
    moments = (share[None] ** np.arange(len(nodes))[:, None]) @ (kernel(share) * _GAUSS / 2)
    return np.asarray(np.linalg.solve(np.vander(nodes, increasing=True).T, moments), dtype=np.float64)


def weights(nodes: Array, h: float, kappa: float = 1.0) -> Array:
    """Weights of D at ``nodes`` (lambda minus lambda_i) in the integral of (1): exact for polynomials through them."""
    return through(nodes / h, lambda s: kappa * h * np.exp(-kappa * h * (1 - s)))


def midpoint_weights(nodes: Array, h: float, kappa: float = 1.0) -> Array:
    """The two-step weights of DPM-Solver++(2M): D extrapolated to the middle of the step (algorithm 2)."""
    total = -math.expm1(-kappa * h)
    if len(nodes) == 1:
        return np.array([total])
    extrapolation = h / (2 * -nodes[1])
    return total * np.array([1 + extrapolation, -extrapolation])


def noise_sd(sigma: float, h: float, eta: float, s_noise: float) -> float:
    """Sd of the noise in (1)."""
    return s_noise * sigma * math.sqrt(-math.expm1(-2 * eta * h))


def _single(here: float, there: float, r: float, eta: float, s_noise: float) -> tuple[Row, Row]:
    """DPM-Solver++(2S): a call at lambda + r h, then the whole step (algorithm 1), stochastic for eta > 0.

    The noise of the first part is carried through the second, as the exact solution (1) has it.
    """
    kappa, h = 1 + eta, math.log(here / there)
    middle = here * math.exp(-r * h)
    to_middle, rest = math.exp(-kappa * r * h), math.exp(-kappa * (1 - r) * h)
    first = -math.expm1(-kappa * r * h)
    total = -math.expm1(-kappa * h)
    later = total / (2 * r)
    b = (later, total - later - rest * first)
    return (
        Row(here, (to_middle, 0.0), (first,), noise_sd(middle, r * h, eta, s_noise)),
        Row(middle, (rest, 0.0), b, noise_sd(there, (1 - r) * h, eta, s_noise)),
    )


def dpmpp_2s(sigmas: Array, eta: float = 0.0, s_noise: float = 1.0, r: float = 0.5) -> Plan:
    """Second order without history: DPM-Solver++(2S), or its SDE variant for ``eta`` > 0.

    2 calls per step, 1 for a final step to 0.
    """
    grid = check_grid(sigmas)
    rows: list[Row] = []
    for here, there in pairwise(grid):
        rows += _single(here, there, r, eta, s_noise) if there > 0 else [final(here)]
    return Plan(tuple(rows), float(grid[0]), float(grid[-1]))


def eased(grid: Array, halvings: int) -> Array:
    """Split the first interval at h / 2^k, ..., h / 2 in lambda: a multistep method then starts with small steps.

    Its low-order first step costs (h / 2^k)^2 instead of h^2, which is what hides its order otherwise.
    """
    if halvings < 1 or grid[1] <= 0:
        return grid
    shares = 0.5 ** np.arange(halvings, 0, -1)
    return np.concatenate([grid[:1], grid[0] * (grid[1] / grid[0]) ** shares, grid[1:]])


def multistep(
    sigmas: Array, order: int, rule: Rule = weights, eta: float = 0.0, s_noise: float = 1.0, bootstrap: int = 0
) -> Plan:
    """One call per step; D by the polynomial through its last ``order`` answers (exponential Adams-Bashforth).

    The first steps have the order that their history allows; ``bootstrap`` adds that many levels (and calls), see
    `eased`.
    """
    grid = eased(check_grid(sigmas), bootstrap)
    kappa = 1 + eta
    rows: list[Row] = []
    for i, (here, there) in enumerate(pairwise(grid)):
        if there == 0:
            rows.append(final(here))
            continue
        h = math.log(here / there)
        past = grid[i::-1][:order]
        b = rule(np.log(here / past), h, kappa)
        rows.append(Row(here, (math.exp(-kappa * h), 0.0), tuple(b), noise_sd(there, h, eta, s_noise)))
    return Plan(tuple(rows), float(grid[0]), float(grid[-1]))


def dpmpp_2m(sigmas: Array, eta: float = 0.0, s_noise: float = 1.0, bootstrap: int = 0) -> Plan:
    """DPM-Solver++(2M), second order (Lu et al. 2022, algorithm 2), or 2M SDE for ``eta`` > 0. One call per step."""
    return multistep(sigmas, 2, midpoint_weights, eta, s_noise, bootstrap)


def dpmpp_3m(sigmas: Array, eta: float = 0.0, s_noise: float = 1.0, bootstrap: int = 0) -> Plan:
    """DPM-Solver++(3M), or 3M SDE for ``eta`` > 0 (weak order 2: noise makes D rough in lambda). One call per step.

    With the full second difference. The authors' code and those that follow it take half of it, which makes their
    method second order (tests/diffusion/test_orders.py shows it).
    """
    return multistep(sigmas, 3, weights, eta, s_noise, bootstrap)
