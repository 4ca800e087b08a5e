"""What a network is asked to predict, as the four coefficients of D(x, sigma) = c_skip x + c_out F(c_in x, c_noise).

Notation: x = x0 + sigma z, sigma_data = s the sd of x0. A paper's own coordinates are x_t = alpha x with
alpha = c_in (in units of s), so each class says which F it stands for. The derivation is in docs/theory.md.

c_noise tells the network the level; any monotone function of sigma will do. The default, log(sigma) / 4 (EDM table 1),
resolves low levels in every parameterisation; ``clock`` replaces it by a paper's time to match a given network.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sciffusion.errors import SciffusionError

__all__ = ["EDM", "Clean", "Epsilon", "Flow", "Parameterization", "Velocity", "by_name"]

Clock = Callable[[Tensor], Tensor]
Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


class Parameterization:
    """Base: ``self(sigma, sigma_data, dof)`` -> (c_skip, c_out, c_in, c_noise), each of the shape of sigma.

    Student-t noise of ``dof`` degrees of freedom has variance dof / (dof - 2): the coefficients see the sd that the
    noise really has (arXiv:2410.14171, section 3.4).
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock

    def __call__(self, sigma: Tensor, sigma_data: float = 1.0, dof: float = math.inf) -> Coefficients:
        """The four coefficients at the levels ``sigma`` (batch,)."""
        c_noise = torch.log(sigma) / 4 if self.clock is None else self.clock(sigma)
        spread = 1.0 if math.isinf(dof) else math.sqrt(dof / (dof - 2))
        c_skip, c_out, c_in = self.scale(sigma * (spread / sigma_data))
        return c_skip, c_out * sigma_data, c_in / sigma_data, c_noise

    def scale(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(c_skip, c_out, c_in) for data of unit sd."""
        raise NotImplementedError


class EDM(Parameterization):
    """F of unit variance and least amplified error (Karras et al. 2022, arXiv:2206.00364, table 1 and appendix B.6)."""

    def scale(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip = 1 / (1 + sigma^2), c_out = sigma / sqrt(1 + sigma^2), c_in = 1 / sqrt(1 + sigma^2)."""
        c_in = torch.rsqrt(1 + sigma**2)
        return c_in**2, sigma * c_in, c_in


class Epsilon(Parameterization):
    """F = z, the noise (Ho et al. 2020, arXiv:2006.11239, eq. 12); input in variance-preserving coordinates."""

    def scale(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D = x - sigma F."""
        return torch.ones_like(sigma), -sigma, torch.rsqrt(1 + sigma**2)


class Clean(Parameterization):
    """F = x0, the clean field itself; input in variance-preserving coordinates."""

    def scale(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D = F."""
        return torch.zeros_like(sigma), torch.ones_like(sigma), torch.rsqrt(1 + sigma**2)


class Velocity(Parameterization):
    """F = alpha z - sigma_t x0 = v (Salimans & Ho 2022, arXiv:2202.00512, appendix D): the negative of EDM's F."""

    def scale(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D = alpha x_t - sigma_t F with alpha = 1 / sqrt(1 + sigma^2), sigma_t = sigma alpha, x_t = alpha x."""
        alpha = torch.rsqrt(1 + sigma**2)
        return alpha**2, -sigma * alpha, alpha


class Flow(Parameterization):
    """F = z - x0 on x_t = (1 - t) x0 + t z, t = sigma / (1 + sigma) (Liu et al. 2022, arXiv:2209.03003)."""

    def scale(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D = x_t - t F."""
        alpha = 1 / (1 + sigma)
        return alpha, -sigma * alpha, alpha


_NAMES: dict[str, type[Parameterization]] = {
    "edm": EDM,
    "epsilon": Epsilon,
    "x0": Clean,
    "velocity": Velocity,
    "flow": Flow,
}


def by_name(name: str, clock: Clock | None = None) -> Parameterization:
    """The parameterisation called ``name``: edm, epsilon, x0, velocity or flow."""
    if name not in _NAMES:
        raise SciffusionError(f"no parameterization is called {name!r}", f"known: {', '.join(_NAMES)}")
    return _NAMES[name](clock)
