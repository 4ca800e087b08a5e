"""One stage after the other: measured, trained with those before it fixed, and kept in the run folder when done.

See `sciffusion.training.run` for the folder. A stage that is trained further takes those behind it along: what they
learnt from its former state is removed.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from sciffusion import config, stopping
from sciffusion.datasets.pairs import ExperimentData
from sciffusion.emulator import Emulator
from sciffusion.errors import SciffusionError
from sciffusion.stages.base import Stage
from sciffusion.stages.build import build_stage
from sciffusion.stages.flowmap import FlowMapStage
from sciffusion.stopping import Stopped
from sciffusion.training.callbacks import StopOnSignal, last_checkpoint
from sciffusion.training.coding import AutoencoderModule
from sciffusion.training.compiling import device_of
from sciffusion.training.data import TrainingData
from sciffusion.training.denoising import DenoiserModule
from sciffusion.training.mapping import FlowMapModule
from sciffusion.training.module import StageModule
from sciffusion.training.regressing import RegressionModule
from sciffusion.training.teacher import teacher_of
from sciffusion.training.trainer import make_trainer

__all__ = ["check_batches", "extended", "leads", "steps_of", "wait_for"]

log = logging.getLogger(__name__)
MODULES: dict[str, Callable[[Any, config.TrainSettings], StageModule]] = {
    "autoencoder": AutoencoderModule,
    "denoiser": DenoiserModule,
    "regression": RegressionModule,
}


def extended(
    before: Sequence[Stage],
    own: config.Stage,
    settings: config.Experiment,
    data: ExperimentData,
    folder: Path,
    progress: bool,
    callbacks: Sequence[pl.Callback] = (),
) -> list[Stage]:
    """The chain with one more trained stage: read from the run folder where it was finished, or trained to its end."""
    done, earlier = folder / "stages" / own.name, {stage.name: stage for stage in before}
    experiment = _with_own(settings, own)
    if not _is_done(done, experiment.train):
        stage = _prepared(experiment, own, data, folder / "prepared" / own.name, earlier)
        module, loaders = _module(own, stage, experiment.train), TrainingData(experiment, data, stage)
        checkpoints, stop = folder / "checkpoints" / own.name, StopOnSignal()
        trainer = make_trainer(experiment.train, folder, own.name, [stop, *callbacks], progress)
        trainer.fit(module, datamodule=loaders, ckpt_path=last_checkpoint(checkpoints), weights_only=True)
        if stop.stopped:
            raise KeyboardInterrupt if stop.interrupted else Stopped
        if trainer.is_global_zero:
            _outdate(folder, settings, own)
            card = {"recipe": settings.recipe, "steps": trainer.global_step, "minutes": experiment.train.minutes}
            Emulator([*before, module.result()], card).save(done)
        trainer.strategy.barrier()
    return Emulator.load(done).stages


def check_batches(settings: config.Experiment) -> None:
    """Raise SciffusionError where a stage's batches cannot be shared out evenly, as far as the settings tell."""
    for own in settings.stages:
        train = _with_own(settings, own).train
        world = train.nodes * train.devices if isinstance(train.devices, int) else 1
        if train.batch_size % max(1, world):
            what = f"train.batch_size {train.batch_size} is not a multiple of {world} processes"
            raise SciffusionError(what, "choose one that is")


def _module(own: config.Stage, stage: Any, settings: config.TrainSettings) -> StageModule:
    """The training of a stage."""
    if own.kind == "flowmap":
        return FlowMapModule(stage, settings, teacher_of(own))
    return MODULES[own.kind](stage, settings)


def _is_done(path: Path, wanted: config.TrainSettings) -> bool:
    """Whether a stage was trained to its end, which a user may have moved further away."""
    if not (path / "model.json").is_file():
        return False
    in_time = wanted.minutes is not None and (_card(path)["minutes"] or 0) >= wanted.minutes
    return in_time or steps_of(path) >= wanted.steps


def steps_of(path: Path) -> int:
    """Steps of the last stage in a folder of ``stages/``."""
    return int(_card(path)["steps"])


def _card(path: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((path / "model.json").read_text())["card"]
    return card


def _outdate(folder: Path, settings: config.Experiment, own: config.Stage) -> None:
    """Remove what later stages have learnt from an earlier state of this one."""
    names = [stage.name for stage in settings.stages]
    for name, part in product(names[names.index(own.name) + 1 :], ("prepared", "checkpoints", "stages")):
        shutil.rmtree(folder / part / name, ignore_errors=True)


def _with_own(settings: config.Experiment, own: config.Stage) -> config.Experiment:
    """The experiment with the stage's own training settings laid over the common ones."""
    changes = own.train.model_dump(exclude_none=True)
    return settings.model_copy(update={"train": settings.train.model_copy(update=changes)})


def _prepared(
    settings: config.Experiment, own: config.Stage, data: ExperimentData, path: Path, earlier: Mapping[str, Stage]
) -> Any:
    """The untrained stage. The first process measures the statistics, the others wait for its file."""
    if leads() and not (path / "model.json").is_file():
        log.info("stage %s: measuring statistics of %d training cases", own.name, len(data.cases["train"]))
        torch.manual_seed(settings.train.seed)
        teacher = teacher_of(own)
        if teacher is None:
            for before in earlier.values():  # they answer for many cases
                before.to(device_of(settings.train))
            stage = build_stage(own, settings, data, earlier)
        else:
            assert isinstance(own, config.FlowMapStage)
            stage = FlowMapStage.of_teacher(own, teacher)
            earlier = teacher.earlier
        Emulator([*earlier.values(), stage], {"recipe": settings.recipe}).save(path)
    wait_for(path / "model.json")
    return Emulator.load(path).stage


def leads() -> bool:
    """Whether this process is the first of those that train together, as whoever started them says.

    Without torchrun, which sets RANK, Lightning may start the others, within a step of SLURM too.
    """
    names = ("RANK",) if "RANK" in os.environ else ("SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
    return all(int(os.environ.get(name, "0")) == 0 for name in names)


def wait_for(path: Path) -> None:
    """Wait until another process has written ``path``."""
    while not path.is_file():
        stopping.check()
        time.sleep(0.2)
