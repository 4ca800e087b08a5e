"""Training throughput: a bare loop shaped for the device, this package's training, and plain Lightning."""

import logging
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytorch_lightning as pl
import torch
from speed_networks import CHANNELS, UNETS
from speed_timing import wait
from speed_workers import alone
from torch import nn

import sciffusion as sf
from sciffusion import config
from sciffusion.context import Context
from sciffusion.datasets import write_problem
from sciffusion.diffusion.denoiser import Preconditioned
from sciffusion.diffusion.objectives import denoising_loss
from sciffusion.diffusion.sigmas import NoiseRange

Steps = tuple[int, int]  # not timed, timed
NOISE = NoiseRange(sigma_min=0.002, sigma_max=80.0, p_mean=-1.2, p_std=1.2, distribution="lognormal")


def _fields(count: int, grid: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.randn(count, 2 * CHANNELS, *grid, device=device)


def _loss(denoiser: nn.Module, fields: torch.Tensor) -> torch.Tensor:
    target, cond = fields.split(CHANNELS, dim=1)
    return denoising_loss(denoiser, target, Context(channels=cond), NOISE).mean()


def _result(steps: int, batch: int, spent: float) -> dict:
    return {"seconds": spent / steps, "batch": batch, "fields_per_s": steps * batch / spent}


def train_bare(
    network: nn.Module, batch: int, grid: Sequence[int], device: torch.device, steps: Steps, mode: str | None = None
) -> dict:
    """bf16, compiled (in a ``mode`` of torch's), channels_last, fused Adam, data on the device; all on GPUs only."""
    gpu, (warm, steps) = device.type == "cuda", steps
    network = network.train().to(device)
    if gpu:
        network = network.to(memory_format=torch.channels_last)
    denoiser = Preconditioned(torch.compile(network, dynamic=False, mode=mode) if gpu else network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=gpu)
    data = _fields(4 * batch, grid, device)

    def step(index: int) -> None:
        chosen = data[(index % 4) * batch :][:batch]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=gpu):
            loss = _loss(denoiser, chosen)
        loss.backward()
        optimizer.step()

    for index in range(warm):
        step(index)
    with alone():
        wait(device)
        start = time.perf_counter()
        for index in range(steps):
            step(index)
        wait(device)
        spent = time.perf_counter() - start
    return _result(steps, batch, spent)


class Clock(pl.Callback):
    """Times the steps after the first ``warm``, and notes where the last of those waits for the device."""

    def __init__(self, warm: int, device: torch.device) -> None:
        self.warm, self.device, self.start, self.spent = warm, device, 0.0, 0.0
        self.waits: list[str] = []
        self._alone = ExitStack()
        self._watch = warnings.catch_warnings(record=True)
        self._seen: list[warnings.WarningMessage] | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.warm - 1 and self.device.type == "cuda":
            self._seen = self._watch.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        if trainer.global_step == self.warm:
            self._note()
            self._alone.enter_context(alone())
            wait(self.device)
            self.start = time.perf_counter()

    def on_train_end(self, *_: object) -> None:
        wait(self.device)
        self.spent = time.perf_counter() - self.start
        self._alone.close()

    def _note(self) -> None:
        if self._seen is not None:
            torch.cuda.set_sync_debug_mode("default")
            found = [warning for warning in self._seen if "synchroniz" in str(warning.message)]
            self.waits = [f"{Path(warning.filename).name}:{warning.lineno}" for warning in found]
            self._watch.__exit__(None, None, None)

    def result(self, steps: int, batch: int) -> dict:
        return _result(steps, batch, self.spent) | ({"waits": self.waits} if self.device.type == "cuda" else {})


def train_package(network: str, batch: int, side: int, device: torch.device, steps: Steps) -> dict:
    """``sf.train`` of the recipe edm on Gaussian fields of 64^2, as users run it, compiled on GPUs."""
    if side != 64:
        raise ValueError("the problem has 64 x 64 cells")
    cases, (warm, steps) = 512 if device.type == "cuda" else 8, steps
    warm += cases // batch  # every case has been read
    clock = Clock(warm, device)
    with TemporaryDirectory() as folder:
        path = write_problem("grf", Path(folder) / "grf", cases=(cases, 2, 2), device=str(device), progress=False)
        changed = config.load_experiment(path, recipe="edm").model_dump(mode="json") | {"output": f"{folder}/run"}
        changed["stages"][0]["network"] = UNETS[network.removeprefix("unet-")].model_dump(mode="json")
        changed["train"] |= {"steps": warm + steps, "batch_size": batch, "validate_every": 10**6}
        changed["train"] |= {"compile": True} if device.type == "cuda" else {"accelerator": "cpu"}
        sf.train(config.load_experiment(changed), progress=False, callbacks=[clock])
    return clock.result(steps, batch)


def train_lightning(network: nn.Module, batch: int, grid: Sequence[int], device: torch.device, steps: Steps) -> dict:
    """What a Lightning user writes: bf16-mixed, eager, AdamW, a DataLoader over tensors on the host."""

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.denoiser = Preconditioned(network.train())

        def training_step(self, fields: list[torch.Tensor], index: int) -> torch.Tensor:
            return _loss(self.denoiser, fields[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-4)

    warm, steps = steps
    data = torch.utils.data.TensorDataset(_fields(8 * batch, grid, torch.device("cpu")))
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, pin_memory=device.type == "cuda")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    gpu = device.type == "cuda"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clock = Clock(warm, device)
        trainer = pl.Trainer(
            max_steps=warm + steps,
            max_epochs=-1,
            accelerator="gpu" if gpu else "cpu",
            devices=1,
            precision="bf16-mixed" if gpu else "32-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[clock],
        )
        trainer.fit(Module(), loader)
    return clock.result(steps, batch)
