"""Noise levels of a stage from its settings: the range, a paper's path, training levels, sampling grids.

Whatever the path, networks are told log(sigma) / 4, which resolves low levels where a paper's time does not.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sciffusion import config
from sciffusion.diffusion import paths, sigmas, weights
from sciffusion.diffusion.parameterization import Parameterization

__all__ = ["fitted_range", "grid", "level_weight", "path_of", "training_levels"]

Path = paths.Path | paths.DiscreteVP


def path_of(settings: config.NoiseSettings, lowest: float, highest: float) -> Path | None:
    """The path that the settings name, on [lowest, highest] where it can be stretched; None without one.

    DDPM's schedules and sub-VP have levels of their own. VP takes the beta_max that ends at ``highest``.
    """
    if settings.path is None:
        return None
    return _PATHS[settings.path](lowest, highest)


def _vp(lowest: float, highest: float) -> paths.Path:
    """The linear VP path: integral = log(1 + sigma^2) at t = 1 gives beta_max, and at t_min the lowest level."""
    beta_min = 0.1
    path = paths.VPLinear(beta_min, max(20.0, 2 * float(np.log1p(highest**2)) - beta_min))
    path.t_min = _time(path, lowest)
    return path


def _time(path: paths.Path, sigma: float) -> float:
    return float(path.time(torch.tensor(sigma, dtype=torch.float64)))


def _stretched(path: paths.Path, lowest: float, highest: float) -> paths.Path:
    path.t_min, path.t_max = _time(path, lowest), _time(path, highest)
    return path


_PATHS: dict[str, Callable[[float, float], Path]] = {
    "ddpm-linear": lambda lowest, highest: paths.DiscreteVP.linear(),
    "ddpm-cosine": lambda lowest, highest: paths.DiscreteVP.cosine(),
    "vp": _vp,
    "sub-vp": lambda lowest, highest: paths.SubVP(),
    "ve": paths.VE,
    "rectified": lambda lowest, highest: _stretched(paths.RectifiedFlow(), lowest, highest),
    "trigonometric": lambda lowest, highest: _stretched(paths.Trigonometric(), lowest, highest),
}


def fitted_range(settings: config.NoiseSettings, leading_rms: float) -> sigmas.NoiseRange:
    """The training range: fitted to the rms of the leading mode where the settings leave it open."""
    given = {"p_mean": settings.p_mean, "p_std": settings.p_std}
    given = {name: value for name, value in given.items() if value is not None}
    if settings.sigma_max != "fit":
        given["sigma_max"] = settings.sigma_max
    shape = "loguniform" if settings.distribution == "loguniform" else "lognormal"
    found = sigmas.NoiseRange.fit(leading_rms, settings.sigma_min, distribution=shape, **given)
    path = path_of(settings, found.sigma_min, found.sigma_max)
    if path is None:
        return found
    lowest, highest = _ends(path)
    return sigmas.NoiseRange(lowest, highest, found.p_mean, found.p_std, found.distribution, found.uniform)


def _ends(path: Path) -> tuple[float, float]:
    if isinstance(path, paths.DiscreteVP):
        return float(path.levels[0]), float(path.levels[-1])
    return path.sigma_min, path.sigma_max


class PathTimes:
    """Levels at times uniform between the ends of a path, one per stratum."""

    def __init__(self, path: paths.Path) -> None:
        self.path = path

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """``batch`` levels, float32."""
        u = sigmas.stratified(batch, generator)
        return self.path.level(self.path.t_min + (self.path.t_max - self.path.t_min) * u).float()


def training_levels(settings: config.NoiseSettings, noise_range: sigmas.NoiseRange, path: Path | None) -> sigmas.Levels:
    """The distribution of levels in training; a discrete path has only its own levels, all equally often."""
    if isinstance(path, paths.DiscreteVP):
        return sigmas.DiscreteLevels(path.levels)
    if settings.distribution == "time" and path is not None:
        return PathTimes(path)
    return noise_range


def level_weight(settings: config.NoiseSettings, parameterization: Parameterization) -> Callable[[Tensor], Tensor]:
    """The weight of the squared error of D at each level."""
    if settings.weight == "matched":
        return weights.matched_weight(parameterization)
    return {"edm": weights.edm_weight, "noise": weights.noise_weight, "min-snr": weights.min_snr}[settings.weight]


def grid(settings: config.Sampler, noise_range: sigmas.NoiseRange, path: Path | None) -> np.ndarray:
    """The sampler's levels, from the largest to 0; those of a discrete path are all trained ones."""
    lowest, highest = settings.sigma_min or noise_range.sigma_min, settings.sigma_max or noise_range.sigma_max
    if isinstance(path, paths.DiscreteVP):
        return path.grid(settings.steps) if settings.grid == "time" else path.snap(_karras(settings, lowest, highest))
    if settings.grid == "time" and path is not None:
        times = np.linspace(_time(path, highest), _time(path, lowest), settings.steps)
        return np.append(_levels(path, times), 0.0)
    return _karras(settings, lowest, highest)


def _karras(settings: config.Sampler, lowest: float, highest: float) -> np.ndarray:
    return sigmas.karras(settings.steps, lowest, highest, settings.rho)


def _levels(path: paths.Path, times: np.ndarray) -> np.ndarray:
    return np.asarray(path.level(torch.from_numpy(times)))
