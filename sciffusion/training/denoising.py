"""Training a denoiser stage: the denoising loss, and its value at fixed noise levels on the validation cases."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sciffusion.diffusion.noises import draw
from sciffusion.diffusion.objectives import denoising_error, denoising_loss
from sciffusion.diffusion.weights import edm_weight
from sciffusion.stages.denoiser import DenoiserStage
from sciffusion.stages.levels import level_weight, training_levels
from sciffusion.training.module import StageModule

__all__ = ["DenoiserModule"]

LEVELS = 8  # noise levels of the validation loss


class DenoiserModule(StageModule):
    """A denoiser stage in training."""

    stage: DenoiserStage
    once: ClassVar[bool] = True

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Denoising loss with the settings' levels and weight."""
        stage = self.stage
        learned = stage.learn(batch, self.kept(batch, stage.settings.condition_dropout))
        losses = denoising_loss(
            stage.denoiser,
            learned.y,
            learned.context,
            training_levels(stage.settings.noise, stage.noise_range, stage.path),
            None,
            learned.area,
            learned.valid,
            level_weight=level_weight(stage.settings.noise, stage.parameterization),
        )
        return losses.mean()

    def validation_losses(self, batch: dict[str, Any], number: int) -> dict[str, Tensor]:
        """EDM's loss at fixed levels, with noise fixed per validation case."""
        generator = torch.Generator().manual_seed(number)
        learned = self.stage.learn(batch, self.kept(batch), generator)
        y, losses = learned.y, {}
        for sigma in self._levels():
            noise = draw(self.stage.denoiser, y, generator)
            level = y.new_full((len(y),), sigma)
            error = denoising_error(self.stage.denoiser, y, level, noise, learned.context, learned.area, learned.valid)
            losses[f"sigma_{sigma:.3g}"] = (edm_weight(level) * error).mean()
        return losses | {"loss": torch.stack(list(losses.values())).mean()}

    def _levels(self) -> list[float]:
        low, high = self.stage.noise_range.sigma_min, self.stage.noise_range.sigma_max
        return [float(sigma) for sigma in np.geomspace(max(low, 0.02), high, LEVELS)]
