"""Dynamic thresholding of the denoiser's answers (Saharia et al. 2022, Imagen, arXiv:2205.11487, section 2.3).

Strong guidance drives answers out of the range of the data. Imagen clips to [-s, s] and divides by s, s a quantile of
|answer| but at least 1, the range of images. Fields have no such range: here 1 is replaced, channel by channel, by what
the training cases reached, so that an extreme that has been seen is left alone.
"""

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, Wrapper

__all__ = ["Thresholded"]


class Thresholded(Wrapper):
    """``denoiser`` with answers clipped to r [low, high] and divided by r, r = max(1, quantile(|answer|) / limit).

    Parameters
    ----------
    low, high : (channel,), the range of the training cases.
    limit : (channel,), the largest quantile of order ``order`` of |x| of any training case.
    """

    def __init__(self, denoiser: Denoiser, low: Tensor, high: Tensor, limit: Tensor, order: float) -> None:
        super().__init__(denoiser)
        self.low, self.high, self.limit, self.order = low, high, limit, order

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """The scaled answer, sample by sample and channel by channel."""
        answer = self.denoiser(x, sigma, cond)
        column = (-1, *[1] * (answer.ndim - 2))
        size = torch.quantile(answer.flatten(2).abs().float(), self.order, dim=2).to(answer)
        r = (size / self.limit.to(answer)).clamp(min=1).reshape(*size.shape, *column[1:])
        low, high = self.low.to(answer).reshape(column) * r, self.high.to(answer).reshape(column) * r
        return torch.minimum(torch.maximum(answer, low), high) / r
