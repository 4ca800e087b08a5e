"""How the networks of a training are run: their layout, where compiling is worth its time, how, and the way back."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sciffusion import config
from sciffusion.errors import reason
from sciffusion.execution.accelerate import keep_compiled
from sciffusion.execution.device import resolve_device
from sciffusion.networks.layers import lay_out

__all__ = ["compile_networks", "device_of", "lay_out_networks", "repays", "uncompile"]

log = logging.getLogger(__name__)
LONG = 2000, 5.0  # steps and minutes from which a training repays compiling
RECORDED = 2**20  # cells of a batch up to which a GPU computes a step faster than the host launches its kernels


def device_of(settings: config.TrainSettings) -> torch.device:
    """Where the first process trains."""
    return resolve_device("cpu" if settings.accelerator == "cpu" else None)


def lay_out_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """In place, before averages and optimisers copy the layout. CPUs train wide networks faster as they are."""
    if device.type == "cuda":
        for network in networks:
            lay_out(network)


def repays(settings: config.TrainSettings, device: torch.device) -> bool:
    """Whether compiling is asked for, or is worth its time."""
    if settings.compile != "auto":
        return settings.compile
    (steps, minutes), limit = LONG, settings.minutes
    long = settings.steps >= steps and (limit is None or limit >= minutes)
    return long and device.type == "cuda"


def compile_networks(networks: Iterable[nn.Module], cells: int | None, device: torch.device) -> None:
    """In place: parameters keep their names.

    ``cells`` of a batch, where every step of one process calls each network once: small steps are replayed as CUDA
    graphs then, whose answers stand until the next call. None: never.
    """
    keep_compiled()
    graphs = cells is not None and cells <= RECORDED and device.type == "cuda"
    for network in networks:
        network.compile(dynamic=False, mode="reduce-overhead" if graphs else None)


def uncompile(networks: Iterable[Any], error: Exception) -> None:
    """Run the networks as they are, and say why in the log. Raises ``error`` where they do already."""
    compiled = [network for network in networks if network._compiled_call_impl is not None]
    if not compiled:
        raise error
    log.warning("not compiled (%s): the networks are trained eagerly", reason(error))
    for network in compiled:
        network._compiled_call_impl = None  # what nn.Module.compile sets: torch has no other way back
