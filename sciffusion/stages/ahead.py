"""Noise of a batch of items, drawn by several threads before it is asked for, where no GPU draws it.

What a batch asks for, and in which order, is learned from the batches before: a chain of stages and a stochastic solver
ask the same of every batch. While one batch is in the making, the noise of the next one is drawn, a bounded part of it
at a time. It is the noise of `Stage.host_noise`, whoever draws it and when.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciffusion.noise import CHUNK

if TYPE_CHECKING:
    from sciffusion.stages.base import Stage
    from sciffusion.stages.items import Item

__all__ = ["Ahead", "Batch", "Request"]

BUDGET = 1 << 29  # bytes of noise that are drawn ahead, but one field per item at least


@dataclass(frozen=True)
class Request:
    """The noise of one use: ``step`` of ``stream`` in ``stage``."""

    stage: "Stage"
    step: int
    stream: str


class Ahead:
    """Draws in the threads of ``pool``; ``asked`` are the requests of a batch in their order, as far as known."""

    def __init__(self, pool: ThreadPoolExecutor, seed: int) -> None:
        self.pool, self.seed = pool, seed
        self.asked: list[Request] = []


class Batch(list["Item"]):
    """Items that are drawn together, with their noise. To be used by one thread."""

    def __init__(self, items: Iterable["Item"], ahead: Ahead) -> None:
        super().__init__(items)
        self._ahead = ahead
        self._drawn: dict[Request, tuple[Tensor, Sequence[Future[None]]]] = {}
        self._next = 0  # place in ``asked`` of the first request that has not been begun

    @property
    def held(self) -> list[Request]:
        """What has been drawn, or is about to be, and was not fetched yet."""
        return list(self._drawn)

    def begin(self) -> None:
        """Begin with the noise that is asked for next, as far as there is room."""
        asked = self._ahead.asked
        while self._next < len(asked) and self._room(asked[self._next]):
            self._draw(asked[self._next])

    def noise(self, stage: "Stage", *, seed: int, step: int, stream: str) -> Tensor:
        """Noise (item, channel, *grid) of one use, in pinned memory where the stage is on a GPU."""
        if seed != self._ahead.seed:
            raise ValueError(f"a batch of seed {self._ahead.seed} has no noise of seed {seed}")
        request = Request(stage, step, stream)
        if request not in self._ahead.asked:
            self._ahead.asked.append(request)
        if request not in self._drawn:
            self._draw(request)
        noise, futures = self._drawn.pop(request)
        self.begin()
        for future in futures:
            future.result()
        return noise

    def _room(self, request: Request) -> bool:
        held = sum(noise.nbytes for noise, _ in self._drawn.values())
        return not self._drawn or held + self._bytes(request) <= BUDGET

    def _bytes(self, request: Request) -> int:
        return 4 * len(self) * torch.Size(request.stage.output_shape).numel()

    def _draw(self, request: Request) -> None:
        stage = request.stage
        noise = torch.empty(len(self), *stage.output_shape, pin_memory=stage.device.type == "cuda")
        rows = noise.numpy()

        def fill(part: slice) -> None:
            rows[part] = stage.host_noise(self[part], self._ahead.seed, request.step, request.stream)

        count = max(1, CHUNK // max(1, rows[0].size))  # small fields together: threads wait for Python less often
        parts = [slice(first, first + count) for first in range(0, len(self), count)]
        self._drawn[request] = noise, [self._ahead.pool.submit(fill, part) for part in parts]
        self._next = self._ahead.asked.index(request) + 1
