"""Training throughput: a bare loop shaped for the device, and the same network in plain Lightning."""

import logging
import time
import warnings
from collections.abc import Sequence

import torch
from speed_networks import CHANNELS
from torch import nn

from sciffusion.context import Context
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


def train_bare(network: nn.Module, batch: int, grid: Sequence[int], device: torch.device, steps: Steps) -> dict:
    """bf16, compiled, channels_last, fused Adam, data on the device; all of it on GPUs only."""
    gpu, (warm, steps) = device.type == "cuda", steps
    network = network.train().to(device)
    if gpu:
        network = network.to(memory_format=torch.channels_last)
    denoiser = Preconditioned(torch.compile(network, dynamic=False) if gpu else network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=gpu)
    data = _fields(4 * batch, grid, device)

    def step(index: int) -> None:
        chosen = data[(index % 4) * batch :][:batch]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=gpu):
            loss = _loss(denoiser, chosen)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    for index in range(warm):
        step(index)
    _wait(device)
    start = time.perf_counter()
    for index in range(steps):
        step(index)
    _wait(device)
    return _result(steps, batch, time.perf_counter() - start)


def train_lightning(network: nn.Module, batch: int, grid: Sequence[int], device: torch.device, steps: Steps) -> dict:
    """What a Lightning user writes: bf16-mixed, eager, AdamW, a DataLoader over tensors on the host."""
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.denoiser = Preconditioned(network.train())
            self.start, self.spent, self.done = 0.0, 0.0, 0

        def training_step(self, fields: list[torch.Tensor], index: int) -> torch.Tensor:
            return _loss(self.denoiser, fields[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-4)

        def on_train_batch_end(self, *_: object) -> None:
            if self.global_step == warm:
                _wait(device)
                self.start = time.perf_counter()

        def on_train_end(self) -> None:
            _wait(device)
            self.spent = time.perf_counter() - self.start

    warm, steps = steps
    data = torch.utils.data.TensorDataset(_fields(8 * batch, grid, torch.device("cpu")))
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, pin_memory=device.type == "cuda")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    gpu = device.type == "cuda"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = Module()
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
        )
        trainer.fit(module, loader)
    return _result(steps, batch, module.spent)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
