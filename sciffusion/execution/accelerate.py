"""What a user gets by default at sampling time: the network in the form that its device runs fastest.

bf16 on GPUs (float32 answers), baked weights in channels_last, a CUDA graph per shape, compilation only for jobs that
are long enough to pay for it; a clean fallback, and one line in the log that says why.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from sciffusion.caches import cache_folder
from sciffusion.context import Context
from sciffusion.execution.cpu import tune_cpu
from sciffusion.execution.graphs import Captured
from sciffusion.execution.precision import Precision, autocast, resolve_precision
from sciffusion.networks.layers import bake

__all__ = ["Accelerated", "Execution", "accelerate"]

log = logging.getLogger("sciffusion")
WORTH_COMPILING = 20_000  # network calls; compiling takes a minute or two, and saves some ms per call


@dataclass(frozen=True)
class Execution:
    """How to run: ``compile`` "auto" compiles on CUDA when a job has at least ``WORTH_COMPILING`` calls."""

    precision: Precision = "auto"
    compile: Literal["auto", "always", "never"] = "auto"
    graphs: bool = True

    def compiles(self, device: torch.device, calls: int) -> bool:
        """Whether a job of ``calls`` network calls on ``device`` is compiled."""
        long = device.type == "cuda" and calls >= WORTH_COMPILING
        return self.compile == "always" or (self.compile == "auto" and long)


def accelerate(
    network: nn.Module, device: torch.device, execution: Execution | None = None, *, calls: int = 1
) -> "Accelerated":
    """``network`` on ``device``, ready for ``calls`` inference calls.

    The parameters keep their precision and layout; normalised weights are cached in the module (`layers.bake`), so
    load new weights or call ``train()`` before using it otherwise.
    """
    execution = execution or Execution()
    if device.type == "cpu":
        tune_cpu()
    network = network.to(device)
    dtype = resolve_precision(execution.precision, device)
    bake(network, dtype, channels_last=True)
    return Accelerated(network, device, dtype, execution, execution.compiles(device, calls))


class Accelerated(nn.Module):
    """A network ``(x, c_noise, cond)`` in lower precision, compiled, recorded; answers in the dtype of x."""

    def __init__(
        self, network: nn.Module, device: torch.device, dtype: torch.dtype, execution: Execution, compiled: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.device, self.dtype, self.execution = device, dtype, execution
        self._fast: Callable[..., Any] = _Guarded(_compiled(self._plain), self._plain) if compiled else self._plain
        if execution.graphs and device.type == "cuda":
            self._fast = Captured(self._fast)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Context | None = None) -> Tensor:
        """Call the network; where gradients are wanted (guidance), neither compiled nor recorded."""
        differentiated = torch.is_grad_enabled() and x.requires_grad
        call = self._plain if differentiated else self._fast
        return cast(Tensor, call(x, c_noise, cond))

    def _plain(self, x: Tensor, c_noise: Tensor, cond: Context | None) -> Tensor:
        with autocast(self.dtype, self.device):
            answer: Tensor = self.network(x, c_noise, cond)
        return answer.to(x.dtype)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile with a cache on disk that outlives the process."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder("inductor")))
    return torch.compile(function, dynamic=False)


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
                reason = (str(error).splitlines() or [""])[0][:200]
                log.warning("not compiled (%s: %s): the network runs eagerly", type(error).__name__, reason)
        return self.plain(*args)
