"""What a user gets by default at sampling time: the network in the form that its device runs fastest.

bf16 on GPUs (float32 answers), fp8 where asked for, baked weights in channels_last, a CUDA graph per shape, compilation
where the job is long enough to pay for it; a clean fallback, and one line in the log that says why.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from sciffusion.caches import cache_folder
from sciffusion.errors import reason
from sciffusion.execution.cpu import tune_cpu
from sciffusion.execution.graphs import Captured
from sciffusion.execution.precision import Precision, autocast, resolve_precision, runs_in_fp8, tf32
from sciffusion.networks.layers import bake

__all__ = ["Accelerated", "Execution", "accelerate", "keep_compiled"]

log = logging.getLogger("sciffusion")


@dataclass(frozen=True)
class Execution:
    """How to run. In bfloat16 and fp8, networks whose answer is the field itself stay float32 (TF32 on GPUs)."""

    precision: Precision = "auto"
    compile: bool = False
    graphs: bool = True


def accelerate(
    network: nn.Module,
    device: torch.device,
    execution: Execution | None = None,
    *,
    direct: bool = False,
    function: Callable[..., Any] | None = None,
) -> "Accelerated":
    """``network`` on ``device``, ready for many inference calls of ``function`` (default: of the network itself).

    ``direct`` says that its answer is the field itself, whose finest scales bfloat16 would drown. The parameters keep
    their precision and layout; normalised weights are cached in the module (`layers.bake`), so do this again after
    loading new weights, and call ``train()`` before using it otherwise.
    """
    execution = execution or Execution()
    if device.type == "cpu":
        tune_cpu()
    network = network.to(device)
    dtype = resolve_precision(execution.precision, device)
    rounded = dtype != torch.float32
    in_fp8 = execution.precision == "fp8" and not direct and runs_in_fp8(network, device)
    if direct:
        dtype = torch.float32
    bake(network, dtype, channels_last=True, in_fp8=in_fp8)
    return Accelerated(function or network, device, dtype, execution, allow_tf32=rounded)


class Accelerated(nn.Module):
    """A function of tensors in lower precision, compiled, recorded; answers in the dtype of its first argument."""

    def __init__(
        self,
        function: Callable[..., Any],
        device: torch.device,
        dtype: torch.dtype,
        execution: Execution,
        *,
        allow_tf32: bool,
    ) -> None:
        super().__init__()
        self.function = function
        self.device, self.dtype, self.execution, self.allow_tf32 = device, dtype, execution, allow_tf32
        self._fast: Callable[..., Any] = self._plain
        if execution.compile:
            self._fast = _Guarded(_compiled(self._plain), self._plain)
        if execution.graphs and device.type == "cuda":
            self._fast = Captured(self._fast)

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        """Call the function; where gradients are wanted (guidance), neither compiled nor recorded."""
        with tf32(self.allow_tf32, self.device):
            if torch.is_grad_enabled() and x.requires_grad:
                return self._plain(x, *args)
            with torch.no_grad():
                return cast(Tensor, self._fast(x, *args))

    def _plain(self, x: Tensor, *args: Any) -> Tensor:
        with autocast(self.dtype, self.device):
            answer: Tensor = self.function(x, *args)
        return answer.to(x.dtype)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    keep_compiled()
    return torch.compile(function, dynamic=False)


def keep_compiled() -> None:
    """From now on torch keeps compiled code in a cache on disk that outlives the process."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder("inductor")))


class _Guarded:
    """``fast`` until it fails for the first time, then ``plain``, saying so once."""

    def __init__(self, fast: Callable[..., Any], plain: Callable[..., Any]) -> None:
        self.fast, self.plain, self.broken = fast, plain, False

    def __call__(self, *args: Any) -> Any:
        if not self.broken:
            try:
                return self.fast(*args)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                self.broken = True
                log.warning("not compiled (%s): the network runs eagerly", reason(error))
        return self.plain(*args)
