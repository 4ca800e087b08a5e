"""What an autoencoder of fields minimises: squared error with weight on tails, spectra, and the code's size.

A mean square error alone leaves out fine scales, which cost little, and smooths extremes, which are few.
"""

from functools import lru_cache

import torch
from torch import Tensor

from sciffusion.diffusion.objectives import weighted_mean

__all__ = ["code_size", "reconstruction_error", "spectral_distance"]

TAIL = 2.0  # sds beyond which a cell counts as a tail


def reconstruction_error(
    answer: Tensor, x: Tensor, weights: Tensor | None = None, valid: Tensor | None = None, *, tails: float = 0.0
) -> Tensor:
    """Mean square error per sample, (batch,); a cell of |x| above 2 counts 1 + ``tails`` (|x| - 2) times."""
    square = (answer - x) ** 2 * (1 + tails * (x.abs() - TAIL).clamp(min=0))
    return weighted_mean(square, weights, valid)


def spectral_distance(answer: Tensor, x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over channels and shells of wavenumber of the squared log ratio of power, per sample (batch,)."""
    if valid is not None:
        answer, x = torch.where(valid, answer, 0.0), torch.where(valid, x, 0.0)
    ratio = torch.log(_power(answer) / _power(x))
    return ratio.square().mean(dim=(1, 2))


def code_size(mean: Tensor, spread: Tensor) -> Tensor:
    """KL divergence of the code N(mean, exp(spread)) from N(0, 1), per sample and cell of the code (batch,)."""
    size: Tensor = (mean.square() + spread.exp() - 1 - spread).flatten(1).mean(1)
    return size / 2


def _power(x: Tensor) -> Tensor:
    """Power of (batch, channel, *grid) summed over shells, (batch, channel, shell), without the mean; never 0."""
    axes = tuple(range(2, x.ndim))
    modes = torch.fft.fftn(x.float(), dim=axes)
    power = (modes.real**2 + modes.imag**2).flatten(2)
    shell, count = _shells(tuple(x.shape[2:]), x.device)
    summed: Tensor = power.new_zeros(*power.shape[:2], count).index_add(2, shell, power)
    return summed[..., 1:] + 1e-6 * x[0, 0].numel()


@lru_cache(maxsize=16)
def _shells(size: tuple[int, ...], device: torch.device) -> tuple[Tensor, int]:
    """Shell of every mode, in units of the longest axis's lowest wavenumber; corners join the last whole shell."""
    largest = max(size)
    square = torch.zeros((), dtype=torch.float64)
    for cells in size:
        square = square[..., None] + (torch.fft.fftfreq(cells, dtype=torch.float64) * largest) ** 2
    shell = square.sqrt().round().long().clamp(max=largest // 2).flatten()
    return shell.to(device), int(shell.max()) + 1
