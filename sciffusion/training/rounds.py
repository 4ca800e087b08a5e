"""Progressive distillation round by round: the grid that each halves, when each ends, and who teaches the first."""

from typing import Any

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import expand
from sciffusion.diffusion.flowmap import FlowMap
from sciffusion.diffusion.sigmas import karras
from sciffusion.stages.denoiser import DenoiserStage

__all__ = ["Halved", "progressive_grid", "round_of"]


def progressive_grid(teacher: DenoiserStage, steps: int) -> tuple[Any, int]:
    """The grid that progressive distillation starts from, and its rounds: each halves the steps, down to ``steps``."""
    own, rounds = teacher.settings.sampler, 1
    while steps * 2**rounds < own.steps:
        rounds += 1
    levels = teacher.noise_range
    return karras(steps * 2**rounds, levels.sigma_min, levels.sigma_max, own.rho), rounds


def round_of(share: float, rounds: int) -> tuple[int, float]:
    """The round that a ``share`` of the training falls in, all being equally long, and the share of it that is over."""
    number = min(rounds - 1, int(share * rounds))
    return number, share * rounds - number


class Halved(FlowMap):
    """Each step of ``flow_map`` in two, by way of the geometric mean of its levels; to sigma_to = 0 of sigma / 2."""

    def __init__(self, flow_map: FlowMap) -> None:
        super().__init__()
        self.flow_map = flow_map
        self.noise, self.dof = flow_map.noise, flow_map.dof

    def forward(self, x: Tensor, sigma: Tensor, sigma_to: Tensor, cond: Context | None = None) -> Tensor:
        """The field at level sigma_to."""
        middle = torch.where(sigma_to == 0, sigma / 2, (sigma * sigma_to).sqrt())
        return self.flow_map(self.flow_map(x, sigma, middle, cond), middle, sigma_to, cond)

    def average(self, x: Tensor, sigma: Tensor, sigma_to: Tensor, cond: Context | None = None) -> Tensor:
        """A(x, sigma, sigma_to), as the field where the step ends tells."""
        share = expand(sigma_to / sigma, x)
        return (self(x, sigma, sigma_to, cond) - share * x) / (1 - share)
