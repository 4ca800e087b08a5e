"""Log-likelihood of a field under a denoiser, by the probability-flow ODE (Song et al. 2021, arXiv:2011.13456, eq. 39).

Notation: t = log sigma, dx/dt = x - D(x, e^t), J = dD/dx, n the number of (valid) values. Then

    log p(x, sigma_min) = log p(x(t_max), sigma_max) + int (n - tr J) dt                      (1)

tr J exactly, by n backward passes (small problems), or by Hutchinson's estimate e^T J e with random signs e that are
fixed over one solve, so that the ODE stays smooth. Both are per sample. Units: nats per field.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.noises import require_gaussian
from sciffusion.diffusion.solvers.adaptive import solve
from sciffusion.errors import SciffusionError

__all__ = ["Likelihood", "log_likelihood", "signs"]

LARGEST_TRACE = 4096


@dataclass(frozen=True)
class Likelihood:
    """``log_prob`` and its ``standard_error`` from the probes, (batch,), nats per field.

    The error is 0 for the exact trace and nan for one probe. ``size`` (batch,) counts the valid values, ``calls`` the
    evaluations of the denoiser.
    """

    log_prob: Tensor
    standard_error: Tensor
    size: Tensor
    calls: int

    @property
    def bits_per_dim(self) -> Tensor:
        """Negative log likelihood per value in bits (batch,), of the normalised field."""
        return -self.log_prob / (self.size * math.log(2))


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    sigma_min: float,
    sigma_max: float,
    cond: Context | None = None,
    *,
    probes: Tensor | None = None,
    prior: Callable[[Tensor], Tensor] | None = None,
    sigma_data: float = 1.0,
    vectorised: bool = False,
    rtol: float = 1e-6,
    atol: float = 1e-6,
) -> Likelihood:
    """Equation (1) for ``x`` (batch, channel, *grid) at level sigma_min, in the dtype of x (float64 for many digits).

    Parameters
    ----------
    probes : (probe, batch, channel, *grid) from `signs`; None: the exact trace, up to 4096 values per field.
    prior : log density (batch,) of x at sigma_max; None: N(0, sigma_data^2 + sigma_max^2) per value.
    vectorised : all backward passes at once: faster for small problems, with the memory of all of them.
    """
    require_gaussian(denoiser, "the likelihood")
    valid = torch.ones_like(x) if cond is None or cond.valid is None else cond.valid.expand_as(x).to(x)
    if probes is None and x[0].numel() > LARGEST_TRACE:
        raise SciffusionError(f"the exact trace of {x[0].numel()} values", "pass probes=likelihood.signs(x, 16)")
    directions = _units(x) * valid if probes is None else probes * valid
    size, values = valid.flatten(1).sum(1), x[0].numel()
    traces = 1 if probes is None else len(probes)

    def rate(log_sigma: Tensor, state: Tensor) -> Tensor:
        field = state[:, :values].reshape(x.shape)
        answer, forms = _quadratic_forms(denoiser, field, log_sigma.exp(), cond, directions, vectorised)
        trace = forms.sum(0, keepdim=True) if probes is None else forms
        return torch.cat([((field - answer) * valid).flatten(1), (size - trace).T], dim=1)

    state = torch.cat([(x * valid).flatten(1), x.new_zeros(len(x), traces)], dim=1)
    solution = solve(rate, state, math.log(sigma_min), math.log(sigma_max), rtol, atol)
    end, change = solution.state[:, :values].reshape(x.shape), solution.state[:, values:]
    last = prior(end) if prior is not None else _normal(end, size, math.hypot(sigma_data, sigma_max))
    single = torch.full_like(size, 0.0 if probes is None else math.nan)
    error = change.std(1) / math.sqrt(traces) if traces > 1 else single
    return Likelihood(last + change.mean(1), error, size, solution.calls)


def _quadratic_forms(
    denoiser: Denoiser, x: Tensor, sigma: Tensor, cond: Context | None, directions: Tensor, vectorised: bool
) -> tuple[Tensor, Tensor]:
    """D and e^T J e for every direction e, (direction, batch): one backward pass each."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        answer = denoiser(x, sigma, cond).to(x.dtype)
        if vectorised:
            (products,) = torch.autograd.grad(answer, x, directions, is_grads_batched=True)
            return answer.detach(), (products * directions).flatten(2).sum(2)
        forms = []
        for e in directions:
            (product,) = torch.autograd.grad(answer, x, e, retain_graph=True)
            forms.append((product * e).flatten(1).sum(1))
    return answer.detach(), torch.stack(forms)


def _units(x: Tensor) -> Tensor:
    """The unit vectors of a field, (n, 1, channel, *grid) broadcast over the batch."""
    n = x[0].numel()
    return torch.eye(n, dtype=x.dtype, device=x.device).reshape(n, 1, *x.shape[1:]).expand(n, *x.shape)


def _normal(x: Tensor, size: Tensor, sd: float) -> Tensor:
    square = x.flatten(1).square().sum(1) / sd**2
    return -(square + size * math.log(2 * math.pi * sd**2)) / 2


def signs(x: Tensor, probes: int, generator: torch.Generator | None = None) -> Tensor:
    """Random signs (probe, batch, channel, *grid) for Hutchinson's estimate; the same for every sample of the batch."""
    device = generator.device if generator is not None else x.device
    bits = torch.randint(0, 2, (probes, 1, *x.shape[1:]), generator=generator, device=device)
    return (2 * bits - 1).to(x).expand(probes, *x.shape)
