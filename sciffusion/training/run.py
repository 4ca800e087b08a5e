"""Training an experiment from its settings to a saved emulator, in a run folder that can be continued.

RUN/experiment.yaml     the settings, as used
RUN/prepared/STAGE/     the chain up to an untrained stage: statistics measured once, by the first process
RUN/checkpoints/STAGE/  the last steps
RUN/stages/STAGE/       the chain up to a stage that is trained
RUN/emulator/           the result
RUN/baselines/NAME/     what it has to beat, fitted on the same training cases
RUN/metrics/STAGE/      losses per step as CSV
RUN/sciffusion.log      what the command said

Stages are trained in order, each with those before it fixed.
"""

import json
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

import sciffusion
from sciffusion import config, stopping
from sciffusion.config import load_experiment
from sciffusion.datasets.pairs import ExperimentData, open_experiment
from sciffusion.emulator import Emulator
from sciffusion.errors import SciffusionError
from sciffusion.fields.output import write_text
from sciffusion.stages.base import Stage
from sciffusion.stages.baselines import build_baselines
from sciffusion.training.chain import check_batches, extended, leads, steps_of, wait_for
from sciffusion.training.coding import floors
from sciffusion.training.compiling import device_of
from sciffusion.training.teacher import teacher_of

__all__ = ["train"]

log = logging.getLogger(__name__)
Config = str | Path | Mapping[str, Any] | config.Experiment


def train(
    experiment: Config,
    *,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Emulator:
    """Train an experiment, or continue it where it stopped, and return its emulator.

    Parameters
    ----------
    experiment
        YAML path, mapping or settings; `overrides` are ``a.b=value`` strings applied on top.
    overwrite
        Start again in a run folder that holds another experiment.
    progress
        Show a progress bar; None shows it on a terminal.
    callbacks
        Of pytorch-lightning, for the training of every stage.

    Raises
    ------
    SciffusionError
        For settings or data that do not fit, before any training.
    KeyboardInterrupt, Stopped
        After Ctrl-C, or SIGTERM or SIGUSR1, once the state is saved.
    """
    with stopping.listening():
        return _train(experiment, overrides, overwrite, progress, callbacks)


def _train(
    experiment: Config,
    overrides: Sequence[str],
    overwrite: bool,
    progress: bool | None,
    callbacks: Sequence[pl.Callback],
) -> Emulator:
    settings = load_experiment(experiment, overrides)
    check_batches(settings)
    folder = _open_run(settings, overwrite)
    data, start = open_experiment(settings), time.monotonic()
    if not settings.train.workers:  # which would each get a copy
        data = data.in_memory()
    show = _interactive() if progress is None else progress
    stages: list[Stage] = []
    if (teacher := teacher_of(settings.stages[-1])) is not None:
        stages = list(teacher.earlier.values())
    for own in settings.stages[len(stages) :]:
        stages = extended(stages, own, settings, data, folder, show, callbacks)
    if leads():
        _finish(settings, data, folder, stages, time.monotonic() - start)
    wait_for(folder / "emulator" / "model.json")
    return Emulator.load(folder / "emulator")


def _finish(
    settings: config.Experiment, data: ExperimentData, folder: Path, stages: Sequence[Stage], seconds: float
) -> None:
    """Save the emulator and its baselines."""
    built = build_baselines(settings, data, stages[-1])
    codec = stages[0].codec.without_folds()
    for stage in stages:
        stage.codec = codec
    card = _card(settings, data, folder, seconds)
    if floor := floors(stages, data, device_of(settings.train)):
        card["reconstruction_floor"] = floor
    emulator = Emulator(stages, card)
    for name, baseline in built.items():
        Emulator([baseline], emulator.card | {"recipe": name}).save(folder / "baselines" / name)
    emulator.save(folder / "emulator")
    log.info("the emulator is in %s", folder / "emulator")


def _open_run(settings: config.Experiment, overwrite: bool) -> Path:
    """Create the run folder, or recognise it as this experiment's."""
    folder = Path(settings.output)
    path = folder / "experiment.yaml"
    if path.is_file() and not overwrite:
        differs = _difference(yaml.safe_load(path.read_text()), settings.model_dump(mode="json"))
        if differs:
            raise SciffusionError(
                f"{folder}: holds another experiment ({differs} differs)", "choose another output, or --overwrite"
            )
    elif path.is_file():
        for old in ("checkpoints", "prepared", "stages", "emulator"):
            shutil.rmtree(folder / old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
    return folder


RESUMABLE = {f"train.{name}" for name in ("steps", "minutes", "devices", "workers", "validate_every", "nodes", "cache")}


def _difference(old: Any, new: Any, place: str = "") -> str:
    """Path of the first setting that differs and would change the result, or ''."""
    if place in RESUMABLE:
        return ""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        found = (_difference(old.get(k), new.get(k), f"{place}.{k}".lstrip(".")) for k in keys)
        return next((difference for difference in found if difference), "")
    return "" if old == new else place


def _interactive() -> bool:
    return sys.stderr.isatty()


def _card(settings: config.Experiment, data: ExperimentData, folder: Path, seconds: float) -> dict[str, Any]:
    """What a reader of the model wants to know."""
    dim = settings.split.dim
    labels = {
        split: list(dict.fromkeys(str(case.labels[case.dims.index(dim)]) for case in cases)) if dim else []
        for split, cases in data.cases.items()
    }
    trained = [own.name for own in settings.stages if (folder / "stages" / own.name / "model.json").is_file()]
    steps = {name: steps_of(folder / "stages" / name) for name in trained}
    on_gpu = settings.train.accelerator != "cpu" and torch.cuda.is_available()
    return {
        "recipe": settings.recipe,
        "title": settings.title,
        "licence": settings.licence,
        "sciffusion": sciffusion.__version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds, 1),
        "steps": sum(steps.values()),
        "stage_steps": steps,
        "split_dim": dim,
        "training_labels": labels["train"],
        "validation_labels": labels["validation"],
        "test_labels": labels["test"],
        "experiment": json.loads(settings.model_dump_json()),
    }
