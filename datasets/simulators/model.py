"""What a simulated flow is: a state in Fourier space, a step, and the physical fields of a state."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from sciffusion.datasets.simulators.box import Box
from sciffusion.datasets.simulators.etdrk4 import ETDRK4
from sciffusion.errors import SciffusionError

__all__ = ["Model", "frames"]


class Model(Protocol):
    """A flow on a periodic box. States are modes (case, [channel,] *modes)."""

    box: Box
    step: ETDRK4

    def start(self, cases: Sequence[int], seed: int) -> Tensor:
        """Initial states, one per case, which depend on (seed, case) alone."""

    def fields(self, state: Tensor) -> Tensor:
        """Physical fields (case, channel, *shape)."""


def frames(model: Model, state: Tensor, steps: int, count: int) -> Iterator[Tensor]:
    """``count`` states, ``steps`` steps apart, the first one after as many. Raises SciffusionError for a blow-up."""
    for number in range(count):
        for _ in range(steps):
            state = model.step(state)
        if not bool(torch.isfinite(torch.view_as_real(state)).all()):
            raise SciffusionError(
                f"{type(model).__name__}: not finite after {number + 1} frames", "take shorter time steps"
            )
        yield state
