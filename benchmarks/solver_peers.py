"""Samplers for benchmarks/solvers.py: ours, and those of k-diffusion, diffusers and azula when they are installed.

Everyone is a function (denoiser, x, sigmas) -> field with the same falling ``sigmas`` that end in 0, called through
its own loop. A sampler of two calls per step gets a grid of half the steps. Peers are no dependencies of the package.
"""

import functools
import importlib.util
import logging
import sys
import types
from importlib import metadata

import numpy as np
import torch

from sciffusion.diffusion import karras, sample, solvers
from sciffusion.diffusion.sampling import gaussian

PACKAGES = {"k-diffusion": "k_diffusion", "diffusers": "diffusers", "azula": "azula"}
OURS = {
    "dpmpp-2m": ("dpmpp-2m", {}),
    "dpmpp-3m": ("dpmpp-3m", {}),
    "unipc": ("unipc", {}),
    "unipc order 3": ("unipc", {"order": 3}),
    "adams": ("adams", {}),
    "adams order 4": ("adams", {"order": 4}),
    "adams c 10": ("adams", {"prediction": 10.0}),
    "adams corrected": ("adams", {"correct": True}),
    "adams order 4 corrected": ("adams", {"order": 4, "correct": True}),
    "adams c 10 corrected": ("adams", {"prediction": 10.0, "correct": True}),
    "heun": ("heun", {}),
    "dpmpp-2s": ("dpmpp-2s", {}),
    "euler": ("euler", {}),
    "ddpm": ("ddpm", {}),
}
SAME_METHOD = {  # ours -> peers' names of it
    "sciffusion dpmpp-2m": ("k-diffusion 2M", "diffusers DPMSolverMultistep-2"),
    "sciffusion unipc": ("diffusers UniPC-2",),
    "sciffusion unipc order 3": ("diffusers UniPC-3",),
    "sciffusion dpmpp-3m": ("azula xEAB-3",),
    "sciffusion adams": ("azula zEAB-3",),
    "sciffusion adams order 4": ("azula zEAB-4",),
    "sciffusion heun": ("k-diffusion Heun", "azula Heun"),
    "sciffusion euler": ("azula DDIM",),
    "sciffusion ddpm": ("azula DDPM",),
}
STOCHASTIC = ("sciffusion ddpm", "azula DDPM")  # end elsewhere by their noise: only their spectra can be judged


def installed(package):
    """Whether a peer can be measured here."""
    return importlib.util.find_spec(PACKAGES[package]) is not None


def versions():
    """Of the peers that are measured."""
    return {package: metadata.version(package) for package in PACKAGES if installed(package)}


def samplers():
    """Name -> sampler, ours first."""
    peers = [make() for package, make in _PEERS.items() if installed(package)]
    return functools.reduce(dict.__or__, peers, ours())


def fewer(sigmas, calls_per_step):
    """The grid of as many steps as the calls allow, one of them to 0."""
    steps = (len(sigmas) - 1 + calls_per_step - 1) // calls_per_step
    return sigmas if calls_per_step == 1 else karras(steps, sigmas[-2], sigmas[0])


def ours():
    """This package's solvers."""
    return {f"sciffusion {name}": functools.partial(_ours, *kind) for name, kind in OURS.items()}


def _ours(solver, settings, denoiser, x, sigmas):
    grid = fewer(sigmas, solvers.calls(solver, 2, **settings) - 1)
    return sample(denoiser, x, grid, solver, noise=gaussian(x, torch.Generator().manual_seed(1)), **settings)


