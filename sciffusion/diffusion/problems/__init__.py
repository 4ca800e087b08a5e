"""Analytic problems: fields whose denoiser, flow, posterior, likelihood and best scores are known exactly.

They serve tests, benchmarks and documentation, here and elsewhere. Fields are tensors (batch, 1, *grid).
"""

from sciffusion.diffusion.problems.gaussian import DenseGaussian, GaussianField, GaussianLaw, power_law
from sciffusion.diffusion.problems.mixture import GaussianMixture

__all__ = ["DenseGaussian", "GaussianField", "GaussianLaw", "GaussianMixture", "power_law"]
