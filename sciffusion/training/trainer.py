"""The Lightning trainer of a stage."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from sciffusion import config
from sciffusion.execution.precision import resolve_precision
from sciffusion.training.callbacks import Bar, Checkpoints, LogLines, last_checkpoint, step_of
from sciffusion.training.compiling import device_of
from sciffusion.training.metrics import LOGGED, MetricsFile

__all__ = ["make_trainer"]


def make_trainer(
    settings: config.TrainSettings, folder: Path, stage: str, callbacks: Sequence[pl.Callback], progress: bool
) -> pl.Trainer:
    """A trainer of one stage of a run: checkpoints and metrics in its own folders, a bar or log lines."""
    _hush_lightning()
    checkpoints = folder / "checkpoints" / stage
    bar = [Bar()] if progress else [LogLines()]
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(settings.accelerator, settings.accelerator),
        devices=settings.devices,
        num_nodes=settings.nodes,
        plugins=_cluster(),
        strategy="auto",
        precision=_precision(settings),
        max_steps=settings.steps,
        max_epochs=-1,
        val_check_interval=settings.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=LOGGED,
        logger=MetricsFile(folder / "metrics" / stage / "metrics.csv", step_of(last_checkpoint(checkpoints))),
        callbacks=[Checkpoints(checkpoints, settings.validate_every), *callbacks, *bar],
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _precision(settings: config.TrainSettings) -> Any:
    """Lightning's name for it."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16-mixed" if resolve_precision("auto", device_of(settings)) == torch.bfloat16 else "32-true"


def _cluster() -> list[Any]:
    """Under srun: SLURM's own environment, without Lightning's requeueing, which would compete with the script's."""
    under_srun = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if under_srun else []


def _hush_lightning() -> None:
    """Keep its hints and the deprecations inside it from the terminal; what it warns of is still heard."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers")  # samples are kept in memory
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # `sciffusion submit` writes it
