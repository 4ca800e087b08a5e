"""Hard constraints inside sampling: every answer of the denoiser is moved onto the set that satisfies them.

For a linear constraint C x = y the posterior mean given exact knowledge of y satisfies it at every noise level, so
projecting D does, too: D <- P(D, y), with P the projection of `sciffusion.operators`. Coarse consistency is C =
coarsening; an integral over the domain is C = operators.Mean(cell areas), whose projection is a uniform shift.

What is not linear in network space (positivity, constraints under a log) is a retraction of the physical field: decode,
project, encode.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, Wrapper, expand
from sciffusion.operators import LinearOperator

__all__ = ["Projected", "Retracted", "multiplicative"]

Map = Callable[[Tensor], Tensor]


class Projected(Wrapper):
    """``denoiser`` whose answers satisfy ``projection``'s constraint with right-hand side ``y``.

    Parameters
    ----------
    projection : maps (batch, constrained channel, *grid) and ``y`` to the nearest field that satisfies the constraint.
    y : (batch, constrained channel, ...), one right-hand side per sample.
    channels : indices of the constrained channels; None for all.
    """

    y: Tensor
    channels: Tensor | None

    def __init__(
        self,
        denoiser: Denoiser,
        projection: Callable[[Tensor, Tensor], Tensor],
        y: Tensor,
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(denoiser)
        self.projection = projection
        self.register_buffer("y", y)
        index = None if channels is None else torch.as_tensor(list(channels)).to(y.device, non_blocking=True)
        self.register_buffer("channels", index)

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """The projected E[x0 | x]."""
        answer = self.denoiser(x, sigma, cond)
        if self.channels is None:
            return self.projection(answer, self.y)
        part = self.projection(answer.index_select(1, self.channels), self.y)
        return answer.index_copy(1, self.channels, part)


class Retracted(Wrapper):
    """D <- encode(project(decode(D))): constraints on the physical field.

    Parameters
    ----------
    project : the physical field (batch, channel, *grid) to an admissible one; default: negative values become 0.
    decode, encode : network units to physical ones and back; None: they are the same.
    below : acts where sigma <= below. D is a mean, which satisfies a convex constraint in the units in which it is
        averaged; in others (network units are a log) it does so only as sigma falls.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        project: Map = torch.relu,
        decode: Map | None = None,
        encode: Map | None = None,
        below: float = float("inf"),
    ) -> None:
        super().__init__(denoiser)
        self.project, self.below = project, below
        self.decode, self.encode = decode or torch.clone, encode or torch.clone

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """The retracted E[x0 | x]."""
        answer = self.denoiser(x, sigma, cond)
        moved = self.encode(self.project(self.decode(answer))).to(answer.dtype)
        return torch.where(expand(sigma <= self.below, answer), moved, answer)


def multiplicative(operator: LinearOperator, y: Tensor, iterations: int = 1) -> Map:
    """The map of a field to a non-negative one with C x = ``y`` >= 0, by scaling: zeros stay zeros.

    x <- x C^T(y / C x) / C^T 1, for C of non-negative entries whose rows sum to 1. One iteration is exact for blocks
    that do not overlap; overlapping ones converge (Richardson 1972, Lucy 1974). A block of zeros is filled evenly, and
    a missing y constrains nothing.
    """

    def scale(x: Tensor) -> Tensor:
        x, given = x.clamp(min=0), y.to(x)
        x = x + operator.rmatvec(torch.where(operator(x) > 0, 0, given.nan_to_num()))
        total = operator.rmatvec(torch.ones_like(given))
        for _ in range(iterations):
            mean = operator(x)
            ratio = torch.where(given.isfinite(), torch.where(mean > 0, given / mean, 0), 1)
            x = torch.where(total > 0, x * operator.rmatvec(ratio) / total, x)
        return x

    return scale
