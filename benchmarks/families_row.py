"""One row of the family table: data, budget, training, sampling, scores."""

import argparse
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import sciffusion as sf
from sciffusion import config
from sciffusion.datasets import write_problem
from sciffusion.datasets.simulators import PROBLEMS, gaussian
from sciffusion.datasets.simulators.box import block_means
from sciffusion.emulator import Emulator
from sciffusion.execution.device import describe_device, resolve_device
from sciffusion.fields.open import open_source
from sciffusion.generation import held_out
from sciffusion.training.teacher import distilled

DISTILLED = {"progressive", "ect", "scd", "sct", "meanflow"}
SHORT, LONG = 30, 90  # steps of the runs that time a step
TOY = ["train.batch_size=4", "train.validation_members=0", "train.validation_cases=1"]


@dataclass(frozen=True)
class Row:
    """One recipe on one problem."""

    problem: str
    recipe: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.problem}-{self.recipe}-{self.seed}"


def measure(row: Row, args: argparse.Namespace) -> dict[str, Any]:
    """The row's numbers."""
    device = resolve_device(args.device)
    path = problem_path(row.problem, args, device)
    settings, output = experiment(row, path, args), args.work / "runs" / row.name
    steps = LONG if args.toy else affordable(settings, args.minutes * 60, args.work / "runs" / f"{row.name}-timing")
    started = time.perf_counter()
    emulator = train(settings, steps, output)
    minutes = (time.perf_counter() - started) / 60
    conditions, cases = chosen_cases(output, 4 if args.toy else args.cases)
    members = 4 if args.toy else args.members
    counted = Counted(emulator)
    started = time.perf_counter()
    ensemble = emulator.sample(conditions, members, cases=cases, seed=row.seed, device=str(device))
    seconds = time.perf_counter() - started
    drawn = members * int(np.prod([len(labels) for labels in cases.values()]))
    truth = open_source(settings.target.source, check=False).sel(cases)
    return {
        **asdict(row),
        **scores(row, ensemble, truth[list(ensemble.data_vars)].load(), output, conditions, cases),
        "calls_per_member": counted.samples / drawn,
        "seconds_per_member": seconds / drawn,
        "members": members,
        "cases": drawn // members,
        "training_minutes": minutes,
        "training_steps": steps,
        "parameters": sum(p.numel() for stage in emulator.stages for p in stage.parameters()),
        "device": describe_device(device),
        "torch": torch.__version__,
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "overrides": args.set,
    }


def problem_path(name: str, args: argparse.Namespace, device: torch.device) -> Path:
    """The experiment of the problem, simulated if need be."""
    if name == "era5":
        return Path(sf.__file__).parent / "datasets" / "era5_week.yaml"
    counts = (24, 4, 4) if args.toy else None
    return write_problem(name, args.work / f"{name}{'-toy' * args.toy}", cases=counts, device=device)


def experiment(row: Row, path: Path, args: argparse.Namespace) -> config.Experiment:
    """The problem's experiment with the recipe and the overrides of the command."""
    overrides = [f"train.seed={row.seed}", *args.set, *(TOY if args.toy else [])]
    if row.recipe not in DISTILLED:
        return config.load_experiment(path, overrides, row.recipe)
    teacher = args.work / "runs" / Row(row.problem, "edm", row.seed).name
    if not (teacher / "emulator").is_dir():
        measure(Row(row.problem, "edm", row.seed), args)
    return distilled(teacher, row.recipe, 2, str(args.work / "runs" / row.name), overrides)


