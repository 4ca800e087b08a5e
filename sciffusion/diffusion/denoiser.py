"""The one object behind every diffusion method: D(x, sigma, cond) = E[x0 | x0 + sigma z = x, cond].

Guidance, constraints, masks and tiling are Denoisers that wrap Denoisers; solvers see nothing else. ``z`` is standard
normal unless the denoiser says otherwise: ``noise = "student-t"`` means z = n / sqrt(k), n normal, k ~ chi2(dof) / dof,
one k per sample (Pandey et al. 2024, arXiv:2410.14171), which keeps the heavy tails of extremes.
"""

import math
from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor, nn

from sciffusion.context import Context
from sciffusion.diffusion.parameterization import EDM, Parameterization
from sciffusion.errors import SciffusionError

__all__ = ["Denoiser", "Masked", "Preconditioned", "Wrapper", "expand", "require_capturable"]

Network = Callable[[Tensor, Tensor, Context | None], Tensor]


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Append axes to ``values`` (batch,) until it broadcasts against ``like`` (batch, channel, *grid)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


class Denoiser(nn.Module):
    """Base of all denoisers. ``noise`` and ``dof`` name the law of z; ``gradients`` says that a call needs autograd.

    ``forward(x, sigma, cond)``: x (batch, channel, *grid), sigma (batch,) in units of the data; returns the shape and
    dtype of x.
    """

    noise: str = "gaussian"
    dof: float = math.inf
    gradients: bool = False
    __call__: Callable[..., Tensor]

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """E[x0 | x]."""
        raise NotImplementedError


class Wrapper(Denoiser):
    """A denoiser made of another: it inherits the law of the noise and the need for gradients."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.noise, self.dof, self.gradients = denoiser.noise, denoiser.dof, denoiser.gradients


def require_capturable(denoiser: Denoiser, what: str = "graph capture") -> None:
    """Raise SciffusionError when ``denoiser`` needs autograd: a captured or compiled loop cannot hold its backward."""
    if not denoiser.gradients:
        return
    message = f"{type(denoiser).__name__} needs gradients inside every call, which {what} cannot hold"
    if torch.compiler.is_compiling():
        torch._dynamo.graph_break(msg=message)  # which says it under fullgraph=True; else it is raised below
    _refuse(message)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _refuse(message: str) -> NoReturn:
    """Outside of what is compiled: torch 2.11 cannot raise an error of ours from within."""
    raise SciffusionError(
        message, "sample eagerly, or use guidance without gradients (replacement, Projected, ClassifierFree)"
    )


class Preconditioned(Denoiser):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise): eq. 7 of Karras et al. 2022, arXiv:2206.00364.

    Parameters
    ----------
    network : ``network(x_in, c_noise, cond)``, in any precision; its answer is cast to the dtype of x.
    parameterization : what the network predicts; coefficients are computed in the dtype of sigma.
    sigma_data : sd of the data (1 after this package's codec).
    dof : degrees of freedom (above 2) of Student-t noise; infinite for Gaussian noise.
    """

    def __init__(
        self,
        network: nn.Module,
        parameterization: Parameterization | None = None,
        sigma_data: float = 1.0,
        dof: float = math.inf,
    ) -> None:
        super().__init__()
        self.network = network
        self.parameterization = parameterization if parameterization is not None else EDM()
        self.sigma_data = sigma_data
        self.dof = dof
        self.noise = "gaussian" if math.isinf(dof) else "student-t"

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """E[x0 | x] in the dtype of x."""
        c_skip, c_out, c_in, c_noise = self.parameterization(sigma, self.sigma_data, self.dof)
        answer: Tensor = self.network(expand(c_in, x) * x, c_noise, cond)
        return (expand(c_skip, x) * x + expand(c_out, x) * answer.to(x.dtype)).to(x.dtype)


class Masked(Wrapper):
    """Cells that do not exist (``cond.valid`` False) hold 0 on the way in and out, so they carry no information."""

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """E[x0 | x] at valid cells, 0 elsewhere."""
        if cond is None or cond.valid is None:
            return self.denoiser(x, sigma, cond)
        answer = self.denoiser(torch.where(cond.valid, x, 0), sigma, cond)
        return torch.where(cond.valid, answer, 0)
