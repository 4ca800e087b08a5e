"""Progressive distillation: one step of the student does two of the teacher, again and again.

Salimans & Ho 2022, arXiv:2202.00512, algorithm 2, in the frame x0 + sigma z: their target of x0 is the average denoiser
that makes one step of the student land where two steps of the teacher do.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciffusion.diffusion.denoiser import expand
from sciffusion.diffusion.distillation.base import Draw, Objective
from sciffusion.diffusion.flowmap import FlowMap
from sciffusion.diffusion.solvers.table import Array
from sciffusion.errors import SciffusionError

__all__ = ["ProgressiveDistillation"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ProgressiveDistillation(Objective):
    """Match two steps of ``teacher`` (at first a DenoiserMap) on its grid ``sigmas`` (2 steps + 1,), falling."""

    teacher: FlowMap
    sigmas: Array

    def __post_init__(self) -> None:
        if len(self.sigmas) < 3 or len(self.sigmas) % 2 == 0:
            raise SciffusionError(f"a teacher of {len(self.sigmas) - 1} steps", "give an even number of steps")

    @property
    def student_sigmas(self) -> Array:
        """The grid that the student is trained for: every other level."""
        return self.sigmas[::2]

    def halved(self, student: FlowMap) -> "ProgressiveDistillation":
        """The next round: a (frozen copy of the) trained ``student`` teaches half as many steps."""
        return replace(self, teacher=student, sigmas=self.student_sigmas)

    def levels(self, batch: int, generator: torch.Generator | None = None, progress: float = 1.0) -> Tensor:
        """Start, middle and end of a random step of the student, (3, batch)."""
        device = generator.device if generator is not None else torch.device("cpu")
        step = torch.randint(len(self.sigmas) // 2, (batch,), generator=generator, device=device)
        table = torch.as_tensor(self.sigmas, device=device)
        return torch.stack([table[2 * step + i] for i in range(3)])

    def residual(self, student: FlowMap, draw: Draw) -> Tensor:
        """Error of the student's average denoiser, with the paper's truncated weight max(1 / sigma^2, 1)."""
        sigma, middle, end = draw.levels
        x, cond = draw.at(sigma), draw.cond
        share = expand(end / sigma, x)
        with torch.no_grad():
            landed = self.teacher(self.teacher(x, sigma, middle, cond), middle, end, cond)
            target = (landed - share * x) / (1 - share)
        return expand(1 / sigma.clamp(max=1), x) * (student.average(x, sigma, end, cond) - target)
