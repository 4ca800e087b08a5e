"""Distillation as an experiment: the teacher's data and settings, with a flow map in the place of its last stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sciffusion import config, yamltext
from sciffusion.config import load_experiment
from sciffusion.emulator import Emulator
from sciffusion.errors import SciffusionError
from sciffusion.stages.denoiser import DenoiserStage
from sciffusion.training.rounds import progressive_grid

__all__ = ["distilled", "teacher_of"]

# Shares of the teacher's rate. Targets that are the student's own answers move with it, and those of a derivative
# amplify what each step of the optimiser moves: at 3e-4 a network of 4.5 M parameters forgot its teacher.
RATES = {"ect": 1 / 3, "sct": 1 / 10, "scd": 1 / 10, "meanflow": 1 / 10}


def distilled(teacher: Path, method: str, steps: int, output: str, overrides: Sequence[str] = ()) -> config.Experiment:
    """The experiment that distils the last stage of a run into ``steps`` network calls by ``method``.

    It takes the teacher's data and settings, a quarter of its steps and time, its learning rate or the share of it in
    ``RATES``, no warm-up.
    """
    settings = load_experiment(teacher / "experiment.yaml").model_dump(mode="json")
    stage, own = Emulator.load(teacher).stage, settings["stages"][-1]
    if not isinstance(stage, DenoiserStage) or stage.kind != "denoiser":
        raise SciffusionError(f"{teacher}: its last stage is a {stage.kind}", "distil a run whose last stage denoises")
    shared = ("network", "parameterization", "inputs", "baseline", "shrinkage", "condition_dropout", "constraint")
    student = {name: own[name] for name in shared} | {
        "name": "flowmap",
        "kind": "flowmap",
        "objective": method,
        "teacher": str(teacher.resolve()),
        "sampler": {"steps": steps},
        "noise": {name: own["noise"][name] for name in ("sigma_min", "sigma_max", "dof")},
    }
    if method == "progressive":
        grid, rounds = progressive_grid(stage, steps)
        student["levels"] = grid[: -1 : 2**rounds].tolist()
    train = settings["train"]
    train |= {"steps": max(1, train["steps"] // 4), "minutes": train["minutes"] and train["minutes"] / 4}
    train |= {"learning_rate": train["learning_rate"] * RATES.get(method, 1.0), "warmup": 0}
    settings |= {"recipe": method, "output": output, "stages": [*settings["stages"][:-1], student], "train": train}
    for override in overrides:
        yamltext.apply_override(settings, override)
    return load_experiment(config.Experiment.model_validate(settings))


def teacher_of(own: config.Stage) -> Any:
    """The stage that a flow map is distilled from, as it was trained (with the folds of its training cases)."""
    path = getattr(own, "teacher", None)
    if path is None:
        return None
    stage = Emulator.load(path).stage
    trained = Path(path) / "stages" / stage.name
    return Emulator.load(trained).stage if (trained / "model.json").is_file() else stage
