"""Replacement of what is known (Song et al. 2021, arXiv:2011.13456, appendix I; RePaint, Lugmayr et al. 2022).

    D <- D + A^+ (y - A D)

For points and masks the observed cells of D become y, and along any solver the observed cells of x are then y + sigma z
with the member's own z: the known values at the noise level of the moment, which is what RePaint pastes in
(arXiv:2201.09865, eq. 8). Its resampling is a matter of the solver: "predictor-corrector", or churn.

Errors of observations are ignored, so observed cells have no spread, and the rest of the field hears of them only
through the denoiser: quick gap filling, not a posterior.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.guidance.constraints import Projected
from sciffusion.diffusion.guidance.observations import seen_rows
from sciffusion.operators import LinearOperator, project

__all__ = ["Replacement"]


class Replacement(Projected):
    """Parameters as `Observed`, which it can stand in for; ``noise`` is ignored. Needs no gradients."""

    def __init__(
        self,
        denoiser: Denoiser,
        operator: LinearOperator,
        y: Tensor,
        noise: float | Tensor = 0.0,
        channels: Sequence[int] | None = None,
    ) -> None:
        known = torch.where(seen_rows(operator, y), y, torch.nan)
        super().__init__(denoiser, project(operator), known, channels)
