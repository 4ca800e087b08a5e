"""The law of the noise z that a denoiser names: Gaussian, or Student-t with ``dof`` degrees of freedom.

Student-t: z = n / sqrt(k), n standard normal, k ~ chi2(dof) / dof, one k per sample (the multivariate law of Pandey et
al. 2024, arXiv:2410.14171, section 3.1). Its variance is dof / (dof - 2), and as sigma grows x = x0 + sigma z keeps the
heavy tails, so that a sampler may start in them. Loss, start and preconditioning share the law through the denoiser;
solvers that add Gaussian noise on the way refuse it.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from sciffusion.diffusion.denoiser import expand
from sciffusion.errors import SciffusionError

__all__ = ["draw", "heavy_tails", "require_gaussian"]


class Law(Protocol):
    """What names a law: a Denoiser or a FlowMap."""

    noise: str
    dof: float


def heavy_tails(z: Tensor, dof: float, generator: torch.Generator | None = None) -> Tensor:
    """Turn normal ``z`` (batch, ...) into Student-t noise by one division per sample; z itself for infinite dof."""
    if math.isinf(dof):
        return z
    device = generator.device if generator is not None else z.device
    shape = torch.full((z.shape[0],), dof / 2, dtype=torch.float64, device=device)
    k = torch._standard_gamma(shape, generator=generator) * (2 / dof)
    return z / expand(k.sqrt().to(z), z)


def draw(denoiser: Law, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Noise of the denoiser's law in the shape and dtype of ``like``, drawn on the generator's device."""
    device = generator.device if generator is not None else like.device
    z = torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype)
    return heavy_tails(z, denoiser.dof, generator).to(like.device)


def require_gaussian(denoiser: Law, what: str) -> None:
    """Raise SciffusionError when ``what`` needs Gaussian noise and the denoiser's is another."""
    if denoiser.noise != "gaussian":
        raise SciffusionError(
            f"{what} needs Gaussian noise, the denoiser's is {denoiser.noise}",
            "use a deterministic solver such as dpmpp-2m, without guidance by observations",
        )
