"""Analytic problems: fields whose denoiser, flow, likelihood and scores are known exactly.

They serve tests, benchmarks and documentation. Tensors are (batch, 1, *grid), float64 unless asked otherwise.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, expand
from sciffusion.errors import SciffusionError

__all__ = ["GaussianField", "power_law"]

Array = NDArray[np.float64]


def power_law(slope: float, outer: float = 1.0) -> Callable[[Array], Array]:
    """Spectral density (outer^2 + k^2)^(-slope / 2) over the wavenumber k in cycles per domain."""
    return lambda k: np.asarray((outer**2 + k**2) ** (-slope / 2))


class GaussianField:
    """Stationary Gaussian field on a periodic grid: independent Fourier modes of known variance.

    Parameters
    ----------
    spectrum : variance of a mode over its wavenumber |k| in cycles per domain, up to a factor.
    shape : grid of one to three axes.
    variance : of every cell; the spectrum is scaled to it.
    """

    def __init__(
        self,
        spectrum: Callable[[Array], Array],
        shape: Sequence[int],
        variance: float = 1.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if not 1 <= len(shape) <= 3:
            raise SciffusionError(f"a field on {len(shape)} axes", "use a grid of one to three axes")
        self.shape = tuple(shape)
        self.axes = tuple(range(-len(self.shape), 0))
        whole = np.asarray(spectrum(self.wavenumber(half=False)), dtype=np.float64)
        scale = variance / whole.mean()
        half = np.asarray(spectrum(self.wavenumber()), dtype=np.float64)
        self.modes = torch.as_tensor(half * scale, dtype=dtype)
        self.all_modes = torch.as_tensor(whole * scale, dtype=dtype)

    def wavenumber(self, half: bool = True) -> Array:
        """|k| in cycles per domain of every mode, in the layout of rfftn (``half``) or fftn."""
        axes = [np.fft.fftfreq(n, 1 / n) for n in self.shape]
        if half:
            axes[-1] = np.fft.rfftfreq(self.shape[-1], 1 / self.shape[-1])
        squares = [k**2 for k in np.meshgrid(*axes, indexing="ij")]
        return np.asarray(np.sqrt(sum(squares)))

    def filter(self, gain: Tensor, x: Tensor) -> Tensor:
        """Multiply every mode of x by ``gain`` (broadcastable to the modes)."""
        modes = torch.fft.rfftn(x, dim=self.axes) * gain.to(device=x.device, dtype=x.dtype)
        answer: Tensor = torch.fft.irfftn(modes, s=self.shape, dim=self.axes)
        return answer

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact samples (batch, 1, *grid)."""
        z = torch.randn(batch, 1, *self.shape, generator=generator, dtype=self.modes.dtype)
        return self.filter(self.modes.sqrt(), z)

    def denoiser(self) -> "GaussianDenoiser":
        """The exact denoiser: the Wiener filter v / (v + sigma^2) of every mode."""
        return GaussianDenoiser(self)

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """Exact solution of the probability-flow ODE from level ``start`` to ``end``."""
        return self.filter(((self.modes + end**2) / (self.modes + start**2)).sqrt(), x)

    def log_prob(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """Log density (batch,) in nats of x = x0 + sigma z, (batch, 1, *grid)."""
        variance = self.all_modes.to(x) + sigma**2
        square = torch.fft.fftn(x, dim=self.axes, norm="ortho").abs() ** 2 / variance
        constant = math.prod(self.shape) * math.log(2 * math.pi) + variance.log().sum()
        answer: Tensor = -(square.flatten(1).sum(1) + constant) / 2
        return answer


class GaussianDenoiser(Denoiser):
    """Exact denoiser of a `GaussianField`; the condition is ignored."""

    def __init__(self, field: GaussianField) -> None:
        super().__init__()
        self.field = field

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """E[x0 | x] of x (batch, channel, *grid): channels are independent fields."""
        modes = self.field.modes.to(device=x.device, dtype=x.dtype)
        return self.field.filter(modes / (modes + expand(sigma, x) ** 2), x)
