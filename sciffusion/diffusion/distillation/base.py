"""What all objectives of few-step models share: draw levels and noise, weigh the square of a residual."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion import noises
from sciffusion.diffusion.denoiser import expand
from sciffusion.diffusion.flowmap import FlowMap
from sciffusion.diffusion.objectives import weighted_mean
from sciffusion.diffusion.sigmas import placed
from sciffusion.diffusion.weights import LearnedUncertainty

__all__ = ["Draw", "Objective", "endpoint", "same_dropout"]


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw of a training step: data and noise (batch, channel, *grid), levels (kinds, batch), x's own first."""

    x0: Tensor
    z: Tensor
    levels: Tensor
    cond: Context | None = None
    progress: float = 1.0
    generator: torch.Generator | None = None

    def at(self, sigma: Tensor) -> Tensor:
        """The field x0 + sigma z."""
        return self.x0 + expand(sigma, self.x0) * self.z


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """Base: ``objective(student, x0, cond, generator, weights, valid, progress=)`` -> loss per sample, (batch,).

    Teachers are held, not owned: they are not in the student's parameters, and get no gradients.

    Parameters
    ----------
    uncertainty : learned weight per level, trained with the student.
    """

    uncertainty: LearnedUncertainty | None = None

    def levels(self, batch: int, generator: torch.Generator | None = None, progress: float = 1.0) -> Tensor:
        """Levels that a step of training needs, (kinds, batch), on the generator's device."""
        raise NotImplementedError

    def residual(self, student: FlowMap, draw: Draw) -> Tensor:
        """What shall vanish, (batch, channel, *grid): weighted, with targets detached."""
        raise NotImplementedError

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
        """The loss per sample (batch,). ``progress`` is the share of the training done; see also denoising_loss."""
        valid = cond.valid if valid is None and cond is not None else valid
        if valid is not None:
            x0 = torch.where(valid, x0, 0)
        levels = placed(self.levels(len(x0), generator, progress), x0)
        draw = Draw(x0, noises.draw(student, x0, generator), levels, cond, progress, generator)
        loss = self.loss(student, draw, weights, valid)
        return loss if self.uncertainty is None else self.uncertainty(loss, levels[0])

    def loss(self, student: FlowMap, draw: Draw, weights: Tensor | None, valid: Tensor | None) -> Tensor:
        """The mean square residual per sample, (batch,)."""
        return weighted_mean(self.residual(student, draw).square(), weights, valid)


def same_dropout(like: Tensor) -> AbstractContextManager[None]:
    """Random numbers drawn inside will be drawn again after: student and target then drop the same activations."""
    return torch.random.fork_rng([like.device] if like.device.type == "cuda" else [], device_type="cuda")


def endpoint(flow_map: FlowMap, x: Tensor, sigma: Tensor, cond: Context | None) -> Tensor:
    """The map to level 0, which at sigma = 0 is x itself."""
    at_end = sigma == 0
    answer = flow_map(x, torch.where(at_end, 1, sigma), torch.zeros_like(sigma), cond)
    return torch.where(expand(at_end, x), x, answer)
