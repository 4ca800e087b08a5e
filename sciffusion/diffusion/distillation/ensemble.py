"""One-step generators trained by the score of the ensemble that they make."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sciffusion.diffusion import noises
from sciffusion.diffusion.distillation.base import Draw, Objective
from sciffusion.diffusion.flowmap import FlowMap
from sciffusion.diffusion.objectives import almost_fair_crps
from sciffusion.diffusion.sampling import start_sd

__all__ = ["OneStepCRPS"]


@dataclass(frozen=True, kw_only=True, eq=False)
class OneStepCRPS(Objective):
    """Almost-fair CRPS of ``members`` one-step samples per case (Lang et al. 2024, arXiv:2412.15832).

    The student maps its start at ``sigma_max`` to 0 in one call, so `sample_map` with levels (sigma_max, 0) samples it.
    The score is proper cell by cell: it says nothing of how cells vary together but through the network's shared noise.
    """

    sigma_max: float
    members: int = 2
    alpha: float = 0.95
    sigma_data: float = 1.0

    def levels(self, batch: int, generator: torch.Generator | None = None, progress: float = 1.0) -> Tensor:
        """The level of the start, (1, batch)."""
        return torch.full((1, batch), self.sigma_max)

    def loss(self, student: FlowMap, draw: Draw, weights: Tensor | None, valid: Tensor | None) -> Tensor:
        """The score per sample (batch,)."""
        sigma = draw.levels[0].repeat_interleave(self.members)
        z = noises.draw(student, draw.x0.repeat_interleave(self.members, dim=0), draw.generator)
        cond = None if draw.cond is None else draw.cond.repeat(self.members)
        ensemble = student(start_sd(self.sigma_max, self.sigma_data) * z, sigma, torch.zeros_like(sigma), cond)
        ensemble = ensemble.reshape(-1, self.members, *draw.x0.shape[1:]).movedim(1, 0)
        return almost_fair_crps(ensemble, draw.x0, self.alpha, weights, valid)
