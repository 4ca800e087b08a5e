"""Solvers against network calls: error, small-scale power and host overhead, beside other packages' samplers.

    python benchmarks/solvers.py [--output DIR] [--calls 8 16 32] [--size 64]
    python benchmarks/solvers.py --plot docs/images/solvers.png               # the run of docs/theory.md
    python benchmarks/solvers.py --table benchmarks/results/solvers.json      # its table

Everyone gets the same exact denoiser, start and noise levels (Karras grid, then the exact step to 0), and is called
through its own loop (solver_peers.py). Peers are measured when they can be imported: pip install diffusers k-diffusion
azula in an environment of their own. Problems: one Gaussian random field, whose flow is known, and a mixture of two,
solved with 4,096 steps of a third-order method. Writes solvers.json (everything) and solvers.png.
"""

import argparse
import datetime
import json
import platform
import shlex
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from solver_peers import SAME_METHOD, STOCHASTIC, samplers, versions

import sciffusion
from sciffusion.diffusion import karras, sample
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.problems import GaussianField, GaussianMixture, power_law

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0
TABLE = (8, 16, 32)  # numbers of calls in docs/theory.md
SHOWN = {  # what docs/theory.md and the plot show of all, and the plot's colours
    "sciffusion adams": "tab:red",
    "sciffusion adams c 10": "tab:orange",
    "sciffusion adams corrected": "tab:pink",
    "sciffusion adams c 10 corrected": "tab:purple",
    "sciffusion dpmpp-2m": "black",
    "k-diffusion 2M": "tab:green",
    "diffusers DPMSolverMultistep-2": "lightgreen",
    "diffusers DPMSolverMultistep-3": "tab:cyan",
    "diffusers UniPC-2": "silver",
    "diffusers UniPC-3": "dimgray",
    "azula zEAB-3": "tab:blue",
    "azula xEAB-3": "lightskyblue",
    "azula REAB-3": "tab:brown",
    "azula DDIM": "tab:olive",
}


# Problems and measures -----------------------------------------------------------------------------------------------


def problems(size, batch):
    """Name -> (denoiser, start, exact end)."""
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


class Counted(Denoiser):
    """Another denoiser, and how often it was called: nobody gets more calls than the others."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.calls = denoiser, 0

    def forward(self, x, sigma, cond=None):
        """The other's answer."""
        self.calls += 1
        return self.denoiser(x, sigma, cond)


class Trivial(Denoiser):
    """Costs next to nothing, so that what is left is the solver."""

    def forward(self, x, sigma, cond=None):
        """Half of x."""
        return x * 0.5


def overhead(run, repeats, calls=64):
    """Microseconds of CPU per call of a whole loop on a tiny tensor, the denoiser's own taken off (best of all)."""
    x, sigmas, trivial = torch.ones(1, 1, 4, 4), karras(calls, SIGMA_MIN, SIGMA_MAX, RHO), Trivial()
    sigma = torch.ones(1)

    def timed(function):
        start = time.process_time()
        function()
        return (time.process_time() - start) / calls * 1e6

    with torch.no_grad():
        run(trivial, x, sigmas)
        alone = min(timed(lambda: [trivial(x, sigma, None) for _ in range(calls)]) for _ in range(repeats))
        return float(min(timed(lambda: run(trivial, x, sigmas)) for _ in range(repeats)) - alone)


def measured(name, run, problem, calls):
    """RMSE (none for a stochastic sampler), power ratio and calls really made."""
    denoiser, x, exact = problem
    counted = Counted(denoiser)
    with torch.no_grad():
        answer = run(counted, x, karras(calls, SIGMA_MIN, SIGMA_MAX, RHO)).double()
    assert counted.calls <= calls, (name, counted.calls, calls)
    rmse = None if name in STOCHASTIC else float((answer - exact).square().mean().sqrt())
    return {"rmse": rmse, "power": small_scales(answer) / small_scales(exact), "made": counted.calls}


def measure(size, batch, budgets, repeats):
    """Sampler -> overhead_us and per problem and number of calls what `measured` says."""
    cases = problems(size, batch)
    return {
        name: {
            "overhead_us": overhead(run, repeats),
            **{key: {str(calls): measured(name, run, case, calls) for calls in budgets} for key, case in cases.items()},
        }
        for name, run in samplers().items()
    }


