"""What a row of the family table is, and its experiment: the problem's, with the recipe and what is common to all."""

import argparse
import math
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml
from families_problems import exclusive

from sciffusion import config, recipes
from sciffusion.datasets import PROBLEMS
from sciffusion.fields.open import open_source
from sciffusion.training.teacher import distilled

__all__ = ["DISTILLED", "Row", "experiment", "kept_file", "run_folder"]

DISTILLED = {"progressive", "ect", "scd", "sct", "meanflow"}
NEVER = 10**6  # steps: time ends a training
COMMON = {"steps": NEVER, "validation_members": 0, "validation_cases": 16, "devices": 1}
# Simulated data are plentiful: dropout would only cost, and the last average is that of the lowest learning rate.
# What was measured, or run for months by a GCM, is soon learnt by heart: validation says, as by default, what to keep.
SIMULATED = {"validate_every": NEVER, "keep": "last"}
ON_GPU = {"compile": True}
TOY = {"steps": 90, "validate_every": 45, "batch_size": 4, "validation_cases": 1}
BATCH = 2**19  # cells of a training batch: 128 fields of 64 x 64, 32 of 128 x 128
MANY = 100  # network calls per member from which a quarter of the cases has to do
VALUES = {name: math.prod(one.shape) * len(one.variables) for name, one in PROBLEMS.items()}  # of a field
VALUES |= {"gcm": 4 * 48 * 96, "gcm-window": 4 * 4 * 48 * 96}
FEW = 128**2  # of the week of ERA5, which has six test times for 64 cases


@dataclass(frozen=True)
class Row:
    """One recipe on one problem."""

    problem: str
    recipe: str
    seed: int

    @classmethod
    def named(cls, text: str) -> "Row":
        """The row of PROBLEM/RECIPE or PROBLEM/RECIPE/SEED."""
        problem, recipe, *seed = text.split("/")
        return cls(problem, recipe, int(seed[0]) if seed else 0)

    @property
    def name(self) -> str:
        return f"{self.problem}-{self.recipe}-{self.seed}"

    @property
    def teacher(self) -> "Row | None":
        """The row whose emulator is distilled."""
        return Row(self.problem, "edm", self.seed) if self.recipe in DISTILLED else None

    def minutes(self, args: argparse.Namespace) -> float:
        """Its training time; a teacher's comes before that of those which it teaches."""
        return float(args.minutes)

    @property
    def calls(self) -> int:
        """Network calls per member, as the recipe says."""
        return int(recipes.about(self.recipe)["cost"]["calls"])

    def cases(self, args: argparse.Namespace) -> int:
        """Test cases that members are drawn of."""
        if args.toy:
            return 4
        return int(args.cases if self.calls <= MANY else math.ceil(args.cases / 4))

    def seconds_after(self, args: argparse.Namespace) -> float:
        """What sampling and scoring take on an H100: as measured for 20 calls on `grf`, by the values drawn."""
        values = args.members * self.cases(args) * VALUES.get(self.problem, FEW)
        return 10 + values / 2.5e6 * (1 + self.calls / 20)

    def trained(self, args: argparse.Namespace) -> bool:
        """Whether its emulator is in the work folder."""
        return (run_folder(args, self) / "emulator" / "model.json").is_file()


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
    changed["train"]["batch_size"] = batch_size(settings)
    changed["train"] |= ON_GPU if device.type == "cuda" else {"accelerator": "cpu"}
    if row.problem in PROBLEMS:
        changed["train"] |= SIMULATED
        for stage in changed["stages"]:
            stage["network"]["dropout"] = 0.0
    if args.toy:
        changed["train"] |= TOY | {"minutes": None}
    return config.load_experiment(changed, args.set)


def batch_size(settings: config.Experiment) -> int:
    """As many cells for every problem, which take as much time and memory."""
    sizes, crop = open_source(settings.target.source, check=False).sizes, settings.train.crop
    cells = math.prod(min(sizes[dim], crop.get(dim, sizes[dim])) for dim in settings.target.dims)
    return max(1, BATCH // cells)


def teacher_folder(teacher: Row, path: Path, args: argparse.Namespace, device: torch.device) -> Path:
    """The run of a teacher: from this work folder, or unpacked from the kept emulators. Raises where there is none."""
    run, kept = run_folder(args, teacher), kept_file(teacher, args)
    if teacher.trained(args):
        return run
    if kept is None or not kept.is_file():
        raise FileNotFoundError(f"no emulator of {teacher.name} to distil: make its row first, or name --keep")
    with exclusive(args.work / f"{teacher.name}.lock"):  # several pupils begin at once
        if not teacher.trained(args):
            settings = experiment(teacher, path, args, device)
            run.mkdir(parents=True, exist_ok=True)
            (run / "experiment.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
            with tarfile.open(kept) as archive, TemporaryDirectory(dir=run) as temporary:
                archive.extractall(temporary, filter="data")
                Path(temporary).rename(run / "emulator")
    return run


def kept_file(row: Row, args: argparse.Namespace) -> Path | None:
    return None if args.keep is None else Path(args.keep) / f"{row.name}.tar"
