"""Guidance by observations: a denoiser of the posterior, made from a denoiser of the prior without training.

Observations are y = A x0 + e, e ~ N(0, R), R diagonal. Bayes' rule adds grad_x log p(y | x) to the score, and every
method here takes it in the form, with J = dD/dx the Jacobian of the prior's denoiser,

    D_y = D + sigma^2 J^T A^T v,          v = v(y - A D)                                            (1)

and differs in ``v`` alone: the law of x0 given x that it assumes. Arithmetic is in whitened units, A and y divided by
the sd of the errors, where R = I. All norms and scalar products run over one sample, so a member does not depend on its
batch-mates. A missing value (NaN in y) is no observation.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, Wrapper, expand, require_capturable
from sciffusion.diffusion.noises import require_gaussian
from sciffusion.errors import SciffusionError
from sciffusion.operators import LinearOperator

__all__ = ["Observed", "seen_rows"]

Map = Callable[[Tensor], Tensor]


class Observed(Wrapper):
    """Base of the methods of equation (1); subclasses give `dual`. Calls need autograd (``gradients``).

    Parameters
    ----------
    operator : A, on (channel, *grid) or, channel by channel, on (*grid).
    y : (batch or 1, channel, *operator.out_shape), in the units of x0; without the channel axis if A takes channels.
    noise : variance of the errors, a number or a tensor that broadcasts against y; positive.
    channels : indices of the observed channels; None for all.
    settings : the method's own numbers, in place of its ``defaults``.
    """

    defaults: ClassVar[Mapping[str, float]] = {}
    y: Tensor
    precision: Tensor
    channels: Tensor | None

    def __init__(
        self,
        denoiser: Denoiser,
        operator: LinearOperator,
        y: Tensor,
        noise: float | Tensor,
        channels: Sequence[int] | None = None,
        **settings: float,
    ) -> None:
        super().__init__(denoiser)
        require_gaussian(denoiser, "guidance by observations")
        if unknown := settings.keys() - self.defaults.keys():
            known = ", ".join(self.defaults) or "none"
            raise SciffusionError(f"{type(self).__name__} has no setting {min(unknown)!r}", f"it has: {known}")
        self.settings = {**self.defaults, **settings}
        if denoiser.gradients:
            raise SciffusionError(
                f"guidance by observations around {type(denoiser).__name__}, which takes gradients itself",
                "give all observations to one guidance: operators.stack and the values in a row",
            )
        variance = _variance(operator, y, noise)
        present = y.isfinite() & seen_rows(operator, y)
        self.gradients, self.operator = True, operator
        self.register_buffer("precision", torch.where(present, variance.rsqrt(), 0), persistent=False)
        self.register_buffer("y", torch.where(present, y, 0) * self.precision, persistent=False)
        chosen = None if channels is None else torch.as_tensor(list(channels), device=y.device)
        self.register_buffer("channels", chosen, persistent=False)

    def dual(self, misfit: Tensor, pull: Map, sigma: Tensor) -> Tensor:
        """``v`` of (1) in whitened units, given the whitened misfit and ``pull(v)`` = sigma^2 J^T A^T v."""
        raise NotImplementedError

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """E[x0 | x, y] as far as the method's assumption holds."""
        _refuse_capture(self)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            answer = self.denoiser(leaf, sigma, cond)
        if not answer.requires_grad:
            raise SciffusionError(
                f"{type(self.denoiser).__name__} gives an answer without gradients", "remove no_grad or detach from it"
            )

        def pull(v: Tensor) -> Tensor:
            (slope,) = torch.autograd.grad(answer, leaf, self.spread(v, x).to(answer.dtype), retain_graph=True)
            return expand(sigma, x) ** 2 * slope

        known = answer.detach().to(x.dtype)
        with torch.no_grad():
            misfit = self.y.to(x) - self.observe(known)
            return known + pull(self.dual(misfit, pull, sigma))

    def observe(self, x: Tensor) -> Tensor:
        """The whitened A of x."""
        part = x if self.channels is None else x.index_select(1, self.channels)
        return self.precision.to(x) * self.operator(part)

    def spread(self, v: Tensor, like: Tensor) -> Tensor:
        """The whitened A^T of v, in the shape of ``like``."""
        part = self.operator.rmatvec(self.precision.to(v) * v)
        return part if self.channels is None else torch.zeros_like(like).index_copy(1, self.channels, part)


def seen_rows(operator: LinearOperator, like: Tensor) -> Tensor:
    """Bool (*out_shape): the rows of A that are not empty, since A A^T z is 0 at empty ones only, for a random z."""
    z = torch.randn(operator.out_shape, generator=torch.Generator().manual_seed(0)).to(like)
    return operator.matvec(operator.rmatvec(z)) != 0


def _variance(operator: LinearOperator, y: Tensor, noise: float | Tensor) -> Tensor:
    """R broadcast to y, checked."""
    if y.ndim <= len(operator.out_shape) or y.shape[y.ndim - len(operator.out_shape) :] != operator.out_shape:
        raise SciffusionError(
            f"observations of shape {tuple(y.shape)} for an operator that gives (..., {operator.out_shape})",
            "give them as (batch or 1, channel, *operator.out_shape)",
        )
    variance = torch.as_tensor(noise, dtype=y.dtype, device=y.device).expand(y.shape)
    if prod(y.shape) and not bool((variance[y.isfinite()] > 0).all()):
        raise SciffusionError("observations without errors", "give noise > 0, or use Projected for exact constraints")
    return variance


def _refuse_capture(denoiser: Denoiser) -> None:
    if torch.compiler.is_compiling() or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        require_capturable(denoiser)
    if torch.is_inference_mode_enabled():
        raise SciffusionError("guidance by observations under inference_mode", "use no_grad, as sample does")