def machine():
    """What the numbers depend on."""
    cpu = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/solvers.py", *sys.argv[1:]]),
        "cpu": cpu[0] if cpu else platform.processor(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **versions()},
        "sciffusion": sciffusion.__version__,
    }


# What is shown -------------------------------------------------------------------------------------------------------


def table(report, names, budgets, problem="mixture"):
    """Markdown rows: RMSE / small-scale power over the exact at every number of calls, overhead."""
    lines = ["| sampler | " + " | ".join(f"{calls} calls" for calls in budgets) + " | µs per call |"]
    lines.append("|---" * (len(budgets) + 2) + "|")
    for name, row in report["samplers"].items():
        if name in names:
            results = [row[problem][str(calls)] for calls in budgets]
            cells = [f"{number(result['rmse'])} / {number(result['power'])}" for result in results]
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {row['overhead_us']:.0f} |")
    return "\n".join(lines)


def number(value):
    """Two or three digits that matter, no exponent."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}" if value >= 0.5 else f"{value:.2g}"


def verdict(report, budgets):
    """Our best and the best peer's error; the overhead of each method that both have."""
    rows, lines = report["samplers"], []
    for problem in ("field", "mixture"):
        for calls in map(str, budgets):
            errors = [(row[problem][calls]["rmse"], name) for name, row in rows.items() if name not in STOCHASTIC]
            mine, theirs = (
                min((pair for pair in errors if pair[1].startswith("sciffusion") == own), default=None)
                for own in (True, False)
            )
            lines.append(f"{problem}, {calls} calls: {describe(mine)}; best peer: {describe(theirs)}")
    for own, peers in SAME_METHOD.items():
        costs = [f"{name} {rows[name]['overhead_us']:.0f}" for name in (own, *peers) if name in rows]
        lines.append("overhead, us per call: " + ", ".join(costs))
    return "\n".join(lines)


def describe(best):
    """A name and its error."""
    return "none installed" if best is None else f"{best[1]} {best[0]:.2g}"


def plot(report, path):
    """Error and small-scale power against calls, on the mixture; the overheads' bars are the legend."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 5), layout="constrained", width_ratios=(1, 1, 0.7))
    shown = {name: colour for name, colour in SHOWN.items() if name in report["samplers"]}
    for name, colour in shown.items():
        mine, results = name.startswith("sciffusion"), report["samplers"][name]["mixture"]
        style = {"linestyle": "-", "marker": "o", "linewidth": 2.2} if mine else {"linestyle": "--", "marker": "x"}
        for axis, entry in zip(axes, ("rmse", "power"), strict=False):
            axis.plot([int(b) for b in results], [row[entry] for row in results.values()], color=colour, **style)
    axes[0].set(yscale="log", ylim=(8e-5, 2), title="RMSE to the exact solution (sd of the data: 1)")
    axes[1].set(ylim=(0.5, 1.5), title="small-scale power over the exact")
    ticks = [int(b) for b in next(iter(report["samplers"].values()))["mixture"]]
    for axis in axes[:2]:
        axis.set(xscale="log", xlabel="network calls (ours solid, other packages dashed)")
        axis.set_xticks(ticks, [str(b) for b in ticks])
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    axes[1].axhline(1.0, color="black", linewidth=0.8)
    axes[2].barh(list(shown), [report["samplers"][name]["overhead_us"] for name in shown], color=list(shown.values()))
    axes[2].bar_label(axes[2].containers[0], fmt="%.0f", padding=2, fontsize=8)
    axes[2].invert_yaxis()
    axes[2].margins(x=0.12)
    axes[2].set_title("host overhead per call, µs")
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--plot", type=Path, help="the picture; empty: solvers.png in DIR")
    parser.add_argument("--calls", type=int, nargs="+", default=[8, 12, 16, 24, 32])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=40, help="of the loops whose overhead is timed; the best counts")
    parser.add_argument("--table", type=Path, help="print the table of an earlier run and stop")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text()), SHOWN, TABLE))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    report = {**machine(), "samplers": measure(args.size, args.batch, args.calls, args.repeats)}
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "solvers.json").write_text(json.dumps(report, indent=1) + "\n")
    picture = args.plot or args.output / "solvers.png"
    plot(report, picture)
    print(table(report, report["samplers"], args.calls), verdict(report, args.calls), sep="\n\n")
    print(f"written: {args.output / 'solvers.json'}, {picture}")


if __name__ == "__main__":
    main()
