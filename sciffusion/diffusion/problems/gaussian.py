"""Gaussian fields: stationary ones, diagonal in Fourier space, and their posteriors given linear observations.

Notation: x0 ~ N(m, S). With z the noise of level sigma the denoiser is the Wiener filter

    D(x, sigma) = m + S (S + sigma^2)^-1 (x - m)                                               (1)

and the probability-flow ODE scales every eigenmode of S with the sd of the noisy data. Given y = C x0 + N(0, R),

    x0 | y ~ N(m + K (y - C m), S - K C S),   K = S C^T (C S C^T + R)^-1.                      (2)
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, expand
from sciffusion.diffusion.flowmap import FlowMap
from sciffusion.diffusion.problems import scores
from sciffusion.errors import SciffusionError
from sciffusion.operators import LinearOperator

__all__ = ["DenseGaussian", "GaussianDenoiser", "GaussianField", "GaussianFlowMap", "GaussianLaw", "power_law"]

Array = NDArray[np.float64]
DENSE_LIMIT = 8192  # cells up to which covariances are written out: half a gigabyte


def power_law(slope: float, outer: float = 1.0) -> Callable[[Array], Array]:
    """Variance (outer^2 + k^2)^(-slope / 2) of a mode over its wavenumber k in cycles per domain."""
    return lambda k: np.asarray((outer**2 + k**2) ** (-slope / 2))


class GaussianLaw:
    """Base: a Gaussian field with eigenmodes. Subclasses give `filter`, ``modes`` and ``spectrum``.

    ``mean`` (*grid); ``modes``: variances in the layout that `filter` multiplies; ``spectrum`` (cells,): all of them.
    """

    shape: tuple[int, ...]
    mean: Tensor
    modes: Tensor
    spectrum: Tensor

    def filter(self, gain: Tensor, x: Tensor) -> Tensor:
        """Multiply the eigenmodes of x (..., *grid) by ``gain`` (..., *modes)."""
        raise NotImplementedError

    def covariance(self) -> Tensor:
        """S written out, (cells, cells). Refused above 8192 cells."""
        cells = math.prod(self.shape)
        if cells > DENSE_LIMIT:
            raise SciffusionError(f"the covariance of {cells} cells", f"use at most {DENSE_LIMIT} cells")
        units = torch.eye(cells, dtype=self.modes.dtype).reshape(cells, *self.shape)
        return self.filter(self.modes, units).reshape(cells, cells)

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact samples (batch, 1, *grid)."""
        z = torch.randn(batch, 1, *self.shape, generator=generator, dtype=self.modes.dtype)
        return self.mean + self.filter(self.modes.sqrt(), z)

    def denoiser(self) -> "GaussianDenoiser":
        """Equation (1); the condition is ignored and channels are independent fields."""
        return GaussianDenoiser(self)

    def flow_map(self) -> "GaussianFlowMap":
        """The exact solution of the probability-flow ODE as a FlowMap: `flow` with levels per sample."""
        return GaussianFlowMap(self)

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """Exact solution of the probability-flow ODE from level ``start`` to ``end``."""
        return self.mean + self.filter(((self.modes + end**2) / (self.modes + start**2)).sqrt(), x - self.mean)

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Log density (batch,) in nats of x = x0 + sigma z, x (batch, 1, *grid), sigma a number or (batch,)."""
        noise = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x)) ** 2
        modes, spectrum = self.modes.to(x), self.spectrum.to(x)
        centred = x - self.mean.to(x)
        whitened = self.filter(1 / (modes + expand(noise, modes[None, None])), centred)
        constant = (2 * math.pi * (spectrum + noise[:, None])).log().sum(1)
        answer: Tensor = -((centred * whitened).flatten(1).sum(1) + constant) / 2
        return answer

    def posterior(self, operator: LinearOperator, y: Tensor, noise: float = 0.0) -> "DenseGaussian":
        """Equation (2) given y (*operator.out_shape) with errors of variance ``noise``, R = noise I.

        ``noise`` = 0 conditions exactly; redundant observations are then allowed.
        """
        prior = self.covariance()
        gain, misfit, _ = self._update(operator, y, noise)
        c = matrix(operator, prior)
        mean = self.mean.reshape(-1) + gain @ misfit
        return DenseGaussian(mean.reshape(self.shape), prior - gain @ c @ prior)

    def evidence(self, operator: LinearOperator, y: Tensor, noise: float) -> Tensor:
        """Log density of the observations y, for ``noise`` > 0."""
        _, misfit, law = self._update(operator, y, noise)
        constant = torch.linalg.slogdet(2 * math.pi * law).logabsdet
        answer: Tensor = -(misfit @ torch.linalg.solve(law, misfit) + constant) / 2
        return answer

    def _update(self, operator: LinearOperator, y: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """K, y - C m and C S C^T + R."""
        prior = self.covariance()
        c = matrix(operator, prior)
        law = c @ prior @ c.T + noise * torch.eye(len(c), dtype=c.dtype)
        gain = prior @ c.T @ torch.linalg.pinv(law, hermitian=True, rtol=1e-12)
        return gain, y.to(c).reshape(-1) - c @ self.mean.reshape(-1), law

    def cell_sd(self) -> Tensor:
        """Sd of every cell, (*grid)."""
        return self.covariance().diagonal().clamp(min=0).sqrt().reshape(self.shape)

    def crps_floor(self) -> float:
        """Expected CRPS, averaged over cells, of this law as the forecast of its own draws: mean sd / sqrt(pi)."""
        return float(self.cell_sd().mean()) / math.sqrt(math.pi)

    def energy_floor(self) -> float:
        """Expected energy score of this law as the forecast of its own draws: E |x - x'| / 2."""
        spectrum = self.spectrum.double().numpy()
        return scores.expected_norm(2 * spectrum, np.zeros_like(spectrum)) / 2