def train(settings: config.Experiment, steps: int, output: Path) -> Emulator:
    changed = settings.model_dump(mode="json") | {"output": str(output.resolve())}
    changed["train"] |= {"steps": steps, "validate_every": max(steps // 6, 1)}
    return sf.train(config.load_experiment(changed), progress=False)


def affordable(settings: config.Experiment, budget: float, scratch: Path) -> int:
    """How many steps fit into ``budget`` seconds, by two short runs whose difference leaves out what is done once."""
    seconds = []
    for steps in (SHORT, SHORT, LONG):  # the first one pays for compilation and caches
        shutil.rmtree(scratch, ignore_errors=True)
        started = time.perf_counter()
        train(settings, steps, scratch)
        seconds.append(time.perf_counter() - started)
    shutil.rmtree(scratch, ignore_errors=True)
    per_step = max(seconds[2] - seconds[1], 1e-3) / (LONG - SHORT)
    return max(int((budget - (seconds[1] - SHORT * per_step)) / per_step), LONG)


def chosen_cases(output: Path, count: int) -> tuple[Any, dict[str, list[Any]]]:
    """Conditions of the run and about ``count`` of its test cases: trajectories or draws first, then times."""
    conditions, labels = held_out(output)
    chosen = {}
    for dim, values in (labels or {}).items():
        chosen[dim] = evenly(list(values), max(count, 1))
        count //= len(chosen[dim])
    return conditions, chosen


def evenly(values: list[Any], count: int) -> list[Any]:
    """``count`` of the values, evenly spread."""
    if count >= len(values):
        return values
    return [values[int(i)] for i in np.linspace(0, len(values) - 1, count).round()]


def scores(
    row: Row, ensemble: xr.Dataset, truth: xr.Dataset, output: Path, conditions: Any, cases: dict[str, list[Any]]
) -> dict[str, float]:
    """Means over variables of the ensemble's scores, its CRPS over that of the row's yardstick on the same truths."""
    yardstick = exact(row.problem, truth, ensemble.sizes["member"]) if row.problem.startswith("grf") else None
    if yardstick is None:
        linear = sf.load(output / "baselines" / "linear")
        yardstick = linear.sample(conditions, ensemble.sizes["member"], cases=cases, seed=1)
    coarse = coarse_of(conditions, cases, list(ensemble.data_vars)) if row.problem != "kolmogorov-coarse" else None
    found = sf.evaluate(ensemble, truth, baselines={"yardstick": yardstick}, coarse=coarse).scores
    own = found.isel(system=0)
    decibels = own["ralsd"].mean()
    return {
        "crps": float(own["crps"].mean()),
        "crps_ratio": float(found["crps_ratio"].mean()),
        "crps_ratio_by_variable": found["crps_ratio"].values.ravel().tolist(),
        "spread_skill": float(own["spread_skill"].mean()),
        "ralsd": float(decibels),
        "log_power_rms": float(decibels) * np.log(10) / 10,
        "yardstick_ralsd": float(found["ralsd"].isel(system=1).mean()),
        "coarse_rms": float(own["coarse_rms"].mean()) if coarse is not None else float("nan"),
    }


def exact(name: str, truth: xr.Dataset, members: int) -> xr.Dataset:
    """Draws of the exact posterior given the block means of the truth, as an ensemble."""
    problem = PROBLEMS[name]
    (variable,) = truth.data_vars
    fields = torch.from_numpy(truth[variable].transpose("sample", *problem.dims).values).double()[:, None]
    posterior = gaussian.BlockPosterior(gaussian.law(problem.shape, problem.settings["slope"]), problem.factor)
    means = block_means(fields, problem.factor, len(problem.shape))
    draws = posterior.sample(means, members, torch.Generator().manual_seed(1))[:, :, 0].float().numpy()
    dims = ("member", "sample", *problem.dims)
    return xr.Dataset(
        {variable: (dims, draws, truth[variable].attrs)}, coords={**truth.coords, "member": range(members)}
    )


def coarse_of(conditions: Any, cases: dict[str, list[Any]], variables: list[str]) -> xr.Dataset | None:
    """The coarse condition of the cases, where it has the target's variables."""
    data = conditions.get("coarse")
    if data is None or any(name not in data for name in variables):
        return None
    chosen: xr.Dataset = data[variables].sel({dim: labels for dim, labels in cases.items() if dim in data.dims})
    return chosen.load()


class Counted:
    """Counts the samples that pass through an emulator's networks (``network`` of every stage)."""

    def __init__(self, emulator: Emulator) -> None:
        self.samples = 0
        for stage in emulator.stages:
            network = next((m.network for m in stage.modules() if hasattr(m, "network")), None)
            if isinstance(network, torch.nn.Module):
                network.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.samples += len(inputs[0])


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
