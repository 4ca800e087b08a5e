"""Precision of the network; the sampler's arithmetic around it stays in float32."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Literal, get_args

import torch
from torch import nn

from sciffusion.errors import SciffusionError
from sciffusion.networks import fp8
from sciffusion.networks.layers import fp8_layers

__all__ = ["Precision", "autocast", "precision_name", "resolve_precision", "runs_in_fp8", "tf32"]

log = logging.getLogger("sciffusion")
Precision = Literal["auto", "float32", "bfloat16", "fp8"]


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The dtype of the network's matrix products: "auto" is bfloat16 on GPUs with units for it, else float32.

    What "fp8" leaves to others is in bfloat16. Raises SciffusionError for an unknown name.
    """
    if name not in get_args(Precision):
        raise SciffusionError(f"precision {name!r}", f"use one of {', '.join(get_args(Precision))}")
    if name == "float32":
        return torch.float32
    fast = _has_bfloat16(device)
    reduced = name in ("bfloat16", "fp8")
    if reduced and not fast:
        log.info("%s has no bfloat16 units: %s will be slower than float32 here", device, name)
    return torch.bfloat16 if reduced or (fast and device.type == "cuda") else torch.float32


def precision_name(name: Precision, device: torch.device, networks: Iterable[nn.Module] = ()) -> str:
    """What ``name`` comes to on ``device``, for people and files: float32, bfloat16, or fp8 where any of the
    ``networks`` runs in it.
    """
    if name == "fp8" and any(runs_in_fp8(network, device) for network in networks):
        return "fp8"
    return str(resolve_precision(name, device)).removeprefix("torch.")


def runs_in_fp8(network: nn.Module, device: torch.device) -> bool:
    """Whether ``network`` can run in fp8 on ``device``; where it cannot, the log says why, once."""
    none = f"this {type(network).__name__} has no layer for it"
    reason = fp8.refusal(device) if fp8_layers(network) else none
    if reason is not None:
        _say(reason)
    return reason is None


@cache
def _say(reason: str) -> None:
    log.warning("no fp8 (%s): bfloat16 instead", reason)


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products in ``dtype`` on ``device``; nothing for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype, cache_enabled=False)


@contextmanager
def tf32(allowed: bool, device: torch.device) -> Iterator[None]:
    """Whether a GPU may round the factors of float32 products to 10 bits (an error of 3e-4); others never do."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(supported())
