"""Consistency models: the map to level 0 shall give one answer along a trajectory.

At neighbouring levels sigma > r of one trajectory f(x_sigma, sigma, 0) is drawn to f(x_r, r, 0), which is held fixed;
at r = 0 it is x_r itself. Distillation finds x_r by a step of a teacher; tuning takes the same data and noise.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sciffusion.diffusion.denoiser import expand
from sciffusion.diffusion.distillation.base import Draw, Objective, endpoint, same_dropout
from sciffusion.diffusion.flowmap import FlowMap
from sciffusion.diffusion.sigmas import Levels
from sciffusion.diffusion.solvers.table import Array

__all__ = ["ConsistencyDistillation", "EasyConsistency"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ConsistencyDistillation(Objective):
    """Song et al. 2023, arXiv:2303.01469, algorithm 2, with the squared distance and weight 1.

    Parameters
    ----------
    teacher : takes the step between neighbours of ``sigmas`` (falling, e.g. karras(18, ...)); usually
        HeunMap(denoiser), or DenoiserMap for half the calls.
    target : the average of the student's weights that answers at the lower level; None: the student itself.
    """

    teacher: FlowMap
    sigmas: Array
    target: FlowMap | None = None

    def levels(self, batch: int, generator: torch.Generator | None = None, progress: float = 1.0) -> Tensor:
        """A random pair of neighbours, (2, batch)."""
        device = generator.device if generator is not None else torch.device("cpu")
        step = torch.randint(len(self.sigmas) - 1, (batch,), generator=generator, device=device)
        table = torch.as_tensor(self.sigmas, device=device)
        return torch.stack([table[step], table[step + 1]])

    def residual(self, student: FlowMap, draw: Draw) -> Tensor:
        """f(x_sigma, sigma, 0) less the target's answer after the teacher's step."""
        sigma, lower = draw.levels
        x, cond = draw.at(sigma), draw.cond
        with torch.no_grad():
            step = self.teacher(x, sigma, lower, cond)
            with same_dropout(x):
                answer = endpoint(self.target or student, step, lower, cond)
        return endpoint(student, x, sigma, cond) - answer


@dataclass(frozen=True, kw_only=True, eq=False)
class EasyConsistency(Objective):
    """Easy consistency tuning of a trained denoiser (Geng et al. 2024, arXiv:2406.14548, section 3 and eq. 14).

    r / sigma = 1 - n(sigma) / q^(stage + 1), n = 1 + k sigmoid(-b sigma), at least 0. At first r = 0 up to sigma = 2,
    which is the denoising loss, so a student DenoiserMap(denoiser) starts well; the gap then closes by q per stage.

    Parameters
    ----------
    noise : distribution of sigma; the paper's is log-normal with p_mean -1.1, p_std 2.
    stages : how often the gap closes in the course of the training.
    """

    noise: Levels
    stages: int = 8
    q: float = 2.0
    k: float = 8.0
    b: float = 1.0

    def levels(self, batch: int, generator: torch.Generator | None = None, progress: float = 1.0) -> Tensor:
        """A level and its lower neighbour at this stage, (2, batch)."""
        sigma = self.noise.sample(batch, generator)
        stage = min(int(progress * self.stages), self.stages - 1)
        gap = (1 + self.k * torch.sigmoid(-self.b * sigma)) / self.q ** (stage + 1)
        return torch.stack([sigma, sigma * (1 - gap).clamp(min=0)])

    def residual(self, student: FlowMap, draw: Draw) -> Tensor:
        """Difference of the answers to one draw; its square weighs 1 / (sigma - r), which keeps gradients finite."""
        sigma, lower = draw.levels
        with torch.no_grad(), same_dropout(draw.x0):
            answer = endpoint(student, draw.at(lower), lower, draw.cond)
        error = endpoint(student, draw.at(sigma), sigma, draw.cond) - answer
        return expand((sigma - lower).rsqrt(), error) * error
