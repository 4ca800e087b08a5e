"""One row of the family table: data, training, sampling, scores."""

import argparse
import math
import os
import subprocess
import tarfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import xarray as xr
import yaml
from families_gcm import GCM, gcm_path
from families_scores import coarse_of, exact_crps, scores, show, yardstick
from families_turn import Finite, Turn, Warm
from torch._dynamo.exc import TorchDynamoException
from torch.nn.modules.module import register_module_forward_pre_hook

import sciffusion as sf
from sciffusion import config
from sciffusion.datasets import PROBLEMS, write_problem
from sciffusion.emulator import Emulator
from sciffusion.execution.accelerate import Accelerated
from sciffusion.execution.device import describe_device, resolve_device
from sciffusion.fields.open import open_source
from sciffusion.generation import held_out
from sciffusion.training.teacher import distilled

__all__ = ["DISTILLED", "Row", "measure", "problem_path"]

DISTILLED = {"progressive", "ect", "scd", "sct", "meanflow"}
NEVER = 10**6  # steps: time ends a training
# Alike for all rows. The last average is that of the lowest learning rate. Of simulated data there is plenty, so that
# dropout would only cost; the week of ERA5 keeps its own.
COMMON = {
    "steps": NEVER,
    "validate_every": NEVER,
    "batch_size": 128,
    "keep": "last",
    "validation_members": 0,
    "validation_cases": 16,
    "devices": 1,
}
ON_GPU = {"compile": True}
TOY = {"steps": 90, "validate_every": 45, "batch_size": 4, "validation_cases": 1}
CELLS = 2**22  # of fields that are drawn at once on a GPU
LARGEST = 15 * 2**20  # bytes of a model's file that is kept


@dataclass(frozen=True)
class Row:
    """One recipe on one problem."""

    problem: str
    recipe: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.problem}-{self.recipe}-{self.seed}"

    @property
    def teacher(self) -> "Row | None":
        """The row whose emulator is distilled."""
        return Row(self.problem, "edm", self.seed) if self.recipe in DISTILLED else None

    def minutes(self, args: argparse.Namespace) -> float:
        """Its training time: of a distilled row a quarter, which the teacher's comes before."""
        return float(args.minutes if self.teacher is None else args.minutes / 4)

    def trained(self, args: argparse.Namespace) -> bool:
        """Whether its emulator is in the work folder."""
        return (run_folder(args, self) / "emulator" / "model.json").is_file()


@dataclass(frozen=True)
class Drawn:
    """Members of the test cases, with what it took to draw them."""

    ensemble: xr.Dataset
    conditions: Any
    cases: dict[str, list[Any]]
    samples: int  # that networks were called with
    seconds: float

    @property
    def members(self) -> int:
        return self.ensemble.sizes["member"]

    @property
    def count(self) -> int:
        """Of cases."""
        return math.prod(len(labels) for labels in self.cases.values())


def measure(row: Row, args: argparse.Namespace) -> dict[str, Any]:
    """The row's numbers. Writes its picture's fields and, if asked to, its emulator."""
    began, device = time.perf_counter(), resolve_device(args.device)
    settings = experiment(row, problem_path(row.problem, args, device), args, device)
    turn = Turn(args.work / f"turn-{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}.lock")
    print(f"{row.name}: training", flush=True)
    emulator = train(settings, [Warm(), turn, Finite()])
    print(f"{row.name}: trained for {turn.seconds:.0f} s, {emulator.card['stage_steps']} steps", flush=True)
    with turn.first():
        drawn = draw(row, emulator, args, device)
    print(f"{row.name}: {drawn.count * drawn.members} members in {drawn.seconds:.1f} s", flush=True)
    found = judged(row, emulator, settings, drawn, args)
    if (kept := kept_file(row, args)) is not None:
        keep(emulator, kept)
    times = {"training_minutes": turn.seconds / 60, "seconds_in_all": time.perf_counter() - began}
    return {**asdict(row), **found, **times, **provenance(emulator, args, device)}


def draw(row: Row, emulator: Emulator, args: argparse.Namespace, device: torch.device) -> Drawn:
    """Members of the test cases, and what they cost."""
    conditions, cases = chosen_cases(run_folder(args, row), 4 if args.toy else args.cases)
    members, count = 4 if args.toy else args.members, math.prod(len(labels) for labels in cases.values())
    how: Any = {"seed": row.seed, "device": str(device), "batch_size": at_once(emulator, members, count)}
    with Counted() as counted:
        started = time.perf_counter()
        ensemble = emulator.sample(conditions, members, cases=cases, **how)
        return Drawn(ensemble, conditions, cases, counted.samples, time.perf_counter() - started)


def judged(
    row: Row, emulator: Emulator, settings: config.Experiment, drawn: Drawn, args: argparse.Namespace
) -> dict[str, Any]:
    """Scores and costs of the members."""
    ensemble, names = drawn.ensemble, list(drawn.ensemble.data_vars)
    truth = open_source(settings.target.source, check=False).sel(drawn.cases)[names].load()
    means = row.problem != "kolmogorov-coarse"  # whether the coarse input is that of the truth
    reader: Any = emulator.stage.readers.get("coarse")
    coarse = coarse_of(reader, drawn.conditions, drawn.cases, names) if means else None
    other = yardstick(row.problem, truth, drawn.members, run_folder(args, row), drawn.conditions, drawn.cases)
    show(ensemble, truth, coarse, settings.target.dims, args.out / f"{row.name}.nc")
    total = drawn.count * drawn.members
    return {
        **scores(ensemble, truth, other, coarse, settings.target.periodic, exact_crps(row.problem, truth)),
        "calls_per_member": drawn.samples / total,
        "seconds_per_member": drawn.seconds / total,
        "members": drawn.members,
        "cases": drawn.count,
    }


