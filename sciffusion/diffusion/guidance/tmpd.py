"""Tweedie moment projected diffusions (Boys et al. 2023, arXiv:2310.06721).

The covariance V = sigma^2 J of x0 given x, as in `MMPS`, with A V A^T replaced by the diagonal of its row sums:

    v = (y - A D) / (R + A V A^T 1).

One product with J^T instead of a solve; right when the observations are independent given x (far apart), biased when
they share what they know.
"""

import torch
from torch import Tensor

from sciffusion.diffusion.guidance.observations import Map, Observed

__all__ = ["TMPD"]


class TMPD(Observed):
    """Parameters as `Observed`."""

    def dual(self, misfit: Tensor, pull: Map, sigma: Tensor) -> Tensor:
        """The misfit over one plus the row sums; sums below 0, which no covariance has, count as 0."""
        weights = self.precision.to(misfit).expand_as(misfit)
        ones = torch.where(weights > 0, 1 / weights, 0)  # whitened, so that A^T is applied to 1
        return misfit / (1 + (weights * self.observe(pull(ones))).clamp(min=0))
