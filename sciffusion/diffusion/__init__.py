"""The mathematics: one denoiser, the methods around it, and analytic problems that prove them. Torch only."""

from sciffusion.diffusion.denoiser import Denoiser, Masked, Preconditioned, Wrapper
from sciffusion.diffusion.ema import EMA
from sciffusion.diffusion.flowmap import FlowMap, sample_map
from sciffusion.diffusion.likelihood import log_likelihood
from sciffusion.diffusion.objectives import almost_fair_crps, denoising_loss
from sciffusion.diffusion.sampling import sample
from sciffusion.diffusion.sigmas import NoiseRange, karras
from sciffusion.diffusion.solvers import Plan, plan
from sciffusion.diffusion.solvers.gain import best_sampler, solver_gain
from sciffusion.diffusion.tiling import Tiled

__all__ = [
    "EMA",
    "Denoiser",
    "FlowMap",
    "Masked",
    "NoiseRange",
    "Plan",
    "Preconditioned",
    "Tiled",
    "Wrapper",
    "almost_fair_crps",
    "best_sampler",
    "denoising_loss",
    "karras",
    "log_likelihood",
    "plan",
    "sample",
    "sample_map",
    "solver_gain",
]