class GaussianField(GaussianLaw):
    """Stationary Gaussian field on a periodic grid: independent Fourier modes of known variance.

    Parameters
    ----------
    spectrum : variance of a mode over its wavenumber |k| in cycles per domain, up to a factor.
    shape : grid of one to three axes.
    variance : of every cell; the spectrum is scaled to it.
    mean : a number or (*grid).
    """

    def __init__(
        self,
        spectrum: Callable[[Array], Array],
        shape: Sequence[int],
        variance: float = 1.0,
        mean: float | Tensor = 0.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if not 1 <= len(shape) <= 3:
            raise SciffusionError(f"a field on {len(shape)} axes", "use a grid of one to three axes")
        self.shape = tuple(shape)
        self.axes = tuple(range(-len(self.shape), 0))
        self.mean = torch.as_tensor(mean, dtype=dtype).expand(self.shape)
        whole = np.asarray(spectrum(self.wavenumber(half=False)), dtype=np.float64)
        half = np.asarray(spectrum(self.wavenumber()), dtype=np.float64)
        self.spectrum = torch.as_tensor(whole * (variance / whole.mean()), dtype=dtype).flatten()
        self.modes = torch.as_tensor(half * (variance / whole.mean()), dtype=dtype)

    def wavenumber(self, half: bool = True) -> Array:
        """|k| in cycles per domain of every mode, in the layout of rfftn (``half``) or fftn."""
        axes = [np.fft.fftfreq(n, 1 / n) for n in self.shape]
        if half:
            axes[-1] = np.fft.rfftfreq(self.shape[-1], 1 / self.shape[-1])
        return np.asarray(np.sqrt(sum(k**2 for k in np.meshgrid(*axes, indexing="ij"))))

    def filter(self, gain: Tensor, x: Tensor) -> Tensor:
        """Multiply the Fourier modes of x by ``gain``."""
        modes = torch.fft.rfftn(x, dim=self.axes) * gain
        answer: Tensor = torch.fft.irfftn(modes, s=self.shape, dim=self.axes)
        return answer

    def cell_sd(self) -> Tensor:
        """The same everywhere."""
        return self.spectrum.mean().sqrt().expand(self.shape)


class DenseGaussian(GaussianLaw):
    """Gaussian field with any mean (*grid) and covariance (cells, cells), by its eigenvectors."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.shape = tuple(mean.shape)
        self.mean = mean
        values, self.vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
        self.modes = self.spectrum = values.clamp(min=0)

    def filter(self, gain: Tensor, x: Tensor) -> Tensor:
        """Multiply the eigenmodes of x by ``gain``."""
        vectors = self.vectors.to(x)
        flat = x.reshape(*x.shape[: x.ndim - len(self.shape)], -1)
        answer: Tensor = (((flat @ vectors) * gain) @ vectors.T).reshape(x.shape)
        return answer


def matrix(operator: LinearOperator, like: Tensor) -> Tensor:
    """``operator`` written out, (observations, cells), in the dtype of ``like``."""
    cells = math.prod(operator.in_shape)
    units = torch.eye(cells, dtype=like.dtype).reshape(cells, *operator.in_shape)
    answer: Tensor = operator(units).reshape(cells, -1).T
    return answer


class GaussianDenoiser(Denoiser):
    """Equation (1), in the dtype and on the device of x."""

    def __init__(self, law: GaussianLaw) -> None:
        super().__init__()
        self.law = law

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """E[x0 | x] of x (batch, channel, *grid)."""
        modes, mean = self.law.modes.to(x), self.law.mean.to(x)
        gain = modes / (modes + expand(sigma, modes[None, None]) ** 2)
        return mean + self.law.filter(gain, x - mean)


class GaussianFlowMap(FlowMap):
    """f = m + sqrt((S + s^2) / (S + sigma^2)) (x - m), by its average denoiser, in a form that keeps all digits.

    With r the root and u = s / sigma, (r - u) / (1 - u) = S (1 + u) / ((S + sigma^2) (r + u)) for every mode.
    """

    def __init__(self, law: GaussianLaw) -> None:
        super().__init__()
        self.law = law

    def average(self, x: Tensor, sigma: Tensor, sigma_to: Tensor, cond: Context | None = None) -> Tensor:
        """A(x, sigma, sigma_to) of x (batch, channel, *grid)."""
        modes, mean = self.law.modes.to(x), self.law.mean.to(x)
        start, end = (expand(level, modes[None, None]) for level in (sigma, sigma_to))
        root = ((modes + end**2) / (modes + start**2)).sqrt()
        gain = modes * (1 + end / start) / ((modes + start**2) * (root + end / start))
        return mean + self.law.filter(gain, x - mean)
