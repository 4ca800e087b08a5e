"""Moment matching posterior sampling (Rozet et al. 2024, arXiv:2405.13712, section 4): the default.

x0 given x is taken as a Gaussian with the mean D and the covariance V = sigma^2 J, which is its true covariance
(Tweedie's second-order formula), so for Gaussian fields the posterior is exact:

    v = (R + A V A^T)^-1 (y - A D)

by conjugate gradients, each iteration of which is one product with J^T. J of a trained network is symmetric only as far
as the network is a true denoiser; a direction of negative curvature ends the iteration of its sample.
"""

from collections.abc import Sequence

from torch import Tensor

from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.guidance.observations import Map, Observed
from sciffusion.operators import LinearOperator, conjugate_gradients

__all__ = ["MMPS"]


class MMPS(Observed):
    """Moment matching; parameters as `Observed`, and the limits of the conjugate gradients.

    Parameters
    ----------
    iterations : at most this many products with J^T beside the last one of every call; as many as there are
        observations are always enough, few are enough when stations are far apart or errors large.
    tolerance : a sample stops when its residual is this small a part of its misfit.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: LinearOperator,
        y: Tensor,
        noise: float | Tensor,
        channels: Sequence[int] | None = None,
        *,
        iterations: int = 8,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__(denoiser, operator, y, noise, channels)
        self.iterations, self.tolerance = iterations, tolerance

    def dual(self, misfit: Tensor, pull: Map, sigma: Tensor) -> Tensor:
        """(I + A V A^T)^-1 of the misfit, whitened."""
        axes = tuple(range(1, misfit.ndim))
        return conjugate_gradients(
            lambda v: v + self.observe(pull(v)), misfit, axes, tolerance=self.tolerance, limit=self.iterations
        )
