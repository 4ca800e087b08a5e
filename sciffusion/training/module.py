"""A stage in training, whatever its kind: optimiser, average, checkpoints, validation; what is learnt is a subclass's.

Every random draw of a step is a function of (seed, step, rank): a run that is killed and resumed continues with the
same noise, dropout and data, so its weights are bitwise those of an undisturbed run, unless its time is limited.
"""

import math
import time
from contextlib import ExitStack
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from sciffusion import config
from sciffusion.datasets.training import TrainingCases
from sciffusion.diffusion.ema import EMA, gamma_of_halflife
from sciffusion.diffusion.objectives import almost_fair_crps
from sciffusion.stages.items import Item
from sciffusion.stages.networked import NetworkStage
from sciffusion.training.compiling import compile_networks, device_of, lay_out_networks, repays, uncompile
from sciffusion.training.metrics import LOGGED

__all__ = ["StageModule", "seed_step"]


class StageModule(pl.LightningModule):
    """A stage in training, and its exponential moving average, which is what is validated and kept.

    Subclasses give `loss` and `validation_losses`. Earlier stages of the chain are used as they are. ``steady`` says
    that every step calls the networks with as many samples: others would be compiled anew at each size. ``once`` says
    that a step calls each network once, so that what is compiled may be replayed as a CUDA graph: its answer stands
    until the next call.
    """

    steady: ClassVar[bool] = True
    once: ClassVar[bool] = False

    def __init__(self, stage: NetworkStage, settings: config.TrainSettings) -> None:
        super().__init__()
        lay_out_networks(stage.networks(), device_of(settings))
        self.stage = stage
        self.settings = settings
        self.ema = EMA(stage, gamma_of_halflife(settings.ema_halflife))
        self.best: dict[str, Any] = {"loss": math.inf, "step": 0, "weights": {}}
        self.spent = 0.0  # seconds of training that count
        self._clock: float | None = None
        self._averaged = ExitStack()
        self._figures: list[str] = []  # names of what validation finds, and its values by case
        self._validated: dict[int, list[float]] = {}

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """What is minimised, of one batch (see `datasets.training` for what a batch is)."""
        raise NotImplementedError

    def validation_losses(self, batch: dict[str, Any], number: int) -> dict[str, Tensor]:
        """Figures of validation case ``number``, without chance; ``loss`` among them chooses the weights to keep."""
        raise NotImplementedError

    def networks(self) -> list[Any]:
        """Those that a step calls, and that are worth compiling."""
        return list(self.stage.networks())

    # --- steps

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Drop the gradients before the forward pass, not after it: they need memory, and a graph writes anew there."""
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        """The loss of one batch."""
        seed_step(self.settings.seed, self.global_step, self.global_rank, self.device)
        try:
            loss = self.loss(batch)
        except TorchDynamoException as error:
            uncompile(self.networks(), error)
            return self.training_step(batch, index)
        if (
            self.global_step + 1
        ) % LOGGED == 0:  # as Lightning writes it; to log every one is an eighth of a small step
            self.log("train/loss", loss.detach())
        return loss

    def kept(self, batch: dict[str, Any], dropout: float = 0.0) -> Tensor:
        """Bool (batch,): the samples that keep their conditions."""
        if not dropout:
            return torch.ones(len(batch["z"]), dtype=torch.bool, device=self.device)
        return torch.rand(len(batch["z"]), device=self.device) >= dropout

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Clip the gradient here: Lightning refuses to where the optimiser is fused."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, self.settings.gradient_clip)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and take the weights into the average before anything can save a checkpoint."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update()

    @property
    def share(self) -> float:
        """Share of the training that is done: of its steps, or of its time where that is further on."""
        of_time = self.spent / (60 * self.settings.minutes) if self.settings.minutes else 0.0
        return min(1.0, max(self.global_step / self.settings.steps, of_time))

    @property
    def momentum(self) -> float:
        """Adam's beta1."""
        return 0.9

    def decay(self, done: float) -> float:
        """How far the learning rate has fallen, 0 to 1, when a share ``done`` of the training is over."""
        return done

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop when the time is over; the first process's clock is everybody's."""
        if self.settings.minutes is None:
            return
        now = time.monotonic()
        self.spent += 0.0 if self._clock is None else now - self._clock  # the first step compiles: not counted
        self._clock = now
        if self.trainer.world_size > 1:
            self.spent = self.trainer.strategy.broadcast(self.spent)
        self.trainer.should_stop |= self.share >= 1

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Figures of the averaged weights."""
        number = self.trainer.datamodule.share[index]  # type: ignore[attr-defined]
        figures = self.validation_losses(batch, number)
        whole = batch["z"].shape[2:] == self.stage.codec.grid.shape
        if self.stage.draws and self.settings.validation_members > 1 and whole:
            figures["crps"] = self._crps(batch)
        self._figures, self._validated[number] = list(figures), [float(value) for value in figures.values()]

    def _crps(self, batch: dict[str, Any]) -> Tensor:
        """Fair CRPS of a few members of one validation case, in units of the normalised target."""
        prepared = self.trainer.datamodule.prepared(int(batch["case"][0]))  # type: ignore[attr-defined]
        items = [Item(prepared, member) for member in range(self.settings.validation_members)]
        drawn = self.stage.sample(items, seed=self.settings.seed).cpu()
        ensemble = self.stage.finish(drawn, items).to(self.device)[:, None]
        return almost_fair_crps(ensemble, batch["z"], 1.0, batch["area"], batch["valid"]).mean()

    def on_fit_start(self) -> None:
        """Train mode, on windows, compiled if asked for; earlier stages fixed and on the device."""
        for stage in self.stage.earlier.values():
            stage.to(self.device).eval().requires_grad_(False)
        if self.steady and repays(self.settings, self.device):
            compile_networks(self.networks(), self._cells(), self.device)
        self.train()
        self._set_boundary(self.trainer.datamodule.training)  # type: ignore[attr-defined]

    def on_train_start(self) -> None:
        """Give what a checkpoint holds the layout of the weights, which another kind of device may have saved."""
        for optimizer in self.trainer.optimizers:
            for weight, state in optimizer.state.items():
                for name, value in state.items():
                    if value.shape == weight.shape:
                        state[name] = torch.empty_like(weight).copy_(value)

    def _cells(self) -> int | None:
        """Cells of a batch, where one process calls each network once a step."""
        space = self.trainer.datamodule.training.space  # type: ignore[attr-defined]
        cells = self.settings.batch_size * math.prod(space.size)
        return cells if self.once and self.trainer.world_size == 1 else None

    def _set_boundary(self, cases: TrainingCases) -> None:
        """Windows that are smaller than the grid end in mirrors, wherever the grid's own boundary is."""
        cut = [size < n for size, n in zip(cases.space.size, cases.space.shape, strict=True)]
        for stage in self.stage.chain:
            stage.set_cut(cut)

    def on_validation_start(self) -> None:
        """Validate the average, eagerly: compiling for single cases would take longer than they do."""
        self._averaged.enter_context(self.ema.swap())
        self._averaged.enter_context(torch.compiler.set_stance("force_eager"))
        self._set_boundary(self.trainer.datamodule.validation)  # type: ignore[attr-defined]
        self._validated = {}

    def on_validation_epoch_end(self) -> None:
        """Log the means, remember the average with the lowest loss, and go back to the weights in training."""
        means = self._means()
        for name, mean in means.items():  # the same everywhere; told so, Lightning does not warn
            self.log(f"validation/{name}", mean, prog_bar=name == "loss", sync_dist=True)
        if (loss := means["loss"]) < self.best["loss"]:
            weights = {name: value.detach().cpu().clone() for name, value in self.stage.state_dict().items()}
            self.best = {"loss": loss, "step": self.global_step, "weights": weights}
        self._averaged.close()  # the weights in training are back before a checkpoint is saved
        self._set_boundary(self.trainer.datamodule.training)  # type: ignore[attr-defined]

    def _means(self) -> dict[str, float]:
        """Means over the validation cases of all processes, each case once, in the order of the cases."""
        table = torch.zeros(self.trainer.datamodule.validated, len(self._figures), device=self.device)  # type: ignore[attr-defined]
        for number, values in self._validated.items():
            if number % self.trainer.world_size == self.global_rank:
                table[number] = torch.tensor(values)
        rows = self.trainer.strategy.reduce(table, reduce_op="sum").tolist()
        return dict(zip(self._figures, np.mean(rows, axis=0).tolist(), strict=True))

    def result(self) -> NetworkStage:
        """The stage with the weights to keep: the best average, or the last where nothing was validated."""
        keep_best = self.settings.keep == "best" and self.best["weights"]
        self.stage.load_state_dict(self.best["weights"] if keep_best else self.ema.average)
        for stage in self.stage.chain:
            stage.set_cut([False] * stage.codec.grid.rank)
        return self.stage.eval()

    # --- state

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the averages with the weights."""
        checkpoint["ema"], checkpoint["best"], checkpoint["spent"] = self.ema.state_dict(), self.best, self.spent

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the averages."""
        self.ema.load_state_dict(checkpoint["ema"])
        self.best, self.spent = checkpoint["best"], checkpoint["spent"]

    def configure_optimizers(self) -> Any:
        """Adam with linear warm-up and cosine decay to a hundredth, as far as `decay` says."""
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.stage.parameters(),
            lr=settings.learning_rate,
            betas=(self.momentum, 0.99),
            weight_decay=settings.weight_decay,
            fused=self.device.type == "cuda",
        )

        def rate(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, settings.warmup))
            done = self.share if settings.minutes else min(1.0, step / settings.steps)
            return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.decay(done))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seed the generators of the host and of ``device`` for one step; SeedSequence keeps neighbouring steps unrelated.

    ``torch.manual_seed`` would note the call stack for every kind of device that there is not, which takes a while.
    """
    words = np.random.SeedSequence([seed, step, rank]).generate_state(2, np.uint32)
    word = int(words[0]) << 31 | int(words[1]) >> 1
    torch.default_generator.manual_seed(word)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(word)
