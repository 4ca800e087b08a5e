"""The Kuramoto-Sivashinsky equation in one dimension: chaos from a fourth derivative.

    du/dt = -u du/dx - d2u/dx2 - d4u/dx4                                                             (1)

on a periodic domain. A mode of small amplitude grows at the rate k^2 - k^4; the mean of u is conserved; u(x - c t) + c
solves (1) whenever u does. Solved as in Kassam and Trefethen 2005 (doi:10.1137/S1064827502410633, section 4).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sciffusion.datasets.simulators.box import Box, random_field
from sciffusion.datasets.simulators.etdrk4 import ETDRK4

__all__ = ["KuramotoSivashinsky"]

START_MODES = 32  # points on which initial noise is drawn, so that it is the same at every resolution


class KuramotoSivashinsky:
    """Equation (1) on ``size`` points over ``length``. A state is u, (case, *modes)."""

    def __init__(
        self,
        size: int,
        step: float,
        *,
        length: float = 64.0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.box = box = Box((size,), (length,), dtype, device)
        self._half_gradient = -0.5j * box.k[0]
        self.step = ETDRK4(box.k2 - box.k2**2, self.tendency, step)

    def tendency(self, state: Tensor) -> Tensor:
        """-(u^2 / 2)_x of the modes of u."""
        u = self.box.field(state)
        return self._half_gradient * self.box.product(u, u)

    def fields(self, state: Tensor) -> Tensor:
        """The field u, (case, 1, size)."""
        return self.box.field(state)[:, None]

    def start(self, cases: Sequence[int], seed: int) -> Tensor:
        """Random fields of sd about 1 without a mean, on the scales that grow."""
        drawn = (min(START_MODES, self.box.shape[0]),)
        noise = random_field(cases, self.box, lambda k: 1.0 * (k <= 1), seed=seed, name="ks", modes=drawn)
        modes = self.box.modes(noise) * self.box.keep
        modes[..., 0] = 0
        return modes
