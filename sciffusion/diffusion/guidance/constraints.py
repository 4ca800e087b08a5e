"""Hard constraints inside sampling: every answer of the denoiser is moved onto the set that satisfies them.

For a linear constraint C x = y the posterior mean given exact knowledge of y satisfies it at every noise level, so
projecting D does, too: D <- P(D, y), with P the projection of `sciffusion.operators`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, Wrapper

__all__ = ["Projected"]


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
        self.register_buffer("channels", None if channels is None else torch.as_tensor(list(channels), device=y.device))

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """The projected E[x0 | x]."""
        answer = self.denoiser(x, sigma, cond)
        if self.channels is None:
            return self.projection(answer, self.y)
        part = self.projection(answer.index_select(1, self.channels), self.y)
        return answer.index_copy(1, self.channels, part)
