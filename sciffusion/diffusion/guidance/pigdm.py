"""Pseudoinverse-guided diffusion (Song et al. 2023, ICLR, "PiGDM").

x0 given x is taken as N(D, r^2 I) with r^2 = sigma^2 s^2 / (s^2 + sigma^2), right for white fields of sd s only:

    v = (R + r^2 A A^T)^-1 (y - A D).

A field's neighbours know about each other, so the true variance is smaller at fine levels and larger in the leading
modes: the posterior's spread is biased. For comparison; `MMPS` uses the covariance that the denoiser itself knows.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from sciffusion.diffusion.denoiser import expand
from sciffusion.diffusion.guidance.observations import Map, Observed
from sciffusion.operators import conjugate_gradients

__all__ = ["PiGDM"]


class PiGDM(Observed):
    """Parameters as `Observed`, and ``sigma_data``, the sd s of the field (1 after this package's codec)."""

    defaults: ClassVar[Mapping[str, float]] = {"sigma_data": 1.0}

    def dual(self, misfit: Tensor, pull: Map, sigma: Tensor) -> Tensor:
        """(I + r^2 A A^T)^-1 of the misfit, whitened; costs no call of the network."""
        square = self.settings["sigma_data"] ** 2
        variance = expand(square * sigma**2 / (square + sigma**2), misfit)

        def matrix(v: Tensor) -> Tensor:
            weights = self.precision.to(v)
            return v + variance * weights * self.operator.matvec(self.operator.rmatvec(weights * v))

        return conjugate_gradients(matrix, misfit, tuple(range(1, misfit.ndim)), tolerance=1e-6, limit=100)
