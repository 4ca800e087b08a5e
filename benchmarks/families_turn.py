"""Callbacks of a row's training: its turn on a device that rows share, its data at hand, a loss that is finite."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from sciffusion.datasets.resident import Resident

__all__ = ["Finite", "Turn", "Warm"]

CHECKED = 200  # steps between looks at the loss
READ = 64  # cases at once


class Turn(pl.Callback):
    """The device for one row at a time, so that seconds of training mean the same for all.

    A row takes its turn when its first step, which compiles, is done, and gives it back when a stage is trained.
    Sampling, which is short, comes before trainings that have not begun. Both are locks on files, which die with the
    process. ``seconds`` of training, with those of a run in ``folder`` that this one goes on with.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._device = path.open("w")
        self._short = path.with_suffix(".short").open("w")  # held, shared, by those who wait to sample
        self._began: float | None = None
        self._record = folder.with_suffix(".seconds")
        goes_on = folder.is_dir() and self._record.is_file()
        self.seconds = float(self._record.read_text()) if goes_on else 0.0

    @contextmanager
    def first(self) -> Iterator[None]:
        """The device for something short, before trainings that wait."""
        fcntl.flock(self._short, fcntl.LOCK_SH)
        fcntl.flock(self._device, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._device, fcntl.LOCK_UN)
            fcntl.flock(self._short, fcntl.LOCK_UN)

    def _take(self) -> None:
        """Wait until nobody uses the device or wants it for something short."""
        while True:
            fcntl.flock(self._short, fcntl.LOCK_EX)
            fcntl.flock(self._short, fcntl.LOCK_UN)
            try:
                return fcntl.flock(self._device, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Wait for the turn."""
        if self._began is None:
            self._take()
            self._began = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Let the next one train."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if self._began is not None:
            self.seconds += time.perf_counter() - self._began
            self._record.write_text(f"{self.seconds:.2f}")
            self._began = None
            fcntl.flock(self._device, fcntl.LOCK_UN)


class Warm(pl.Callback):
    """Brings all training cases to the device before the first step, where they are to be kept there."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Read."""
        batches = trainer.train_dataloader
        if isinstance(batches, Resident):
            draws = [batches.cases.space.plain(number) for number in range(len(batches.cases))]
            for first in range(0, len(draws), READ):
                batches.batch(draws[first : first + READ])


class Finite(pl.Callback):
    """Ends a training whose loss is no number any more: nothing comes of it."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Look at the loss now and then; each look waits for the device."""
        if trainer.global_step % CHECKED == 0 and not torch.isfinite(outputs["loss"]):
            raise FloatingPointError(f"the loss is {float(outputs['loss'])} at step {trainer.global_step}")
