"""Quality against time for solvers and numbers of network calls: what the default sampler is chosen by.

    python benchmarks/quality.py families-work/runs/grf-edm-0          # a run of families.py on the problem grf
    python benchmarks/quality.py RUN --solvers adams,heun --calls 10,20 --minutes 3
    python benchmarks/quality.py --plot docs/images/quality.png        # of the rows that there are

Every row draws ``--members`` members of ``--cases`` test cases with one solver, from the same start noise as all
others, so that rows differ by their solver alone. CRPS is over that of draws of the exact posterior, whose own
log-spectral distance (RALSD, of the mean power) is given too. Rows are kept in ``--out`` and not made again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
import xarray as xr
from families_row import at_once, chosen_cases, commit
from families_scores import yardstick
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

import sciffusion as sf
from sciffusion import config
from sciffusion.diffusion import solvers
from sciffusion.diffusion.sigmas import karras
from sciffusion.evaluation import crps, power_spectrum, ralsd
from sciffusion.execution.device import describe_device, resolve_device
from sciffusion.fields.open import open_source

SOLVERS = "adams,dpmpp-2m,dpmpp-3m,unipc,heun,euler,dpmpp-2m-sde,euler-maruyama"
CALLS = "4,6,8,12,16,20,28,40"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", nargs="?", type=Path, help="run folder of the problem grf, with its emulator and data in place")
    add("--solvers", default=SOLVERS)
    add("--calls", default=CALLS, help="network calls per member, at most")
    add("--cases", type=int, default=32)
    add("--members", type=int, default=32)
    add("--minutes", type=float, default=9.0, help="start no row after this time")
    add("--device", help="cpu or cuda; default: a GPU where there is one")
    add("--out", type=Path, default=Path(__file__).parent / "results" / "quality.json")
    add("--plot", type=Path)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.run is not None:
        measure(args)
    if args.plot is not None:
        plot(json.loads(args.out.read_text()), args.plot)


def measure(args: argparse.Namespace) -> None:
    """Make the rows that are missing, saving after each."""
    started, device = time.monotonic(), resolve_device(args.device)
    problem = Problem(args.run.resolve(), args.cases, args.members, device)
    known: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {"rows": {}}
    known |= {"run": args.run.name, "device": describe_device(device), "torch": torch.__version__, "commit": commit()}
    known |= {"cases": args.cases, "members": args.members, "exact": problem.scores(problem.exact)}
    own = problem.emulator.sampler()
    problem.draw(own.model_copy(update={"steps": 2}))  # records the network
    for solver in args.solvers.split(","):
        for calls in map(int, args.calls.split(",")):
            name, steps = f"{solver}/{calls}", steps_of(solver, calls)
            if name in known["rows"] or not steps or time.monotonic() - started > 60 * args.minutes:
                continue
            ensemble, seconds = problem.draw(own.model_copy(update={"solver": solver, "steps": steps}))
            row = {"solver": solver, "steps": steps, "calls": calls_of(solver, steps)}
            row |= {"seconds_per_member": seconds / (args.cases * args.members)} | problem.scores(ensemble)
            known["rows"][name] = row
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(known, indent=1))
            print(name, json.dumps(row), flush=True)


def steps_of(solver: str, calls: int) -> int:
    """The most steps that take at most ``calls`` network calls."""
    fitting = [n for n in range(1, calls + 1) if calls_of(solver, n) <= calls]
    return max(fitting, default=0)


def calls_of(solver: str, steps: int) -> int:
    """Network calls of so many steps, whatever their levels."""
    return solvers.plan(solver, karras(steps, 0.01, 80.0)).calls


class Problem:
    """Test cases of a run, their truths, and draws of the exact posterior."""

    def __init__(self, run: Path, cases: int, members: int, device: torch.device) -> None:
        self.emulator, self.members, self.device = sf.load(run / "emulator"), members, device
        self.conditions, self.cases = chosen_cases(run, cases)
        settings = config.load_experiment(run / "experiment.yaml")
        variables = [variable.name for variable in self.emulator.stage.codec.variables]
        self.truth = open_source(settings.target.source, check=False).sel(self.cases)[variables].load()
        self.periodic = settings.target.periodic
        self.exact = yardstick("grf", self.truth, members, run, self.conditions, self.cases)
        self.truth_power = self.power(self.truth)
        self.floor = self.crps(self.exact)

    @property
    def count(self) -> int:
        """Of cases."""
        return int(np.prod([len(labels) for labels in self.cases.values()]))

    def draw(self, sampler: config.Sampler, **how: Any) -> tuple[xr.Dataset, float]:
        """An ensemble, and the seconds that it took; ``how`` are further options of `Emulator.sample`."""
        size, started = at_once(self.emulator, self.members, self.count), time.perf_counter()
        ensemble = self.emulator.sample(
            self.conditions,
            self.members,
            cases=self.cases,
            seed=0,
            sampler=sampler,
            batch_size=size,
            device=str(self.device),
            **how,
        )
        return ensemble, time.perf_counter() - started

    def scores(self, ensemble: xr.Dataset) -> dict[str, float]:
        """CRPS over that of the exact posterior's draws, and RALSD in dB."""
        distance = ralsd(self.power(ensemble), self.truth_power)
        return {"crps_ratio": self.crps(ensemble) / self.floor, "ralsd": float(distance)}

    def crps(self, ensemble: xr.Dataset) -> float:
        """Mean over cases, cells and variables."""
        return float(crps(ensemble, self.truth).to_array().mean())

    def power(self, fields: xr.Dataset) -> xr.DataArray:
        """Mean power of the first variable by wavenumber."""
        power = power_spectrum(next(iter(fields.data_vars.values())), periodic=self.periodic)
        return power.mean([dim for dim in power.dims if dim != "wavenumber"])


def plot(known: dict[str, Any], path: Path) -> None:
    """CRPS and RALSD against seconds per member, a line per solver; the exact posterior's draws as a dashed line."""
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    rows = list(known["rows"].values())
    for place, solver in enumerate(dict.fromkeys(row["solver"] for row in rows)):
        mine = sorted((row for row in rows if row["solver"] == solver), key=lambda row: row["calls"])
        seconds = [1e3 * row["seconds_per_member"] for row in mine]
        for ax, score in zip(axes, ("crps_ratio", "ralsd"), strict=True):
            ax.plot(seconds, [row[score] for row in mine], "o-", ms=3, lw=1.2, color=f"C{place}", label=solver)
    for ax, score, label in zip(axes, ("crps_ratio", "ralsd"), ("CRPS / exact posterior", "RALSD (dB)"), strict=True):
        ax.axhline(known["exact"][score], color="0.3", lw=0.9, ls="--", label="exact posterior")
        best = min(row[score] for row in rows)
        worst = np.quantile([row[score] for row in rows], 0.75)  # few calls of a coarse solver are far off
        ax.set(xscale="log", xlabel="milliseconds per member", ylabel=label)
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_ylim(min(best, known["exact"][score]) - 0.05 * (worst - best), worst + 0.1 * (worst - best))
    axes[1].legend(fontsize=8, frameon=False)
    size = f"{known['cases']} cases x {known['members']} members"
    figure.suptitle(f"{known['run']}, {size}, {known['device']}, torch {known['torch']}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
