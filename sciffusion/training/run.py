"""Training an experiment from its settings to a saved emulator, in a run folder that can be continued.

RUN/experiment.yaml   the settings, as used
RUN/prepared/         the untrained emulator: statistics measured once, by the first process
RUN/checkpoints/      the last steps
RUN/emulator/         the result
RUN/baselines/NAME/   what it has to beat, fitted on the same training cases
RUN/metrics/          losses per step as CSV; RUN/train.log
"""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

import sciffusion
from sciffusion import config, stopping
from sciffusion.config import load_experiment
from sciffusion.datasets.pairs import ExperimentData, open_experiment
from sciffusion.emulator import Emulator
from sciffusion.errors import SciffusionError
from sciffusion.stages.build import build_baselines, build_denoiser
from sciffusion.stages.denoiser import DenoiserStage
from sciffusion.stopping import Stopped
from sciffusion.training.callbacks import Checkpoints, LogLines, StopOnSignal, last_checkpoint
from sciffusion.training.data import TrainingData
from sciffusion.training.module import DenoiserModule

__all__ = ["train"]

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
    data = open_experiment(settings)
    stage = _prepared(settings, data, folder)
    module, loaders = DenoiserModule(stage, settings.train), TrainingData(settings, data, stage)
    stop = StopOnSignal()
    trainer = _trainer(settings.train, folder, stop, _interactive() if progress is None else progress)
    start = time.monotonic()
    trainer.fit(module, datamodule=loaders, ckpt_path=last_checkpoint(folder / "checkpoints"), weights_only=True)
    if stop.stopped:
        raise KeyboardInterrupt if stop.interrupted else Stopped
    if trainer.is_global_zero:
        built = build_baselines(settings, data, stage)
        emulator = Emulator([module.result()], _card(settings, data, trainer, time.monotonic() - start))
        emulator.save(folder / "emulator")
        for name, baseline in built.items():
            Emulator([baseline], emulator.card | {"recipe": name}).save(folder / "baselines" / name)
        log.info("the emulator is in %s", folder / "emulator")
    trainer.strategy.barrier()
    return Emulator.load(folder / "emulator")


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
        for old in (folder / "checkpoints").glob("*"):
            old.unlink()
        (folder / "prepared" / "model.json").unlink(missing_ok=True)
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


def _prepared(settings: config.Experiment, data: ExperimentData, folder: Path) -> DenoiserStage:
    """The untrained stage. The first process measures the statistics, the others wait for its file."""
    path = folder / "prepared"
    rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", 0))))
    if rank == 0 and not (path / "model.json").is_file():
        log.info("measuring statistics of %d training cases", len(data.cases["train"]))
        torch.manual_seed(settings.train.seed)
        Emulator([build_denoiser(settings, data)], {"recipe": settings.recipe}).save(path)
    while not (path / "model.json").is_file():
        stopping.check()
        time.sleep(0.2)
    stage = Emulator.load(path).stage
    assert isinstance(stage, DenoiserStage)
    return stage


def _trainer(settings: config.TrainSettings, folder: Path, stop: StopOnSignal, progress: bool) -> pl.Trainer:
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
        logger=CSVLogger(str(folder), name="", version="metrics"),
        callbacks=[Checkpoints(folder / "checkpoints", settings.validate_every), stop, *bar],
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _cluster() -> list[Any]:
    """Under srun: SLURM's own environment, without Lightning's requeueing, which would compete with the script's."""
    under_srun = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if under_srun else []


def _interactive() -> bool:
    return sys.stderr.isatty()


def _card(settings: config.Experiment, data: ExperimentData, trainer: pl.Trainer, seconds: float) -> dict[str, Any]:
    """What a reader of the model wants to know."""
    dim = settings.split.dim
    labels = {
        split: list(dict.fromkeys(str(case.labels[case.dims.index(dim)]) for case in cases)) if dim else []
        for split, cases in data.cases.items()
    }
    device = torch.cuda.get_device_name() if trainer.strategy.root_device.type == "cuda" else "CPU"
    return {
        "recipe": settings.recipe,
        "title": settings.title,
        "licence": settings.licence,
        "sciffusion": sciffusion.__version__,
        "torch": torch.__version__,
        "device": device,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds, 1),
        "steps": trainer.global_step,
        "split_dim": dim,
        "training_labels": labels["train"],
        "validation_labels": labels["validation"],
        "test_labels": labels["test"],
        "experiment": json.loads(settings.model_dump_json()),
    }
