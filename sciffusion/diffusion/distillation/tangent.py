"""Continuous-time objectives: along a trajectory of the ODE the map's answer does not change,

    d f(x, sigma, s) / d log sigma = 0   where   dx / d log sigma = x - e,                       (1)

with e the teacher's D(x, sigma), or x0 itself, whose mean given x that is. The derivative is one forward-mode product.
In terms of the average denoiser A such objectives have the residual

    w (A - [A - df / d log sigma]),   [] held fixed,                                             (2)

and differ in w and s alone. sCM, on TrigFlow's path, has s = 0, w = sqrt(1 + 1 / sigma^2). MeanFlow, on the path
x0 + sigma z itself, has any s, w = 1 / sigma, and is flow matching where s = sigma. Both have the former's w here,
which is that of the network's answer F. docs/theory.md derives both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, expand
from sciffusion.diffusion.distillation.base import Draw, Objective, same_dropout
from sciffusion.diffusion.flowmap import FlowMap
from sciffusion.diffusion.sigmas import Levels

__all__ = ["ContinuousConsistency", "MeanFlow", "trajectory_derivative"]


@torch.compiler.set_stance("force_eager")  # type: ignore[untyped-decorator]  # else torch never compiles the map again
def trajectory_derivative(
    flow_map: FlowMap, x: Tensor, sigma: Tensor, sigma_to: Tensor, end: Tensor, cond: Context | None = None
) -> Tensor:
    """The left-hand side of (1), in the shape of x, detached. Attention takes its plain, differentiable form."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        rate: Tensor = torch.func.jvp(partial(flow_map, sigma_to=sigma_to, cond=cond), (x, sigma), (x - end, sigma))[1]
    return rate.detach()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tangent(Objective):
    """Equation (2), w in the units of the network's answer.

    Parameters
    ----------
    noise : distribution of the levels.
    teacher : whose answers are distilled; None trains on the data.
    warmup : share of the training over which the ``derivative`` is brought in (Lu & Song 2024, section 4.2); till then
        ``end`` is a target too, which damps what it amplifies.
    offset : c of the normalised tangent g / (rms of g + c); None leaves the tangent as it is.
    """

    noise: Levels
    teacher: Denoiser | None = None
    warmup: float = 0.0
    offset: float | None = 0.1
    sigma_data: float = 1.0
    derivative: Callable[..., Tensor] = trajectory_derivative

    @torch.no_grad()
    def end(self, draw: Draw, x: Tensor) -> Tensor:
        """Where the tangent at x points: D(x, sigma) of the teacher, else x0."""
        return draw.x0 if self.teacher is None else self.teacher(x, draw.levels[0], draw.cond)

    def blend(self, instant: Tensor, whole: Tensor, progress: float) -> Tensor:
        """From the residual without the derivative to the ``whole`` one, as far as the warm-up has come."""
        return torch.lerp(instant, whole, min(progress / self.warmup, 1.0) if self.warmup else 1.0)

    def residual(self, student: FlowMap, draw: Draw) -> Tensor:
        """(F - F fixed) + g, g = cos(t) df / dt with tan(t) = sigma / sigma_data."""
        sigma, sigma_to = draw.levels
        x = draw.at(sigma)
        spread = (sigma**2 + self.sigma_data**2).sqrt()
        sine, cosine = expand(sigma / spread, x), expand(self.sigma_data / spread, x)
        end = self.end(draw, x)
        with same_dropout(x):
            whole = self.derivative(student, x, sigma, sigma_to, end, draw.cond)
        answer = student.average(x, sigma, sigma_to, draw.cond)
        g = self.blend(cosine**2 * (answer.detach() - end), whole, draw.progress) / (sine * self.sigma_data)
        if self.offset is not None:
            g = g / (expand(g.flatten(1).square().mean(1).sqrt(), g) + self.offset)
        return (answer - answer.detach()) / (sine * self.sigma_data) + g


@dataclass(frozen=True, kw_only=True, eq=False)
class ContinuousConsistency(_Tangent):
    """Simplified continuous-time consistency (Lu & Song 2024, sCM, arXiv:2410.11081, algorithm 1 and eq. 8): s = 0.

    The paper's ``noise`` is log-normal with p_mean -1, p_std 1.4.
    """

    warmup: float = 0.1

    def levels(self, batch: int, generator: torch.Generator | None = None, progress: float = 1.0) -> Tensor:
        """Where from, and 0: (2, batch)."""
        sigma = self.noise.sample(batch, generator)
        return torch.stack([sigma, torch.zeros_like(sigma)])


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanFlow(_Tangent):
    """Geng et al. 2025, arXiv:2505.13447: the average velocity between any two levels, here of the path x0 + sigma z.

    With a teacher it is the flow-map distillation of Sabour et al. 2025 (Align Your Flow, arXiv:2506.14603, EMD).

    Parameters
    ----------
    diagonal : share of samples with s = sigma, which are trained as a denoiser.
    final : share of the others with s = 0, where samplers end and which no continuous distribution of s contains.
    """

    diagonal: float = 0.75
    final: float = 0.25

    def levels(self, batch: int, generator: torch.Generator | None = None, progress: float = 1.0) -> Tensor:
        """Where from and where to, (2, batch)."""
        one, other = self.noise.sample(batch, generator), self.noise.sample(batch, generator)
        sigma, lower = torch.maximum(one, other), torch.minimum(one, other)
        u = torch.rand(batch, generator=generator, device=sigma.device)
        lower = torch.where(u < self.diagonal + self.final * (1 - self.diagonal), 0, lower)
        return torch.stack([sigma, torch.where(u < self.diagonal, sigma, lower)])
