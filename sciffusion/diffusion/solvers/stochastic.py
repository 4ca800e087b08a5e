"""Ancestral samplers, the reverse SDE by Euler-Maruyama, predictor-corrector.

Notation: from level sigma to s below it; all in the frame x0 + sigma z. The factor of D is one minus that of x, so
that a perfectly known field is a fixed point. Noise is left out of a step to 0, which is x <- D.
"""

import math
from itertools import pairwise

from sciffusion.diffusion.solvers.table import Array, Plan, Row, check_grid, final
from sciffusion.errors import SciffusionError

__all__ = ["ddim", "ddpm", "euler_maruyama", "predictor_corrector"]


def _row(sigma: float, keep: float, noise: float) -> Row:
    return Row(sigma, (keep, 0.0), (1 - keep,), noise)


def _plan(grid: Array, rows: list[Row]) -> Plan:
    return Plan(tuple(rows), float(grid[0]), float(grid[-1]))


def ddim(sigmas: Array, eta: float = 0.0) -> Plan:
    """DDIM (Song et al. 2021, arXiv:2010.02502, eq. 12 and 16): eta = 0 is Euler, eta = 1 DDPM's small variance.

    Their sigma_t is, divided by sqrt(alpha_bar), eta s sqrt(1 - s^2 / sigma^2): free of the schedule.
    """
    grid = check_grid(sigmas)
    rows = []
    for sigma, s in pairwise(grid):
        noise = eta * s * math.sqrt(1 - (s / sigma) ** 2)
        rows.append(_row(sigma, math.sqrt(s**2 - noise**2) / sigma, noise))
    return _plan(grid, rows)


def ddpm(sigmas: Array, variance: str = "small") -> Plan:
    """Ancestral sampling (Ho et al. 2020, arXiv:2006.11239, algorithm 2) with either of its variances (section 3.2).

    small: that of q(x_s | x_sigma, x0), exact for a known x0. large: beta_t, exact for x0 ~ N(0, I); in this frame
    (sigma^2 - s^2) (1 + s^2) / (1 + sigma^2).
    """
    if variance not in ("small", "large"):
        raise SciffusionError(f"no DDPM variance {variance!r}", "use small or large")
    grid = check_grid(sigmas)
    rows = []
    for sigma, s in pairwise(grid):
        factor = (s / sigma) ** 2 if variance == "small" else (1 + s**2) / (1 + sigma**2)
        noise = math.sqrt((sigma**2 - s**2) * factor) if s > 0 else 0.0
        rows.append(_row(sigma, (s / sigma) ** 2, noise))
    return _plan(grid, rows)


def euler_maruyama(sigmas: Array) -> Plan:
    """The reverse VE SDE dx = (x - D) d(sigma^2) / sigma^2 + noise, first order in sigma^2 (Song et al. 2021).

    arXiv:2011.13456, eq. 6 and appendix E ("reverse diffusion"); weak order 1.
    """
    grid = check_grid(sigmas)
    noises = [math.sqrt(sigma**2 - s**2) if s > 0 else 0.0 for sigma, s in pairwise(grid)]
    rows = [_row(sigma, (s / sigma) ** 2, noise) for (sigma, s), noise in zip(pairwise(grid), noises, strict=True)]
    return _plan(grid, rows)


def predictor_corrector(sigmas: Array, corrections: int = 1, snr: float = 0.16) -> Plan:
    """Euler-Maruyama, then ``corrections`` Langevin steps at the new level (arXiv:2011.13456, algorithm 2).

    A Langevin step has q = 2 snr^2: x <- (1 - q) x + q D + sigma sqrt(1 - (1 - q)^2) z. The paper's step size with its
    norms replaced by their expectation (|score| = |z| / sigma), so that a member does not depend on its batch-mates;
    its noise sigma sqrt(2 q) made exact for x0 known. Calls: 1 + corrections per step, 1 for a final step to 0.
    """
    grid = check_grid(sigmas)
    keep = 1 - 2 * snr**2
    rows: list[Row] = []
    for sigma, s in pairwise(grid):
        rows.append(_row(sigma, (s / sigma) ** 2, math.sqrt(sigma**2 - s**2)) if s > 0 else final(sigma))
        rows += [_row(s, keep, s * math.sqrt(1 - keep**2))] * (corrections if s > 0 else 0)
    return _plan(grid, rows)
