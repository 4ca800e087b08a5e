"""Rotating shallow water on a doubly periodic plane: balanced eddies and gravity waves.

Notation: velocity (u, v) in m s-1 on (y, x), depth H + h in m, zeta = dv/dx - du/dy, B = g h + (u^2 + v^2) / 2.

    du/dt =  (f + zeta) v - dB/dx        dv/dt = -(f + zeta) u - dB/dy                                (1)
    dh/dt = -d(u (H + h))/dx - d(v (H + h))/dy

in vector-invariant form, on an f-plane, with a scale-selective damping of rate (k / k_max)^8 / tau on all three. Mass
is conserved exactly; small waves obey omega^2 = f^2 + g H k^2 and balanced shear flows u(y) = -(g / f) dh/dy are steady
(Vallis 2017, Atmospheric and Oceanic Fluid Dynamics, sections 3.8 and 3.9).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sciffusion.datasets.simulators.box import Box, random_field
from sciffusion.datasets.simulators.etdrk4 import ETDRK4

__all__ = ["ShallowWater"]

START_MODES = 64  # grid on which initial noise is drawn, so that it is the same at every resolution


class ShallowWater:
    """Equations (1) on ``size`` points a side over ``length`` metres.

    ``step`` in s; ``depth`` H in m; ``coriolis`` f in s-1; ``wind`` rms initial speed in m s-1; ``damping`` tau in s
    (None: no damping). A state is (u, v, h), (case, 3, *modes).
    """

    def __init__(
        self,
        size: int,
        step: float,
        *,
        length: float = 4e6,
        depth: float = 1000.0,
        coriolis: float = 1e-4,
        gravity: float = 9.81,
        wind: float = 15.0,
        damping: float | None = 3600.0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.box = box = Box((size, size), (length, length), dtype, device)
        self.depth, self.coriolis, self.gravity, self.wind = depth, coriolis, gravity, wind
        self._ky, self._kx = (1j * k for k in box.k)
        largest = box.k2[box.keep].max()
        rate = 0.0 if damping is None else 1 / damping
        self.step = ETDRK4(-rate * (box.k2 / largest) ** 4, self.tendency, step)

    def tendency(self, state: Tensor) -> Tensor:
        """The right side of (1)."""
        box = self.box
        u, v, h = box.field(state).unbind(1)
        absolute = self.coriolis + box.field(self._kx * state[:, 1] - self._ky * state[:, 0])
        head = self.gravity * state[:, 2] + (box.product(u, u) + box.product(v, v)) / 2
        du = box.product(absolute, v) - self._kx * head
        dv = -box.product(absolute, u) - self._ky * head
        dh = -self._kx * box.product(u, self.depth + h) - self._ky * box.product(v, self.depth + h)
        return torch.stack([du, dv, dh], 1)

    def fields(self, state: Tensor) -> Tensor:
        """(u, v, h), (case, 3, *shape)."""
        return self.box.field(state)

    def start(self, cases: Sequence[int], seed: int) -> Tensor:
        """Random eddies in geostrophic balance: a streamfunction psi of scales around length / 6, h = f psi / g."""
        box = self.box
        unit = 2 * torch.pi / box.lengths[0]
        drawn = (min(START_MODES, box.shape[0]),) * 2
        psi = random_field(cases, box, lambda k: _broad(k / unit), seed=seed, name="shallow_water", modes=drawn)
        modes = box.modes(psi) * box.keep
        modes[..., 0, 0] = 0
        u, v = box.field(torch.stack([-self._ky * modes, self._kx * modes], 1)).unbind(1)
        modes = modes * (self.wind / (u**2 + v**2).mean((-2, -1)).sqrt())[:, None, None]
        return torch.stack([-self._ky * modes, self._kx * modes, self.coriolis / self.gravity * modes], 1)


def _broad(index: Tensor) -> Tensor:
    """Variance of a mode of psi over its wavenumber in cycles per domain: flat, then falling steeply."""
    return (1 + (index / 6) ** 2) ** -4.0
