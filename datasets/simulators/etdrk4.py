"""Exponential time differencing for stiff equations: fourth order, the linear part exact.

For du/dt = L u + N(u) with L diagonal, a step of length h (Cox and Matthews 2002, doi:10.1006/jcph.2002.6995) is

    a = E2 u + Q N(u);   b = E2 u + Q N(a);   c = E2 a + Q (2 N(b) - N(u))
    u' = E u + f1 N(u) + 2 f2 (N(a) + N(b)) + f3 N(c)

with E = exp(hL), E2 = exp(hL/2). Q, f1, f2 and f3 are means over a circle around hL, which avoids the cancellation near
0 (Kassam and Trefethen 2005, doi:10.1137/S1064827502410633, section 3).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["ETDRK4"]

POINTS = 32  # on the circle: the means are then exact to rounding


class ETDRK4:
    """A step of length ``step``: ``linear`` is the real diagonal L (*modes), ``tendency`` the function N."""

    def __init__(self, linear: Tensor, tendency: Callable[[Tensor], Tensor], step: float) -> None:
        self.tendency, self.length = tendency, step
        z = step * linear.double()
        angle = math.pi * (torch.arange(POINTS, dtype=torch.float64, device=z.device) + 0.5) / POINTS
        r = z[..., None] + torch.exp(2j * angle)
        e = torch.exp(r)

        def mean(values: Tensor) -> Tensor:
            return (step * values.mean(-1).real).to(linear.dtype)

        self.e, self.e2 = torch.exp(z).to(linear.dtype), torch.exp(z / 2).to(linear.dtype)
        self.q = mean((torch.exp(r / 2) - 1) / r)
        self.f1 = mean((-4 - r + e * (4 - 3 * r + r**2)) / r**3)
        self.f2 = mean((2 + r + e * (r - 2)) / r**3)
        self.f3 = mean((-4 - 3 * r - r**2 + e * (4 - r)) / r**3)

    def __call__(self, u: Tensor) -> Tensor:
        """The state one step later; u (..., *modes)."""
        n = self.tendency(u)
        half = self.e2 * u
        a = half + self.q * n
        na = self.tendency(a)
        nb = self.tendency(half + self.q * na)
        nc = self.tendency(self.e2 * a + self.q * (2 * nb - n))
        return self.e * u + self.f1 * n + 2 * self.f2 * (na + nb) + self.f3 * nc
