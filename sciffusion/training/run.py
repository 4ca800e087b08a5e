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
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.loggers import CSVLogger

import sciffusion
from sciffusion import config, stopping
from sciffusion.config import load_experiment
from sciffusion.datasets.pairs import ExperimentData, open_experiment
from sciffusion.emulator import Emulator
from sciffusion.errors import SciffusionError
from sciffusion.stages.base import Stage
from sciffusion.stages.build import build_baselines, build_stage
from sciffusion.stages.flowmap import FlowMapStage
from sciffusion.stopping import Stopped
from sciffusion.training.callbacks import Checkpoints, LogLines, StopOnSignal, last_checkpoint
from sciffusion.training.coding import AutoencoderModule, floors
from sciffusion.training.data import TrainingData
from sciffusion.training.denoising import DenoiserModule
from sciffusion.training.mapping import FlowMapModule
from sciffusion.training.module import StageModule
from sciffusion.training.regressing import RegressionModule
from sciffusion.training.teacher import teacher_of

__all__ = ["train"]

MODULES: dict[str, Callable[[Any, config.TrainSettings], StageModule]] = {
    "autoencoder": AutoencoderModule,
    "denoiser": DenoiserModule,
    "regression": RegressionModule,
}

log = logging.getLogger(__name__)
Config = str | Path | Mapping[str, Any] | config.Experiment


def train(
    experiment: Config, *, overrides: Sequence[str] = (), overwrite: bool = False, progress: bool | None = None
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

    Raises
    ------
    SciffusionError
        For settings or data that do not fit, before any training.
    KeyboardInterrupt, Stopped
        After Ctrl-C, or SIGTERM or SIGUSR1, once the state is saved.
    """
    with stopping.listening():
        return _train(experiment, overrides, overwrite, progress)


def _train(experiment: Config, overrides: Sequence[str], overwrite: bool, progress: bool | None) -> Emulator:
    settings = load_experiment(experiment, overrides)
    folder = _open_run(settings, overwrite)
    data, start = open_experiment(settings), time.monotonic()
    show = _interactive() if progress is None else progress
    stages: list[Stage] = []
    if (teacher := teacher_of(settings.stages[-1])) is not None:
        stages = list(teacher.earlier.values())
    for own in settings.stages[len(stages) :]:
        stages = _extended(stages, own, settings, data, folder, show)
    if _rank() == 0:
        _finish(settings, data, folder, stages, time.monotonic() - start)
    _wait_for(folder / "emulator" / "model.json")
    return Emulator.load(folder / "emulator")


def _extended(
    before: Sequence[Stage],
    own: config.Stage,
    settings: config.Experiment,
    data: ExperimentData,
    folder: Path,
    progress: bool,
) -> list[Stage]:
    """The chain with one more trained stage: read from the run folder where it was finished, or trained to its end."""
    done, earlier = folder / "stages" / own.name, {stage.name: stage for stage in before}
    experiment = _with_own(settings, own)
    if not _is_done(done, experiment.train.steps):
        stage = _prepared(experiment, own, data, folder / "prepared" / own.name, earlier)
        module, loaders = _module(own, stage, experiment.train), TrainingData(experiment, data, stage)
        checkpoints, stop = folder / "checkpoints" / own.name, StopOnSignal()
        trainer = _trainer(experiment.train, folder, own.name, stop, progress)
        trainer.fit(module, datamodule=loaders, ckpt_path=last_checkpoint(checkpoints), weights_only=True)
        if stop.stopped:
            raise KeyboardInterrupt if stop.interrupted else Stopped
        if trainer.is_global_zero:
            Emulator([*before, module.result()], {"recipe": settings.recipe, "steps": trainer.global_step}).save(done)
        trainer.strategy.barrier()
    return Emulator.load(done).stages


def _module(own: config.Stage, stage: Any, settings: config.TrainSettings) -> StageModule:
    """The training of a stage."""
    if own.kind == "flowmap":
        return FlowMapModule(stage, settings, teacher_of(own))
    return MODULES[own.kind](stage, settings)


def _is_done(path: Path, steps: int) -> bool:
    """Whether a stage was trained to its end, which a user may have moved further away."""
    return (path / "model.json").is_file() and int(Emulator.load(path).card["steps"]) >= steps


def _with_own(settings: config.Experiment, own: config.Stage) -> config.Experiment:
    """The experiment with the stage's own training settings laid over the common ones."""
    changes = own.train.model_dump(exclude_none=True)
    return settings.model_copy(update={"train": settings.train.model_copy(update=changes)})


def _finish(
    settings: config.Experiment, data: ExperimentData, folder: Path, stages: Sequence[Stage], seconds: float
) -> None:
    """Save the emulator and its baselines."""
    built = build_baselines(settings, data, stages[-1])
    codec = stages[0].codec.without_folds()
    for stage in stages:
        stage.codec = codec
    card = _card(settings, data, folder, seconds)
    if floor := floors(stages, data):
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
    temporary = folder / f".experiment.{os.getpid()}"
    temporary.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
    temporary.replace(path)
    return folder


RESUMABLE = {"train.steps", "train.devices", "train.workers", "train.validate_every", "train.nodes", "train.cache"}


def _difference(old: Any, new: Any, place: str = "") -> str:
    """Path of the first setting that differs and would change the result, or ''."""
    if place in RESUMABLE:
        return ""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        found = (_difference(old.get(k), new.get(k), f"{place}.{k}".lstrip(".")) for k in keys)
        return next((difference for difference in found if difference), "")
    return "" if old == new else place


def _prepared(
    settings: config.Experiment, own: config.Stage, data: ExperimentData, path: Path, earlier: Mapping[str, Stage]
) -> Any:
    """The untrained stage. The first process measures the statistics, the others wait for its file."""
    if _rank() == 0 and not (path / "model.json").is_file():
        log.info("stage %s: measuring statistics of %d training cases", own.name, len(data.cases["train"]))
        torch.manual_seed(settings.train.seed)
        teacher = teacher_of(own)
        if teacher is None:
            stage = build_stage(own, settings, data, earlier)
        else:
            assert isinstance(own, config.FlowMapStage)
            stage = FlowMapStage.of_teacher(own, teacher)
            earlier = teacher.earlier
        Emulator([*earlier.values(), stage], {"recipe": settings.recipe}).save(path)
    _wait_for(path / "model.json")
    return Emulator.load(path).stage


def _rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", 0))))


def _wait_for(path: Path) -> None:
    while not path.is_file():
        stopping.check()
        time.sleep(0.2)


def _trainer(
    settings: config.TrainSettings, folder: Path, stage: str, stop: StopOnSignal, progress: bool
) -> pl.Trainer:
    _hush_lightning()
    bar = [pl.callbacks.TQDMProgressBar()] if progress else [LogLines(settings.steps)]
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(settings.accelerator, settings.accelerator),
        devices=settings.devices,
        num_nodes=settings.nodes,
        plugins=_cluster(),
        strategy="auto",
        precision=settings.precision,
        max_steps=settings.steps,
        max_epochs=-1,
        val_check_interval=settings.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        logger=CSVLogger(str(folder), name="metrics", version=stage),
        callbacks=[Checkpoints(folder / "checkpoints" / stage, settings.validate_every), stop, *bar],
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _cluster() -> list[Any]:
    """Under srun: SLURM's own environment, without Lightning's requeueing, which would compete with the script's."""
    under_srun = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if under_srun else []


def _hush_lightning() -> None:
    """Keep its hints and the deprecations inside it from the terminal; what it warns of is still heard."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)


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
    steps = {name: Emulator.load(folder / "stages" / name).card["steps"] for name in trained}
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
