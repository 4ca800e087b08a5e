"""Callbacks of a row's training: its turn on a device that rows share, its data at hand, a loss that is finite."""

import fcntl
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

__all__ = ["Finite", "Turn", "Warm"]

CHECKED = 200  # steps between looks at the loss


class Turn(pl.Callback):
    """The device for one row at a time, so that seconds of training mean the same for all.

    A row takes its turn when its first step, which compiles, is done, and gives it back when a stage is trained; as a
    context manager the same for sampling. It is a lock on a file, which dies with the process. ``seconds`` of training.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w")
        self._began: float | None = None
        self.seconds = 0.0

    def __enter__(self) -> "Turn":
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *error: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Wait for the turn."""
        if self._began is None:
            self.__enter__()
            self._began = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Let the next one train."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if self._began is not None:
            self.seconds += time.perf_counter() - self._began
            self._began = None
            self.__exit__()


class Warm(pl.Callback):
    """Reads all training cases while the first step compiles; a row does not train before they are there."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begin to read."""
        cases = trainer.datamodule.training  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=_read, args=(cases,), daemon=True)
        self._thread.start()

    def on_train_batch_end(self, *_: Any) -> None:
        """Wait for what is left."""
        self._thread.join()


def _read(cases: Any) -> None:
    if not cases.cached:
        return
    for data in (cases.data.target, *cases.data.conditions.values()):
        data.load()
    for number in range(len(cases)):
        cases[number]


class Finite(pl.Callback):
    """Ends a training whose loss is no number any more: nothing comes of it."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Look at the loss now and then; each look waits for the device."""
        if trainer.global_step % CHECKED == 0 and not torch.isfinite(outputs["loss"]):
            raise FloatingPointError(f"the loss is {float(outputs['loss'])} at step {trainer.global_step}")
