"""One row of the family table: training, sampling, scores."""

import argparse
import gc
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
import torch
import xarray as xr
from families_experiment import Row, experiment, kept_file, run_folder
from families_problems import prepared
from families_scores import coarse_of, exact_crps, rain, scores, show, yardstick
from families_turn import Finite, Turn, Warm
from torch.nn.modules.module import register_module_forward_pre_hook

import sciffusion as sf
from sciffusion import config
from sciffusion.emulator import Emulator
from sciffusion.execution.accelerate import Accelerated
from sciffusion.execution.device import describe_device, resolve_device
from sciffusion.fields.open import open_source
from sciffusion.generation import held_out

__all__ = ["measure"]

CELLS = 2**22  # of fields that are drawn at once on a GPU
LARGEST = 15 * 2**20  # bytes of a model's file that is kept


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
    path = prepared(row.problem, args.work, device, gcm=args.gcm, toy=args.toy)
    settings = experiment(row, path, args, device)
    turn = Turn(args.work / f"turn-{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}.lock", run_folder(args, row))
    print(f"{row.name}: training", flush=True)
    emulator = sf.train(settings, progress=False, callbacks=[Warm(), turn, Finite()])
    print(f"{row.name}: trained for {turn.seconds:.0f} s, {emulator.card['stage_steps']} steps", flush=True)
    make_room()
    with turn.first():
        drawn = draw(row, emulator, args, device)
    for stage in emulator.stages:
        stage.cpu()
    make_room()
    print(f"{row.name}: {drawn.count * drawn.members} members in {drawn.seconds:.1f} s", flush=True)
    found = judged(row, emulator, settings, drawn, args)
    if (kept := kept_file(row, args)) is not None:
        keep(emulator, kept)
    times = {"training_minutes": turn.seconds / 60, "seconds_in_all": time.perf_counter() - began}
    return {**asdict(row), **found, **times, **provenance(emulator, args, device)}


def draw(row: Row, emulator: Emulator, args: argparse.Namespace, device: torch.device) -> Drawn:
    """Members of the test cases, and what they cost."""
    conditions, cases = chosen_cases(run_folder(args, row), row.cases(args))
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
    grid = emulator.stage.codec.grid
    return {
        "rain": rain(ensemble, truth, grid.cell_area()) if names == ["tp"] else None,
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
        "reconstruction_floor": card.get("reconstruction_floor"),
        "parameters": sum(p.numel() for stage in emulator.stages for p in stage.parameters()),
        "train": card["experiment"]["train"],
        "device": describe_device(device),
        "torch": torch.__version__,
        "commit": args.commit or commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "overrides": args.set,
    }


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


def make_room() -> None:
    """Give the device's memory that is not in use back, for the rows beside this one."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
