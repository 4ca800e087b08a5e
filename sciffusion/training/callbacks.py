"""What happens around the steps: checkpoints that a kill cannot spoil, stopping on signals, log lines in batch jobs."""

import logging
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from sciffusion import stopping
from sciffusion.training.metrics import LOGGED

__all__ = ["Bar", "Checkpoints", "LogLines", "StopOnSignal", "last_checkpoint", "step_of"]

log = logging.getLogger(__name__)
KEPT = 2  # checkpoints; the older one serves if the newer is lost with its file system


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    found = sorted(folder.glob("step-*.ckpt"))
    return found[-1] if found else None


def step_of(checkpoint: Path | None) -> int:
    """Steps that were taken when it was saved; 0 without a checkpoint."""
    return int(checkpoint.stem.removeprefix("step-")) if checkpoint else 0


class Checkpoints(pl.Callback):
    """Save after every validation and at the end, under a temporary name that is renamed when complete.

    Without validation cases it is every ``every`` steps. What a validation found is in the checkpoint that follows it.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder = folder
        self.every = every
        folder.mkdir(parents=True, exist_ok=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save what the validation has seen."""
        self.save(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save at every ``every``-th step where nothing is validated."""
        if trainer.global_step % self.every == 0 and not trainer.val_dataloaders:
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save where training stopped, by itself or by a signal."""
        self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint of the present step, once, and drop those that are no longer needed."""
        path = self.folder / f"step-{trainer.global_step:09d}.ckpt"
        if path.exists():
            return
        temporary = self.folder / f".{path.name}.part"
        try:
            trainer.save_checkpoint(temporary, weights_only=False)
            if trainer.is_global_zero:
                temporary.replace(path)
        finally:
            if trainer.is_global_zero:
                temporary.unlink(missing_ok=True)
        if trainer.is_global_zero:
            for old in sorted(self.folder.glob("step-*.ckpt"))[:-KEPT]:
                old.unlink()
        trainer.strategy.barrier()


class StopOnSignal(pl.Callback):
    """SIGINT, SIGTERM and SIGUSR1 end training after the step in flight; a second one ends it at once.

    ``stopped`` is True on every process when any of them was told to stop before the last step.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.stopped = self.interrupted = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Take over the signals, from Lightning too, whose own handler of SIGTERM waits for the other processes."""
        self._previous = {number: signal.signal(number, self._handle) for number in self.SIGNALS}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop if any process was told to."""
        told = self.interrupted or stopping.requested()
        if trainer.strategy.reduce_boolean_decision(told, all=False):
            trainer.should_stop = True
            self.stopped = trainer.global_step < (trainer.max_steps or 0)
            if self.stopped and trainer.global_step % int(trainer.val_check_interval):
                trainer.limit_val_batches = 0  # Lightning validates at a stop, which an undisturbed training would not

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            stopping.receive(number, frame)
        elif self.interrupted:
            raise KeyboardInterrupt
        else:
            self.interrupted = True
            log.info("SIGINT: stopping after this step; the same command resumes")


class Bar(pl.callbacks.TQDMProgressBar):
    """Lightning's bar, with the loss of the first step and of every tenth."""

    def __init__(self) -> None:
        super().__init__()
        self._loss: dict[str, float] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Read the loss where it is to be shown, and move on."""
        if not self._loss or trainer.global_step % LOGGED == 0:
            self._loss = {"train/loss": float(outputs["loss"])}
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands behind the bar."""
        others = super().get_metrics(trainer, pl_module)
        others.pop("v_num", None)  # the end of the stage's name
        return self._loss | others


TOO_LITTLE = 1e-3  # share of a training that no time left can be told from


class LogLines(pl.Callback):
    """A line every ``every`` seconds with step, loss and the time left, for logs without a terminal.

    The first process writes it, for all: the loss is that of its own samples.
    """

    def __init__(self, every: float = 30.0) -> None:
        self.every = every
        self._start = self._last = 0.0
        self._first = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start the clock."""
        self._start = self._last = time.monotonic()
        self._first = pl_module.share

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log when it is time."""
        now, share = time.monotonic(), pl_module.share
        if not trainer.is_global_zero or (now - self._last < self.every and share < 1):
            return
        self._last = now
        done = share - self._first  # a step that compiled says nothing of those to come
        left = f"{(now - self._start) / done * (1 - share):.0f} s left" if done > TOO_LITTLE else "just begun"
        loss = float(outputs["loss"])
        end = f"{100 * share:.0f} % of the time" if pl_module.settings.minutes else f"of {trainer.max_steps}"
        log.info("step %d %s, loss %.4f, %s", trainer.global_step, end, loss, left)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the validation figures."""
        if not trainer.is_global_zero:
            return
        metrics = {k.removeprefix("validation/"): float(v) for k, v in trainer.callback_metrics.items() if "valid" in k}
        log.info(
            "validation at step %d: %s", trainer.global_step, ", ".join(f"{k} {v:.4f}" for k, v in metrics.items())
        )
