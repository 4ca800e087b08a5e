"""Precision of the network; the sampler's arithmetic around it stays in float32."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import torch

from sciffusion.errors import SciffusionError

__all__ = ["Precision", "autocast", "precision_name", "resolve_precision", "tf32"]

log = logging.getLogger("sciffusion")
Precision = Literal["auto", "float32", "bfloat16"]


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The dtype of the network's matrix products: "auto" is bfloat16 on GPUs with units for it, else float32.

    Raises SciffusionError for an unknown name.
    """
    if name not in get_args(Precision):
        raise SciffusionError(f"precision {name!r}", f"use one of {', '.join(get_args(Precision))}")
    if name == "float32":
        return torch.float32
    fast = _has_bfloat16(device)
    if name == "bfloat16" and not fast:
        log.info("%s has no bfloat16 units: bfloat16 will be slower than float32 here", device)
    return torch.bfloat16 if name == "bfloat16" or (fast and device.type == "cuda") else torch.float32


def precision_name(name: Precision, device: torch.device) -> str:
    """As `resolve_precision`, for people and files: float32 or bfloat16."""
    return str(resolve_precision(name, device)).removeprefix("torch.")


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