def provenance(emulator: Emulator, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """How and where the emulator was trained."""
    card = emulator.card
    return {
        "minutes": args.minutes,
        "training_steps": card["stage_steps"],
        "training_cases": len(card["training_labels"]),
        "parameters": sum(p.numel() for stage in emulator.stages for p in stage.parameters()),
        "train": card["experiment"]["train"],
        "device": describe_device(device),
        "torch": torch.__version__,
        "commit": args.commit or commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "overrides": args.set,
    }


def train(settings: config.Experiment, callbacks: list[pl.Callback]) -> Emulator:
    """Compiled if asked for; eagerly where the compiler fails."""
    try:
        return sf.train(settings, progress=False, callbacks=callbacks)
    except TorchDynamoException as error:
        print(f"not compiled: {str(error).splitlines()[:1]}", flush=True)
        plain = settings.model_copy(update={"train": settings.train.model_copy(update={"compile": False})})
        return sf.train(plain, progress=False, callbacks=callbacks, overwrite=True)


def problem_path(name: str, args: argparse.Namespace, device: torch.device) -> Path:
    """The experiment of the problem, simulated if need be."""
    if name == "era5":
        return Path(sf.__file__).parent / "datasets" / "era5_week.yaml"
    if name in GCM:
        return gcm_path(name, args.gcm, args.work / name)
    counts = (24, 4, 4) if args.toy else None
    return write_problem(
        name, args.work / f"{name}{'-toy' * args.toy}", cases=counts, device=str(device), progress=False
    )


def run_folder(args: argparse.Namespace, row: Row) -> Path:
    return Path(args.work / "runs" / row.name).resolve()


def experiment(row: Row, path: Path, args: argparse.Namespace, device: torch.device) -> config.Experiment:
    """The problem's experiment with the recipe, what is common to all rows, and the overrides of the command."""
    output = run_folder(args, row)
    if row.teacher is None:
        settings = config.load_experiment(path, recipe=row.recipe)
    else:
        settings = distilled(teacher_folder(row.teacher, path, args, device), row.recipe, 2, str(output))
    changed = settings.model_dump(mode="json") | {"output": str(output)}
    trained = [stage for stage in changed["stages"] if row.teacher is None or stage["kind"] == "flowmap"]
    changed["train"] |= COMMON | {"seed": row.seed, "minutes": row.minutes(args) / len(trained)}
    changed["train"] |= ON_GPU if device.type == "cuda" else {"accelerator": "cpu"}
    for stage in changed["stages"] if row.problem in PROBLEMS else []:
        stage["network"]["dropout"] = 0.0
    if args.toy:
        changed["train"] |= TOY | {"minutes": None}
    return config.load_experiment(changed, args.set)


def teacher_folder(teacher: Row, path: Path, args: argparse.Namespace, device: torch.device) -> Path:
    """The run of a teacher: from this work folder, or unpacked from the kept emulators. Raises where there is none."""
    run, kept = run_folder(args, teacher), kept_file(teacher, args)
    if teacher.trained(args):
        return run
    if kept is None or not kept.is_file():
        raise FileNotFoundError(f"no emulator of {teacher.name} to distil: make its row first, or name --keep")
    with tarfile.open(kept) as archive:
        archive.extractall(run / "emulator", filter="data")
    settings = experiment(teacher, path, args, device)
    (run / "experiment.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
    return run


def kept_file(row: Row, args: argparse.Namespace) -> Path | None:
    return None if args.keep is None else Path(args.keep) / f"{row.name}.tar"


def keep(emulator: Emulator, path: Path) -> None:
    """The emulator in 16-bit floats as one file, unless that is too large to come back from a device machine."""
    with TemporaryDirectory() as temporary:
        files = sorted(emulator.save(Path(temporary) / path.stem, dtype=torch.bfloat16).iterdir())
        if sum(file.stat().st_size for file in files) > LARGEST:
            print(f"{path.stem}: too large to be kept", flush=True)
            return
        with tarfile.open(path, "w") as archive:
            for file in files:
                archive.add(file, file.name)


def at_once(emulator: Emulator, members: int, cases: int) -> int | None:
    """Members per batch on a GPU: whole cases, in batches of one size, so that hardly any is computed for nothing."""
    if not torch.cuda.is_available():
        return None
    cells = int(np.prod(emulator.stage.codec.grid.shape)) * len(emulator.stage.codec.channels)
    batches = math.ceil(cases / max(1, CELLS // (cells * members)))
    return members * math.ceil(cases / batches)


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


class Counted:
    """Counts, as a context, the samples that pass through networks where members are drawn."""

    samples = 0

    def __enter__(self) -> "Counted":
        self._hook = register_module_forward_pre_hook(self._count)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

    def _count(self, module: torch.nn.Module, inputs: Any) -> None:
        if isinstance(module, Accelerated):  # a recorded network itself is not called
            self.samples += len(inputs[0])


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
