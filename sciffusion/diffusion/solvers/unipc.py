"""UniPC: a multistep predictor whose every answer of the denoiser also corrects the point it was given at.

Zhao et al. 2023, arXiv:2302.04867, in lambda = -log sigma and D; weights as in exponential.py. Register x holds the
predicted point x_i and y the corrected point before it. A row does, with D_i = D(x_i, sigma_i),

    corrected  =  e^{-h_{i-1}} y + sum of weights times D_i, D_{i-1}, ...                     (UniC)
    x          =  e^{-h_i} corrected + sum of weights times D_i, D_{i-1}, ...                 (UniP)
    y          =  corrected
"""

import math

import numpy as np

from sciffusion.diffusion.solvers.exponential import eased, weights
from sciffusion.diffusion.solvers.table import Array, Plan, Row, check_grid, final
from sciffusion.errors import SciffusionError

__all__ = ["unipc"]


def unipc(sigmas: Array, order: int = 2, variant: str = "bh2", bootstrap: int = 0) -> Plan:
    """UniPC with a predictor of ``order`` 1 to 3; the corrector raises the order by one. One call per step.

    ``variant`` is the paper's B(h) where its shortcut for two nodes leaves it visible: bh1 = h, bh2 = 1 - e^{-h}; with
    more nodes B(h) cancels. ``bootstrap`` as in exponential.py. The last point is not corrected: that takes a call.
    """
    if order not in (1, 2, 3) or variant not in ("bh1", "bh2"):
        raise SciffusionError(f"no UniPC of order {order}, variant {variant!r}", "use order 1-3 and bh1 or bh2")
    grid = eased(check_grid(sigmas), bootstrap)
    rows = [_row(grid[: i + 2], order, variant) for i in range(len(grid) - 1)]
    return Plan(tuple(rows), float(grid[0]), float(grid[-1]))


def _row(grid: Array, order: int, variant: str) -> Row:
    """The row from the level before the last of ``grid`` to the last."""
    *past, here, there = grid
    if there == 0:
        return final(here)
    predict = np.zeros(order + 1)
    nodes = np.log(here / grid[-2::-1][:order])
    predict[: len(nodes)] = _rule(nodes, math.log(here / there), variant)
    decay = there / here
    if not past:
        return Row(here, (decay, 0.0), tuple(predict), y=(1.0, 0.0))
    ratio, correct = here / past[-1], _corrector(grid[:-1], order, variant)
    kept = (0.0, ratio)
    return Row(here, (0.0, decay * ratio), tuple(decay * correct + predict), y=kept, g=tuple(correct))


def _corrector(grid: Array, order: int, variant: str) -> Array:
    """Weights of the answers, newest first, in the step that ends at the newest level grid[-1]."""
    nodes = np.log(grid[-2] / grid[::-1][: order + 1])
    origin_first = np.array([1, 0, *range(2, len(nodes))])
    answer = np.zeros(order + 1)
    answer[origin_first] = _rule(nodes[origin_first], float(nodes[0]), variant)
    return answer


def _rule(nodes: Array, h: float, variant: str) -> Array:
    """Weights at ``nodes`` (the first at the step's origin); two take the paper's coefficient 1/2 (section 3.3)."""
    if len(nodes) != 2:
        return weights(nodes, h)
    total = -math.expm1(-h)
    difference = (h if variant == "bh1" else total) / 2 * h / nodes[1]
    return np.array([total - difference, difference])
