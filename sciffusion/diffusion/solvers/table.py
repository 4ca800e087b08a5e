"""A solver is a table: the form that every fixed-step solver of this package takes.

Row r of a plan calls the denoiser once and is linear in what is known by then:

    K_r = p D(x, sigma_r) + q x                          (p = 1, q = 0 if nothing is said)
    x  <-  X_0 x + X_1 y + sum_j b_j K_{r-j} + noise z                                        (1)
    y  <-  Y_0 x + Y_1 y + sum_j g_j K_{r-j}             (with the x and y from before)       (2)

y is a second register for solvers that return to an earlier point (Heun, UniPC); most leave it empty. Coefficients are
python floats made once, in float64, on the host, so that a step is a few axpys that never wait for the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciffusion.errors import SciffusionError

__all__ = ["Array", "Plan", "Row", "check_grid", "final"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One call of the denoiser at ``sigma`` and the updates (1), (2); ``answer`` is (p, q).

    Whatever numbers it is given become python floats: compiled code takes numpy's for data.
    """

    sigma: float
    x: tuple[float, float]
    b: tuple[float, ...]
    noise: float = 0.0
    y: tuple[float, float] = (0.0, 0.0)
    g: tuple[float, ...] = ()
    answer: tuple[float, float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            plain = float(value) if np.ndim(value) == 0 else tuple(float(entry) for entry in value)
            object.__setattr__(self, name, plain)


@dataclass(frozen=True)
class Plan:
    """The rows of a solver on one grid, from level ``start`` to ``end``; ``kick`` is the sd of noise added at first."""

    rows: tuple[Row, ...]
    start: float
    end: float
    kick: float = 0.0

    @property
    def calls(self) -> int:
        """Calls of the denoiser: one per row, exactly."""
        return len(self.rows)

    @property
    def depth(self) -> int:
        """How many answers of the denoiser have to be kept."""
        return max(max(len(row.b), len(row.g)) for row in self.rows)

    @property
    def stochastic(self) -> bool:
        """Whether noise is added on the way."""
        return self.kick > 0 or any(row.noise > 0 for row in self.rows)

    @property
    def sigma(self) -> Array:
        """The level of every call, (calls,)."""
        return np.array([row.sigma for row in self.rows])


def check_grid(sigmas: Sequence[float] | Array) -> Array:
    """``sigmas`` as float64; raises SciffusionError unless it falls strictly from above 0 to 0 or above."""
    grid = np.asarray(sigmas, dtype=np.float64)
    if grid.ndim != 1 or len(grid) < 2 or not np.all(np.diff(grid) < 0) or grid[-1] < 0:
        raise SciffusionError("the noise levels do not fall strictly to 0 or above", "use sigmas.karras(steps, ...)")
    return grid


def final(sigma: float) -> Row:
    """The exact step from ``sigma`` to 0: x <- D."""
    return Row(sigma, (0.0, 0.0), (1.0,))
