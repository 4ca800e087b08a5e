"""Moment matching posterior sampling (Rozet et al. 2024, arXiv:2405.13712, section 4): the default.

x0 given x is taken as a Gaussian with the mean D and the covariance V = sigma^2 J, which is its true covariance
(Tweedie's second-order formula), so for Gaussian fields the posterior is exact:

    v = (R + A V A^T)^-1 (y - A D)

by conjugate gradients, each iteration of which is one product with J^T. J of a trained network is symmetric only as far
as the network is a true denoiser; a direction of negative curvature ends the iteration of its sample.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from sciffusion.diffusion.guidance.observations import Map, Observed
from sciffusion.operators import conjugate_gradients

__all__ = ["MMPS"]


class MMPS(Observed):
    """Moment matching; parameters as `Observed`, and the limits of the conjugate gradients.

    Parameters
    ----------
    iterations : at most this many products with J^T beside the last one of every call; as many as there are
        observations are always enough, few are enough when stations are far apart or errors large.
    tolerance : a sample stops when its residual is this small a part of its misfit.
    """

    defaults: ClassVar[Mapping[str, float]] = {"iterations": 8, "tolerance": 1e-6}

    def dual(self, misfit: Tensor, pull: Map, sigma: Tensor) -> Tensor:
        """(I + A V A^T)^-1 of the misfit, whitened."""
        axes, limit = tuple(range(1, misfit.ndim)), int(self.settings["iterations"])
        return conjugate_gradients(lambda v: v + self.observe(pull(v)), misfit, axes, self.settings["tolerance"], limit)
