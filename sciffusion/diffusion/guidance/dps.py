"""Diffusion posterior sampling (Chung et al. 2023, arXiv:2209.14687, algorithm 1): x0 given x is taken as the point D.

    v = zeta W (y - A D) / |y - A D|_W,        W = R^-1 over its mean

is the gradient of -zeta |y - A D|_W: the norm, not its square, is the paper's step size zeta / |y - A D|, and the
errors of the observations enter by their ratios only. The norm is that of one sample; over a batch, as it is often
computed, a member would depend on its batch-mates. Written as a denoiser it does not depend on the number of steps.
There is no posterior whose spread this aims at; zeta is tuned.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sciffusion.diffusion.guidance.observations import Map, Observed

__all__ = ["DPS"]


class DPS(Observed):
    """Parameters as `Observed`, and the strength ``zeta`` in 1 / (units of x0): about 10 for 20 steps, 30 for 100."""

    defaults: ClassVar[Mapping[str, float]] = {"zeta": 10.0}

    def dual(self, misfit: Tensor, pull: Map, sigma: Tensor) -> Tensor:
        """The whitened misfit over its norm, in units of the mean precision."""
        axes = tuple(range(1, misfit.ndim))
        weights = self.precision.to(misfit).expand_as(misfit) ** 2
        seen = (weights > 0).sum(axes, keepdim=True).clamp(min=1)
        mean_precision = weights.sum(axes, keepdim=True) / seen
        norm = (misfit**2).sum(axes, keepdim=True).sqrt() * mean_precision.sqrt()
        return self.settings["zeta"] * misfit / norm.clamp(min=torch.finfo(norm.dtype).tiny)
