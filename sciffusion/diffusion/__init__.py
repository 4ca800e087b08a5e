"""The mathematics: one denoiser, the methods around it, and analytic problems that prove them. Torch only."""

from sciffusion.diffusion.denoiser import Denoiser, Masked, Preconditioned, Wrapper
from sciffusion.diffusion.ema import EMA
from sciffusion.diffusion.likelihood import log_likelihood
from sciffusion.diffusion.objectives import almost_fair_crps, denoising_loss
from sciffusion.diffusion.sampling import sample
from sciffusion.diffusion.sigmas import NoiseRange, karras
from sciffusion.diffusion.solvers import Plan, plan
from sciffusion.diffusion.solvers.gain import best_sampler, solver_gain

__all__ = [
    "EMA",
    "Denoiser",
    "Masked",
    "NoiseRange",
    "Plan",
    "Preconditioned",
    "Wrapper",
    "almost_fair_crps",
    "best_sampler",
    "denoising_loss",
    "karras",
    "log_likelihood",
    "plan",
    "sample",
    "solver_gain",
]
