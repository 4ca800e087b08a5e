"""Solvers against network calls: error, small-scale power and host overhead, beside other packages' samplers.

    python benchmarks/solvers.py [--output DIR] [--calls 8 16 32] [--size 64]

Everyone gets the same exact denoiser, start and noise levels (Karras grid, then the exact step to 0), and is called
through its own loop. Peers (diffusers, k-diffusion, azula) are measured when they can be imported; they are no
dependencies: pip install diffusers k-diffusion azula in an environment of their own. Problems: one Gaussian random
field, whose flow is known, and a mixture of two, solved with 4,096 steps of a third-order method.
"""

import argparse
import functools
import importlib.util
import logging
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np
import torch

from sciffusion.diffusion import karras, sample, solvers
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.problems import GaussianField, GaussianMixture, power_law
from sciffusion.diffusion.sampling import gaussian

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0


# Samplers: name -> function(denoiser, x, sigmas) with sigmas ending in 0 ---------------------------------------------


def ours():
    """This package's solvers, given as many calls as there are levels above 0."""
    kinds = {
        "dpmpp-2m": ("dpmpp-2m", {}),
        "dpmpp-3m": ("dpmpp-3m", {}),
        "unipc": ("unipc", {}),
        "unipc order 3": ("unipc", {"order": 3}),
        "adams": ("adams", {}),
        "adams corrected": ("adams", {"correct": True}),
        "adams corrected, c 3": ("adams", {"correct": True, "prediction": 3.0}),
        "adams order 4, corrected": ("adams", {"order": 4, "correct": True}),
        "heun": ("heun", {}),
        "dpmpp-2s": ("dpmpp-2s", {}),
        "euler": ("euler", {}),
        "ancestral": ("ddim", {"eta": 1.0}),
    }
    return {f"sciffusion {name}": functools.partial(_ours, *kind) for name, kind in kinds.items()}


def _ours(solver, settings, denoiser, x, sigmas):
    calls, steps = len(sigmas) - 1, len(sigmas) - 1
    while solvers.calls(solver, steps, **settings) > calls:  # two-call solvers take half of the steps
        steps -= 1
    grid = sigmas if steps == calls else karras(steps, sigmas[-2], sigmas[0])
    noise = gaussian(x, torch.Generator().manual_seed(1))
    return sample(denoiser, x, grid, solver, noise=noise, **settings)


def k_diffusion():
    """k-diffusion's loops in sigma: its sampling module alone, without what the package loads for images."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        return {}
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["k_diffusion"] = package
    absent = ["torchvision", "torchvision.transforms"] if importlib.util.find_spec("torchvision") is None else []
    for name in absent:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].functional = None
    sampling = importlib.import_module("k_diffusion.sampling")
    for name in absent:
        del sys.modules[name]

    def run(function, denoiser, x, sigmas):
        return function(denoiser, x, torch.as_tensor(sigmas, dtype=x.dtype), disable=True)

    names = {"2M": sampling.sample_dpmpp_2m, "LMS": sampling.sample_lms}
    return {f"k-diffusion {name}": functools.partial(run, function) for name, function in names.items()}


def diffusers():
    """diffusers' schedulers, which work in variance-preserving coordinates: x / sqrt(1 + sigma^2)."""
    if importlib.util.find_spec("diffusers") is None:
        return {}
    logging.disable(logging.WARNING)
    library = importlib.import_module("diffusers")

    def run(kind, order, denoiser, x, sigmas):
        scheduler = kind(solver_order=order, prediction_type="sample", final_sigmas_type="zero")
        scheduler.set_timesteps(len(sigmas) - 1)
        scheduler.sigmas = torch.as_tensor(sigmas, dtype=torch.float32)
        scheduler.timesteps = torch.arange(len(sigmas) - 1, 0, -1)
        x = x / np.hypot(1, sigmas[0])
        for i, step in enumerate(scheduler.timesteps):
            sigma = sigmas[i]
            answer = denoiser(x * np.hypot(1, sigma), x.new_full(x.shape[:1], sigma), None)
            x = scheduler.step(answer, step, x).prev_sample
        return x

    kinds = {"DPMSolverMultistep": library.DPMSolverMultistepScheduler, "UniPC": library.UniPCMultistepScheduler}
    names = [(f"diffusers {name}-{order}", kind, order) for name, kind in kinds.items() for order in (2, 3)]
    return {name: functools.partial(run, kind, order) for name, kind, order in names}


def azula():
    """azula's samplers on a schedule with alpha = 1; the step to 0 is a call of the denoiser, as they end above 0."""
    if importlib.util.find_spec("azula") is None:
        return {}
    library, denoise = importlib.import_module("azula.sample"), importlib.import_module("azula.denoise")

    class Wrapped(denoise.Denoiser):
        def __init__(self, denoiser, sigmas):
            super().__init__()
            self.denoiser, self.sigmas = denoiser, sigmas

        def schedule(self, t):
            sigma = self.sigmas[(t * (len(self.sigmas) - 1)).round().long()]
            return torch.ones_like(sigma), sigma

        def forward(self, x, t):
            sigma = self.schedule(t)[1]
            return denoise.DiracPosterior(mean=self.denoiser(x, sigma.expand(x.shape[:1]), None))

    def run(kind, settings, denoiser, x, sigmas):
        rising = torch.as_tensor(sigmas[-2::-1].copy(), dtype=x.dtype)
        wrapped = Wrapped(denoiser, rising)
        sampler = kind(wrapped, steps=len(rising) - 1, silent=True, dtype=x.dtype, **settings)
        return wrapped(sampler(x), torch.zeros((), dtype=x.dtype)).mean

    kinds = {
        "xEAB-2": (library.xEABSampler, {"order": 2}),
        "xEAB-3": (library.xEABSampler, {"order": 3}),
        "zEAB-3": (library.zEABSampler, {"order": 3}),
        "REAB-2": (library.REABSampler, {"order": 2}),
        "DDIM": (library.DDIMSampler, {}),
    }
    return {f"azula {name}": functools.partial(run, *kind) for name, kind in kinds.items()}


