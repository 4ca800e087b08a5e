"""Compilation of the derivative that continuous-time distillation is trained by."""

import inspect
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.distillation import trajectory_derivative
from sciffusion.diffusion.flowmap import FlowMap
from sciffusion.errors import reason

__all__ = ["CompiledDerivative"]

log = logging.getLogger(__name__)


class CompiledDerivative:
    """`trajectory_derivative` compiled as a whole, map and product in one graph; as it is written where torch cannot.

    Keep one for all steps of a training: it remembers whether torch can.
    """

    def __init__(self) -> None:
        written = inspect.unwrap(trajectory_derivative)  # without its being always eager
        self._compiled: Callable[..., Tensor] | None = torch.compile(written, dynamic=False, fullgraph=True)

    def __call__(
        self, flow_map: FlowMap, x: Tensor, sigma: Tensor, sigma_to: Tensor, end: Tensor, cond: Context | None = None
    ) -> Tensor:
        """The derivative in the shape of x, detached."""
        if self._compiled is not None:
            try:
                return self._compiled(flow_map, x, sigma, sigma_to, end, cond)
            except RuntimeError as error:  # torch's own of compilation among them
                self._compiled = None
                log.warning("the derivative along trajectories is not compiled (%s)", reason(error))
        eager: Tensor = trajectory_derivative(flow_map, x, sigma, sigma_to, end, cond)
        return eager
