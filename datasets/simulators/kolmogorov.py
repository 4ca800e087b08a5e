"""Two-dimensional turbulence driven by a steady shear force: Kolmogorov flow.

Notation: velocity (u, v) on (y, x), vorticity w = dv/dx - du/dy, streamfunction psi with w = Laplace(psi). With
viscosity nu, linear drag a and the force (A sin(k_f y), 0)

    dw/dt = -[(d_xx - d_yy)(u v) + d_xy(v^2 - u^2)] - A k_f cos(k_f y) + (nu Laplace - a) w            (1)

whose bracket is the advection u . grad w of a flow without divergence, written with two products (Basdevant 1983,
doi:10.1016/0021-9991(83)90064-5). Kinetic energy E = <u^2 + v^2> / 2 obeys dE/dt = <u A sin(k_f y)> - nu <w^2> - 2 a E.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciffusion.datasets.simulators.box import Box, random_field, resample
from sciffusion.datasets.simulators.etdrk4 import ETDRK4

__all__ = ["KolmogorovFlow"]

PEAK = 4.0  # wavenumber of the initial energy
START_MODES = 64  # grid on which initial noise is drawn, so that it is the same at every resolution


class KolmogorovFlow:
    """Equation (1) on [0, 2 pi]^2 with ``size`` points a side, after Rozet and Louppe 2023 (arXiv:2306.10574).

    ``step`` in units of time; ``speed`` is the largest initial velocity. A state is the vorticity (case, *modes).
    """

    def __init__(
        self,
        size: int,
        step: float,
        *,
        viscosity: float = 1e-3,
        drag: float = 0.1,
        amplitude: float = 1.0,
        force_wavenumber: int = 4,
        speed: float = 3.0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.box = box = Box((size, size), (2 * math.pi, 2 * math.pi), dtype, device)
        self.viscosity, self.drag, self.speed = viscosity, drag, speed
        ky, kx = box.k
        inverse = torch.where(box.k2 > 0, 1 / box.k2.clamp(min=1), 0.0)
        self._to_velocity = torch.stack([1j * ky * inverse, -1j * kx * inverse])
        self._shear, self._stretch = ky**2 - kx**2, -kx * ky  # of d_xx - d_yy and of d_xy
        y = 2 * math.pi / size * torch.arange(size, dtype=dtype, device=device)
        self.force = (amplitude * torch.sin(force_wavenumber * y))[:, None].expand(size, size)
        self._stir = -1j * ky * box.modes(self.force)
        self.step = ETDRK4(-viscosity * box.k2 - drag, self.tendency, step)

    def velocity_modes(self, vorticity: Tensor) -> Tensor:
        """Modes of (u, v), (case, 2, *modes), without divergence by construction."""
        return self._to_velocity * vorticity[:, None]

    def fields(self, state: Tensor) -> Tensor:
        """Velocity (u, v), (case, 2, *shape)."""
        return self.box.field(self.velocity_modes(state))

    def tendency(self, vorticity: Tensor) -> Tensor:
        """The right side of (1) but for its linear part."""
        u, v = self.fields(vorticity).unbind(1)
        advection = self._shear * self.box.product(u, v) + self._stretch * self.box.product(v - u, v + u)
        return self._stir - advection

    def start(self, cases: Sequence[int], seed: int) -> Tensor:
        """Random vorticity whose energy peaks at wavenumber 4, scaled to the largest velocity ``speed``."""
        drawn = (min(START_MODES, self.box.shape[0]),) * 2
        noise = random_field(cases, self.box, _peaked, seed=seed, name="kolmogorov", modes=drawn)
        modes = self.box.modes(noise) * self.box.keep
        modes[..., 0, 0] = 0
        fastest = self.fields(modes).square().sum(1).amax((-2, -1)).sqrt()
        return modes * (self.speed / fastest)[:, None, None]

    def continued(self, state: Tensor, other: "KolmogorovFlow") -> Tensor:
        """``state`` of this model as a state of ``other``, on its grid."""
        coarse = resample(self.box.field(state), other.box.shape)
        return other.box.modes(coarse) * other.box.keep


def _peaked(k: Tensor) -> Tensor:
    """Variance of a vorticity mode: a Gaussian in log k around the peak."""
    return torch.exp(-(((k.clamp(min=1e-12) / PEAK).log() / 0.35) ** 2)) * (k > 0)