# Problems and measures -----------------------------------------------------------------------------------------------


def problems(size, batch):
    """Name -> (denoiser, start, exact end, power per mode of the exact end)."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(batch, 1, size, size, generator=generator, dtype=torch.float64)
    field = GaussianField(power_law(4.0), (size, size))
    rough = GaussianField(power_law(3.0, outer=4.0), (size, size), variance=0.5, mean=0.3)
    mixture = GaussianMixture([field, rough]).denoiser()
    fine = np.append(np.geomspace(SIGMA_MAX, 1e-5, 4096), 0.0)
    ends = {
        "field": (field.denoiser(), field.flow(SIGMA_MAX * z, SIGMA_MAX, 0.0)),
        "mixture": (mixture, sample(mixture, SIGMA_MAX * z, fine, "dpmpp-3m")),
    }
    return {name: (denoiser, (SIGMA_MAX * z).float(), end) for name, (denoiser, end) in ends.items()}


def small_scales(x):
    """Power in the upper half of the wavenumbers."""
    size = x.shape[-1]
    k = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)[None])
    power = torch.fft.rfft2(x.double()).abs() ** 2
    return float(power[..., torch.as_tensor(k > size / 4)].mean())


class Trivial(Denoiser):
    """Costs next to nothing, so that what is left is the solver."""

    def forward(self, x, sigma, cond=None):
        """Half of x."""
        return x * 0.5


def overhead(run, calls=64, repeats=40):
    """Microseconds of CPU per call of a whole loop on a tiny tensor, the denoiser's own taken off (best of all)."""
    x, sigmas, trivial = torch.ones(1, 1, 4, 4), karras(calls, SIGMA_MIN, SIGMA_MAX), Trivial()
    sigma = torch.ones(1)

    def timed(function):
        start = time.process_time()
        function()
        return (time.process_time() - start) / calls * 1e6

    with torch.no_grad():
        run(trivial, x, sigmas)
        alone = min(timed(lambda: [trivial(x, sigma, None) for _ in range(calls)]) for _ in range(repeats))
        return float(min(timed(lambda: run(trivial, x, sigmas)) for _ in range(repeats)) - alone)


def measure(size, batch, budgets):
    """Rows of (sampler, overhead, {(problem, calls): (rmse, power ratio)})."""
    cases, rows = problems(size, batch), []
    for name, run in {**ours(), **k_diffusion(), **diffusers(), **azula()}.items():
        results = {}
        for problem, (denoiser, x, exact) in cases.items():
            for calls in budgets:
                with torch.no_grad():
                    answer = run(denoiser, x, karras(calls, SIGMA_MIN, SIGMA_MAX)).double()
                ancestral = name.endswith("ancestral")  # goes elsewhere by its noise: only its spectrum can be judged
                rmse = float("nan") if ancestral else float((answer - exact).square().mean().sqrt())
                results[problem, calls] = (rmse, small_scales(answer) / small_scales(exact))
        rows.append((name, overhead(run), results))
    return rows


def table(rows, budgets):
    """Markdown: RMSE / small-scale power ratio."""
    columns = [(problem, calls) for problem in ("field", "mixture") for calls in budgets]
    heads = ["sampler", "overhead, us/call", *(f"{problem} {calls}" for problem, calls in columns)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, cost, results in rows:
        cells = [f"{results[column][0]:.4f} / {results[column][1]:.3f}" for column in columns]
        lines.append("| " + " | ".join([name, f"{cost:.0f}", *cells]) + " |")
    return "\n".join(lines)


def plot(rows, budgets, path):
    """Error and small-scale power against calls, on the mixture; ours solid, peers dashed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    colours = plt.get_cmap("tab20").colors
    for position, (name, _, results) in enumerate(rows):
        style = (
            {"linestyle": "-", "marker": "o"} if name.startswith("sciffusion") else {"linestyle": "--", "marker": "x"}
        )
        for axis, entry in zip(axes, (0, 1), strict=True):
            values = [results["mixture", calls][entry] for calls in budgets]
            axis.plot(budgets, values, label=name, markersize=4, color=colours[position % 20], **style)
    axes[0].set(xscale="log", yscale="log", ylim=(5e-5, 2), ylabel="RMSE to the exact solution")
    axes[1].set(xscale="log", ylim=(0.5, 1.5), ylabel="small-scale power over the exact")
    for axis in axes:
        axis.set_xticks(budgets, [str(calls) for calls in budgets])
        axis.set_xticks([], minor=True)
        axis.set_xlabel("network calls")
        axis.grid(alpha=0.3)
    axes[1].axhline(1.0, color="black", linewidth=0.8)
    axes[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle("Mixture of two Gaussian random fields, Karras grid, exact denoiser")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--calls", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = measure(args.size, args.batch, args.calls)
    text = table(rows, args.calls)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "solvers.md").write_text(f"RMSE / small-scale power ratio at each number of calls\n\n{text}\n")
    plot(rows, args.calls, args.output / "solvers.png")
    print(text)
    print(f"written: {args.output / 'solvers.md'}, {args.output / 'solvers.png'}")


if __name__ == "__main__":
    main()
