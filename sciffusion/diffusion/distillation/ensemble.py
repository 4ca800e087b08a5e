"""One-step generators trained by the score of the ensemble that they make."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.flowmap import FlowMap
from sciffusion.diffusion.noises import draw
from sciffusion.diffusion.objectives import almost_fair_crps
from sciffusion.diffusion.sampling import start_sd

__all__ = ["OneStepCRPS"]


@dataclass(frozen=True, kw_only=True, eq=False)
class OneStepCRPS:
    """Almost-fair CRPS of ``members`` one-step samples per case (Lang et al. 2024, arXiv:2412.15832).

    The student maps its start at ``sigma_max`` to 0 in one call, so `sample_map` with levels (sigma_max, 0) samples it.
    The score is proper cell by cell: it says nothing of how cells vary together but through the network's shared noise.
    """

    sigma_max: float
    members: int = 2
    alpha: float = 0.95
    sigma_data: float = 1.0

    def __call__(
        self,
        student: FlowMap,
        x0: Tensor,
        cond: Context | None = None,
        generator: torch.Generator | None = None,
        weights: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        progress: float = 1.0,
    ) -> Tensor:
        """The loss per sample (batch,); arguments as in Objective."""
        valid = cond.valid if valid is None and cond is not None else valid
        z = draw(student, x0.repeat_interleave(self.members, dim=0), generator)
        sigma = x0.new_full((len(z),), self.sigma_max)
        repeated = None if cond is None else cond.repeat(self.members)
        ensemble = student(start_sd(self.sigma_max, self.sigma_data) * z, sigma, torch.zeros_like(sigma), repeated)
        ensemble = ensemble.reshape(len(x0), self.members, *x0.shape[1:]).movedim(1, 0)
        return almost_fair_crps(ensemble, x0, self.alpha, weights, valid)
