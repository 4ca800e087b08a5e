"""Weights lambda(sigma) of the squared error of D, and a learned one.

A paper's loss on its own target is a weight here: the target's error is the error of D over |c_out| (docs/theory.md).
Pass one as ``level_weight`` to `objectives.denoising_loss`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sciffusion.diffusion.parameterization import Parameterization

__all__ = ["LearnedUncertainty", "edm_weight", "matched_weight", "min_snr", "noise_weight"]


def edm_weight(sigma: Tensor, sigma_data: float = 1.0) -> Tensor:
    """EDM's lambda = (sigma^2 + s^2) / (sigma s)^2: unit loss at initialisation (Karras et al. 2022, table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def noise_weight(sigma: Tensor) -> Tensor:
    """DDPM's simple loss |z - F|^2, which is also the score loss weighted by sigma^2: 1 / sigma^2."""
    return sigma**-2


def matched_weight(parameterization: Parameterization) -> Callable[[Tensor], Tensor]:
    """The weight 1 / c_out^2 that makes the loss |F - its target|^2 (flow matching: that of Flow)."""

    def weight(sigma: Tensor) -> Tensor:
        _, c_out, _, _ = parameterization(sigma)
        return c_out**-2

    return weight


def min_snr(sigma: Tensor, gamma: float = 5.0) -> Tensor:
    """min(1 / sigma^2, gamma): Hang et al. 2023, arXiv:2303.09556, eq. 9, in terms of x0."""
    return (sigma**-2).clamp(max=gamma)


class LearnedUncertainty(nn.Module):
    """Loss / exp(u(sigma)) + u(sigma): u learns the log of the loss at each level (Karras et al. 2024).

    arXiv:2312.02696, equations 14-15 and appendix B.2: u is linear in fixed random Fourier features of log(sigma) / 4.
    """

    frequency: Tensor
    phase: Tensor

    def __init__(self, features: int = 128, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("frequency", 2 * torch.pi * torch.randn(features, generator=generator))
        self.register_buffer("phase", 2 * torch.pi * torch.rand(features, generator=generator))
        self.linear = nn.Linear(features, 1, bias=True)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def log_variance(self, sigma: Tensor) -> Tensor:
        """u(sigma), (batch,)."""
        angle = torch.outer(sigma.log() / 4, self.frequency) + self.phase
        answer: Tensor = self.linear(torch.cos(angle)).squeeze(1)
        return answer

    def forward(self, loss: Tensor, sigma: Tensor) -> Tensor:
        """The loss per sample (batch,), weighed by what is known of its level."""
        u = self.log_variance(sigma)
        return loss / u.exp() + u
