"""Papers' own times, as adapters to the frame x0 + sigma z.

A path is x_t = alpha(t) x0 + s(t) z. Divided by alpha it is x0 + sigma z with sigma = s / alpha, whatever the path:
so a path is a change of clock (which t a network is told), a sampling grid (uniform in t) and an end point. Times and
levels are tensors (any shape); the inverse `time` is exact. Data have unit sd.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.diffusion.denoiser import Denoiser, expand
from sciffusion.errors import SciffusionError

__all__ = ["VE", "DiscreteVP", "Path", "RectifiedFlow", "SubVP", "Trigonometric", "VPCosine", "VPLinear"]

Array = NDArray[np.float64]
HALF_PI = math.pi / 2


class Path:
    """Base: a path on times [t_min, t_max]; subclasses give `alpha`, `sd` and the inverse `time`.

    ``preserving``: whether the variance of x_t stays near 1, so that a sampler starts at sd sqrt(1 + sigma^2) in this
    frame (the exact variance of unit-variance data) instead of sigma.
    """

    preserving = True

    def __init__(self, t_min: float, t_max: float) -> None:
        self.t_min, self.t_max = t_min, t_max

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of x0."""
        raise NotImplementedError

    def sd(self, t: Tensor) -> Tensor:
        """Factor of z."""
        raise NotImplementedError

    def time(self, sigma: Tensor) -> Tensor:
        """The time of level sigma: the inverse of `level`, and the clock of a network trained in t."""
        raise NotImplementedError

    def level(self, t: Tensor) -> Tensor:
        """Sigma = sd / alpha, the level in the frame x0 + sigma z."""
        return self.sd(t) / self.alpha(t)

    @property
    def sigma_min(self) -> float:
        """The lowest level."""
        return float(self.level(torch.tensor(self.t_min, dtype=torch.float64)))

    @property
    def sigma_max(self) -> float:
        """The level that sampling starts from."""
        return float(self.level(torch.tensor(self.t_max, dtype=torch.float64)))

    def grid(self, steps: int, *, final_zero: bool = True) -> Array:
        """Levels at ``steps`` times uniform from t_max to t_min and a final 0 (or ``steps + 1`` without it)."""
        t = torch.linspace(self.t_max, self.t_min, steps if final_zero else steps + 1, dtype=torch.float64)
        levels = self.level(t).numpy()
        return np.append(levels, 0.0) if final_zero else np.asarray(levels)

    def into_frame(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (batch, ...) at times t (batch,) as x0 + sigma z."""
        return x_t / expand(self.alpha(t), x_t)

    def from_frame(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Inverse of `into_frame`, at the levels sigma (batch,)."""
        return x * expand(self.alpha(self.time(sigma)), x)

    def start_sd(self, sigma: float | None = None) -> float:
        """Sd of the start in this frame at level ``sigma`` (default: that of t_max)."""
        sigma = self.sigma_max if sigma is None else sigma
        return math.hypot(1.0, sigma) if self.preserving else sigma

    def start(self, z: Tensor, sigma: float | None = None, denoiser: Denoiser | None = None) -> Tensor:
        """Start of a sampler from noise ``z`` of the denoiser's law.

        For Student-t noise the data's own unit variance is left out: a sum of the two laws is not Student-t.
        """
        if denoiser is not None and denoiser.noise != "gaussian":
            return z * (self.sigma_max if sigma is None else sigma)
        return z * self.start_sd(sigma)


class _ByDecay(Path):
    """Variance-preserving paths, alpha^2 + s^2 = 1; subclasses give `level` without the cancellation of 1 - alpha^2."""

    def sd(self, t: Tensor) -> Tensor:
        return self.level(t) * self.alpha(t)


class VPLinear(_ByDecay):
    """VP SDE with beta(t) from ``beta_min`` to ``beta_max`` (Song et al. 2021, arXiv:2011.13456, eq. 32-33)."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> None:
        super().__init__(t_min, 1.0)
        self.beta_min, self.slope = beta_min, beta_max - beta_min

    def integral(self, t: Tensor) -> Tensor:
        """Integral of beta from 0 to t, of which alpha = exp(-integral / 2)."""
        return t * (self.beta_min + self.slope * t / 2)

    def when(self, integral: Tensor) -> Tensor:
        """Inverse of `integral`."""
        return 2 * integral / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * self.slope * integral))

    def alpha(self, t: Tensor) -> Tensor:
        """Exp(-integral / 2)."""
        return torch.exp(-self.integral(t) / 2)

    def level(self, t: Tensor) -> Tensor:
        """Sqrt(exp(integral) - 1), without cancellation."""
        return torch.sqrt(torch.expm1(self.integral(t)))

    def time(self, sigma: Tensor) -> Tensor:
        """Integral = log(1 + sigma^2)."""
        return self.when(torch.log1p(sigma**2))


class SubVP(VPLinear):
    """Sub-VP SDE: the alpha of VP and s = 1 - alpha^2 (arXiv:2011.13456, eq. 29 and appendix B)."""

    def sd(self, t: Tensor) -> Tensor:
        """1 - alpha^2."""
        return -torch.expm1(-self.integral(t))

    def level(self, t: Tensor) -> Tensor:
        """1 / alpha - alpha = 2 sinh(integral / 2)."""
        return 2 * torch.sinh(self.integral(t) / 2)

    def time(self, sigma: Tensor) -> Tensor:
        """Integral = 2 asinh(sigma / 2)."""
        return self.when(2 * torch.asinh(sigma / 2))


class VPCosine(_ByDecay):
    """Cosine alpha = cos((t + o) / (1 + o) pi / 2) over its value at 0 (Nichol & Dhariwal 2021, arXiv:2102.09672)."""

    def __init__(self, offset: float = 0.008, t_min: float = 1e-3, t_max: float = 0.9946) -> None:
        super().__init__(t_min, t_max)
        self.rate = HALF_PI / (1 + offset)
        self.first = offset * self.rate

    def alpha(self, t: Tensor) -> Tensor:
        """Cosine over its value at 0."""
        return torch.cos(self.rate * t + self.first) / math.cos(self.first)

    def level(self, t: Tensor) -> Tensor:
        """Root of (cos^2 b - cos^2 a) / cos^2 a = sin(a - b) sin(a + b) / cos^2 a, angle a at t, b at 0."""
        turn = self.rate * t
        return torch.sqrt(torch.sin(turn) * torch.sin(turn + 2 * self.first)) / torch.cos(turn + self.first)

    def time(self, sigma: Tensor) -> Tensor:
        """From tan^2 a = (sigma^2 + sin^2 b) / cos^2 b."""
        root = torch.sqrt(sigma**2 + math.sin(self.first) ** 2)
        return (torch.atan(root / math.cos(self.first)) - self.first) / self.rate


class VE(Path):
    """VE SDE: alpha = 1, sigma geometric in t (arXiv:2011.13456, eq. 30-31)."""

    preserving = False

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        super().__init__(0.0, 1.0)
        self._low, self._span = sigma_min, math.log(sigma_max / sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)

    def sd(self, t: Tensor) -> Tensor:
        """sigma_min (sigma_max / sigma_min)^t."""
        return self._low * torch.exp(self._span * t)

    def time(self, sigma: Tensor) -> Tensor:
        """Logarithm of sigma over its span."""
        return torch.log(sigma / self._low) / self._span


class RectifiedFlow(Path):
    """x_t = (1 - t) x0 + t z, cut at t = 1 - ``eps`` where sigma is infinite (Liu et al. 2022, arXiv:2209.03003)."""

    def __init__(self, eps: float = 1e-3, t_min: float = 1e-3) -> None:
        super().__init__(t_min, 1 - eps)
        self.eps = eps

    def alpha(self, t: Tensor) -> Tensor:
        """1 - t."""
        return 1 - t

    def sd(self, t: Tensor) -> Tensor:
        """The time itself."""
        return t

    def time(self, sigma: Tensor) -> Tensor:
        """The ratio sigma / (1 + sigma)."""
        return sigma / (1 + sigma)


class Trigonometric(Path):
    """x_t = cos(pi t / 2) x0 + sin(pi t / 2) z: the variance-preserving stochastic interpolant, cut at 1 - ``eps``.

    Albergo et al. 2023, arXiv:2303.08797, table 4; TrigFlow's clock is pi t / 2 (Lu & Song 2024, arXiv:2410.11081).
    """

    def __init__(self, eps: float = 1e-3, t_min: float = 1e-3) -> None:
        super().__init__(t_min, 1 - eps)
        self.eps = eps

    def alpha(self, t: Tensor) -> Tensor:
        """Cosine."""
        return torch.cos(HALF_PI * t)

    def sd(self, t: Tensor) -> Tensor:
        """Sine."""
        return torch.sin(HALF_PI * t)

    def time(self, sigma: Tensor) -> Tensor:
        """Arc tangent of sigma."""
        return torch.atan(sigma) / HALF_PI


class DiscreteVP:
    """DDPM's discrete schedule (Ho et al. 2020, arXiv:2006.11239): ``levels`` (T,) rising, one per trained step.

    Its networks know these levels only, so sampling grids are snapped to them; `index` is the clock of such a network.
    """

    def __init__(self, betas: Array) -> None:
        self.betas = np.asarray(betas, dtype=np.float64)
        if self.betas.ndim != 1 or not np.all((self.betas > 0) & (self.betas < 1)):
            raise SciffusionError(
                "betas are not a row of numbers between 0 and 1", "use DiscreteVP.linear() or cosine()"
            )
        growth = -np.log1p(-self.betas).cumsum()  # -log alpha_bar
        self.levels = np.sqrt(np.expm1(growth))
        self._middles: dict[tuple[torch.device, torch.dtype], Tensor] = {}  # copied to a device once, not per call

    @classmethod
    def linear(cls, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> "DiscreteVP":
        """Betas uniform from ``first`` to ``last`` (Ho et al. 2020, section 4)."""
        return cls(np.linspace(first, last, steps))

    @classmethod
    def cosine(cls, steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> "DiscreteVP":
        """Betas of the cosine alpha_bar, at most ``largest`` (arXiv:2102.09672, section 3.2)."""
        t = np.arange(steps + 1) / steps
        bar = np.cos((t + offset) / (1 + offset) * HALF_PI) ** 2
        return cls(np.minimum(1 - bar[1:] / bar[:-1], largest))

    def nearest(self, sigma: Tensor) -> Tensor:
        """Index of the trained level nearest in log sigma."""
        key = (sigma.device, sigma.dtype)
        if key not in self._middles:
            middles = np.sqrt(self.levels[1:] * self.levels[:-1])
            self._middles[key] = torch.as_tensor(middles, dtype=sigma.dtype, device=sigma.device)
        return torch.bucketize(sigma.contiguous(), self._middles[key])

    def index(self, sigma: Tensor) -> Tensor:
        """Clock: the step of a level as a number, 0 to T - 1."""
        return self.nearest(sigma).to(sigma.dtype)

    def snap(self, sigmas: Array) -> Array:
        """A falling grid moved to trained levels, duplicates dropped, a final 0 kept."""
        positive = torch.as_tensor(np.asarray(sigmas, dtype=np.float64)[np.asarray(sigmas) > 0])
        snapped = np.unique(self.levels[self.nearest(positive).numpy()])[::-1]
        return np.append(snapped, 0.0) if sigmas[-1] == 0 else snapped

    def grid(self, steps: int) -> Array:
        """``steps`` of the trained levels, evenly spaced in the index from the last to the first, and a final 0."""
        picked = np.linspace(len(self.levels) - 1, 0, steps).round().astype(int) if steps > 1 else [-1]
        return np.append(self.levels[picked], 0.0)