def k_diffusion():
    """k-diffusion's loops in sigma: its sampling module alone, without what the package loads for images."""
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(importlib.util.find_spec("k_diffusion").submodule_search_locations)
    sys.modules["k_diffusion"] = package
    absent = ["torchvision", "torchvision.transforms"] if importlib.util.find_spec("torchvision") is None else []
    for name in absent:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].functional = None
    sampling = importlib.import_module("k_diffusion.sampling")
    for name in absent:
        del sys.modules[name]

    def run(function, calls, denoiser, x, sigmas):
        return function(denoiser, x, torch.as_tensor(fewer(sigmas, calls), dtype=x.dtype), disable=True)

    kinds = {"2M": (sampling.sample_dpmpp_2m, 1), "LMS": (sampling.sample_lms, 1), "Heun": (sampling.sample_heun, 2)}
    return {f"k-diffusion {name}": functools.partial(run, *kind) for name, kind in kinds.items()}


def diffusers():
    """diffusers' schedulers, which work in variance-preserving coordinates: x / sqrt(1 + sigma^2)."""
    logging.disable(logging.WARNING)
    library = importlib.import_module("diffusers")

    def run(kind, order, denoiser, x, sigmas):
        scheduler = kind(solver_order=order, prediction_type="sample", final_sigmas_type="zero")
        scheduler.set_timesteps(len(sigmas) - 1)
        scheduler.sigmas = torch.as_tensor(sigmas, dtype=torch.float32)
        scheduler.timesteps = torch.arange(len(sigmas) - 1, 0, -1)
        scales = np.hypot(1, sigmas).tolist()  # made before the loop: only the product counts as overhead
        levels = torch.as_tensor(sigmas, dtype=x.dtype)[:, None].expand(-1, len(x))
        x = x / scales[0]
        for i, step in enumerate(scheduler.timesteps):
            x = scheduler.step(denoiser(x * scales[i], levels[i], None), step, x).prev_sample
        return x

    kinds = {"DPMSolverMultistep": library.DPMSolverMultistepScheduler, "UniPC": library.UniPCMultistepScheduler}
    names = [(f"diffusers {name}-{order}", kind, order) for name, kind in kinds.items() for order in (2, 3)]
    return {name: functools.partial(run, kind, order) for name, kind, order in names}


def azula():
    """azula's samplers on a schedule with alpha = 1; the step to 0 is a call of the denoiser, as they end above 0."""
    library, denoise = importlib.import_module("azula.sample"), importlib.import_module("azula.denoise")

    class Wrapped(denoise.Denoiser):
        def __init__(self, denoiser, sigmas):
            super().__init__()
            self.denoiser, self.sigmas, self.ones = denoiser, sigmas, torch.ones_like(sigmas)

        def schedule(self, t):
            at = (t * (len(self.sigmas) - 1) + 0.5).long()
            return self.ones[at], self.sigmas[at]

        def forward(self, x, t):
            sigma = self.schedule(t)[1]
            return denoise.DiracPosterior(mean=self.denoiser(x, sigma.expand(x.shape[:1]), None))

    def run(kind, settings, calls, denoiser, x, sigmas):
        rising = torch.as_tensor(fewer(sigmas, calls)[-2::-1].copy(), dtype=x.dtype)
        wrapped = Wrapped(denoiser, rising)
        sampler = kind(wrapped, steps=len(rising) - 1, silent=True, dtype=x.dtype, **settings)
        torch.manual_seed(1)
        return wrapped(sampler(x), torch.zeros((), dtype=x.dtype)).mean

    multisteps = [(kind, order) for kind in ("zAB", "vAB", "xEAB", "zEAB", "REAB") for order in (2, 3, 4)]
    kinds = {f"{kind}-{order}": (getattr(library, f"{kind}Sampler"), {"order": order}, 1) for kind, order in multisteps}
    kinds |= {"Heun": (library.HeunSampler, {}, 2), "DDIM": (library.DDIMSampler, {}, 1)}
    kinds |= {"DDPM": (library.DDPMSampler, {}, 1)}
    return {f"azula {name}": functools.partial(run, *kind) for name, kind in kinds.items()}


_PEERS = {"k-diffusion": k_diffusion, "diffusers": diffusers, "azula": azula}
