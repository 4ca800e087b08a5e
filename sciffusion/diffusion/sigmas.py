"""Noise levels: the grid that a sampler walks down and the distribution that training draws from.

Grids are float64 numpy arrays of ``steps + 1`` levels, falling to a final 0 (the exact step x <- D). Levels are in
units of the data's sd. With t = sigma / (1 + sigma), the time of a rectified flow, log sigma = logit t: a logit-normal
t (Esser et al. 2024, arXiv:2403.03206) is a log-normal sigma with the same mean and sd, so no class of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.errors import SciffusionError

__all__ = ["DiscreteLevels", "Levels", "NoiseRange", "UniformTime", "karras", "placed", "stratified"]

Array = NDArray[np.float64]


def karras(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0, *, final_zero: bool = True) -> Array:
    """The grid of eq. 5 in Karras et al. 2022 (arXiv:2206.00364): uniform in sigma^(1/rho); float64.

    Returns ``steps`` levels and a final 0, or with ``final_zero=False`` ``steps + 1`` levels down to sigma_min. Large
    ``rho`` tends to levels uniform in log sigma, which is paths.VE's grid.
    """
    if steps < 1 or not 0 < sigma_min <= sigma_max:
        raise SciffusionError(
            f"no noise grid has {steps} steps from {sigma_max} to {sigma_min}", "use steps >= 1, 0 < min <= max"
        )
    share = np.linspace(0.0, 1.0, steps if final_zero else steps + 1)
    levels = (sigma_max ** (1 / rho) + share * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    levels[0] = sigma_max
    return np.append(levels, 0.0) if final_zero else levels


class Levels(Protocol):
    """A distribution of training noise levels."""

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """``batch`` levels, float32, on the generator's device."""
        ...


def placed(levels: Tensor, x: Tensor) -> Tensor:
    """``levels`` in the dtype of ``x`` and on its device: pinned, or a copy would wait for all that a GPU has to do."""
    pinned = levels.pin_memory() if x.is_cuda and not levels.is_cuda else levels
    return pinned.to(x, non_blocking=True)


def stratified(batch: int, generator: torch.Generator | None) -> Tensor:
    """One uniform number per stratum [i, i + 1) / batch, shuffled: unbiased, with less variance than independent ones.

    The idea of a low-discrepancy sampler of levels is Kingma et al.'s (2021, arXiv:2107.00630, appendix I.1).
    """
    device = generator.device if generator is not None else torch.device("cpu")
    strata = torch.randperm(batch, generator=generator, device=device)
    jitter = torch.rand(batch, generator=generator, device=device, dtype=torch.float64)
    return ((strata + jitter) / batch).clamp(1e-12, 1 - 1e-12)


@dataclass(frozen=True)
class NoiseRange:
    """Levels that a denoiser is trained on and sampled from: stored with the weights, read by the samplers.

    ``lognormal``: with probability 1 - ``uniform`` a log-normal (mean ``p_mean`` and sd ``p_std`` of log sigma)
    truncated to [sigma_min, sigma_max], else log-uniform over that range. The mixture is what guarantees coverage:
    every factor of e in sigma gets at least the share uniform / log(sigma_max / sigma_min) of the draws, whereas
    EDM's log-normal alone (-1.2, 1.2) puts 2e-6 of them above 80. ``loguniform``: the second part alone.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    p_mean: float = -1.2
    p_std: float = 1.2
    distribution: Literal["lognormal", "loguniform"] = "lognormal"
    uniform: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max or self.p_std <= 0 or not 0 <= self.uniform <= 1:
            raise SciffusionError(f"{self} is not a noise range", "use 0 < sigma_min < sigma_max, p_std > 0")

    @classmethod
    def fit(cls, leading_rms: float, sigma_min: float = 0.002, **settings: Any) -> "NoiseRange":
        """Fit the range to data whose leading mode has rms ``leading_rms`` (in units of the data's sd).

        sigma_max is 5 times that rms (at least EDM's 80), so that a start of sd sqrt(1 + sigma_max^2), which knows
        nothing of the mode, has 98 % of its sd there.
        The log-normal keeps EDM's lower two-sd point, log sigma = -3.6, where the finest scales are decided, and
        moves its upper one from 1.2 to log(leading_rms), where the leading mode is: all scales of the field then lie
        within two sd of its centre, and the log-uniform part covers the rest up to sigma_max.
        """
        low, high = -3.6, max(1.2, math.log(max(leading_rms, 1e-12)))
        shape = {"p_mean": (low + high) / 2, "p_std": (high - low) / 4}
        return cls(sigma_min=sigma_min, sigma_max=max(80.0, 5 * leading_rms), **{**shape, **settings})

    def quantile(self, u: Tensor) -> Tensor:
        """Map uniform numbers (float64) to levels: the mixture's parts one after the other."""
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        share = self.uniform if self.distribution == "lognormal" else 1.0
        flat = low + (high - low) * (u / share if share else u).clamp(0, 1)
        if share == 1.0:
            return torch.exp(flat)
        ends = torch.tensor([low, high], dtype=u.dtype, device=u.device)
        below, above = torch.special.ndtr((ends - self.p_mean) / self.p_std)
        rest = ((u - share) / (1 - share)).clamp(1e-12, 1 - 1e-12)
        peaked = self.p_mean + self.p_std * torch.special.ndtri(below + (above - below) * rest)
        return torch.exp(torch.where(u < share, flat, peaked).clamp(low, high))

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """``batch`` levels (stratified, in random order), float32, on the generator's device."""
        levels = self.quantile(stratified(batch, generator)).float()
        return levels.clamp(self.sigma_min, self.sigma_max)

    def grid(self, steps: int, rho: float = 7.0) -> Array:
        """The sampling grid over this range: `karras` with a final 0."""
        return karras(steps, self.sigma_min, self.sigma_max, rho)

    def to_json(self) -> dict[str, Any]:
        """As plain values, for model.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "NoiseRange":
        """The inverse of `to_json`."""
        return cls(**values)


@dataclass(frozen=True)
class DiscreteLevels:
    """Uniform over a discrete schedule's levels (Ho et al. 2020, algorithm 1); ``levels`` from paths.DiscreteVP."""

    levels: Array

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """``batch`` of the levels, float32."""
        u = stratified(batch, generator)
        table = torch.as_tensor(self.levels, dtype=torch.float32, device=u.device)
        return table[(u * len(table)).long()]


@dataclass(frozen=True)
class UniformTime:
    """Uniform over the time t in [eps, 1 - eps] of a rectified flow: log sigma = logit t is logistic."""

    eps: float = 1e-3

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """``batch`` levels sigma = t / (1 - t), float32."""
        t = self.eps + (1 - 2 * self.eps) * stratified(batch, generator)
        return (t / (1 - t)).float()
