"""Drawing (case, member) items batch by batch, so that the device is never waited for.

Batches have a fixed size, the last one padded: an item's bytes do not depend on how many others are drawn. While a
batch is drawn, threads read the case that comes next and draw the next batch's noise, and earlier answers are on their
way to the host, where whoever wants them decodes them, in any thread.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion import config
from sciffusion.execution.cpu import physical_cores
from sciffusion.execution.transfer import Arriving
from sciffusion.stages.ahead import Ahead, Batch
from sciffusion.stages.base import Stage
from sciffusion.stages.items import Item, Prepared

__all__ = ["Drawn", "draws"]

Pair = tuple[int, int]  # case number, member
_NOISE_THREADS = 8  # at most


@dataclass(frozen=True)
class Drawn:
    """A batch that has been drawn: ``pairs`` says what is in it; ``items`` has the padding too."""

    stage: Stage
    pairs: Sequence[Pair]
    items: Sequence[Item]
    fields: Arriving

    def wait(self) -> None:
        """Return when the device has drawn it."""
        self.fields.wait()

    def arrays(self, row: int) -> dict[str, np.ndarray]:
        """Physical fields of pair number ``row``, (*channel dims, *grid) by variable, in the target's order of dims."""
        codec, fields = self.stage.codec, self._finished(row)
        decoded = codec.decode(fields, self.items[row].prepared.baseline)
        return {v.name: v.ordered(decoded[v.name][0], codec.grid.dims) for v in codec.variables}

    def datasets(self) -> Iterator[xr.Dataset]:
        """Physical fields, one Dataset (member, *case dims, *grid) per case, after waiting for them."""
        for number in dict.fromkeys(number for number, _ in self.pairs):
            rows = [row for row, (other, _) in enumerate(self.pairs) if other == number]
            members = [self.pairs[row][1] for row in rows]
            fields = torch.cat([self._finished(row) for row in rows])
            yield self.stage.decode(fields, self.items[rows[0]].prepared, members)

    def _finished(self, row: int) -> Tensor:
        """One item by itself: its last bits depend neither on the others nor on who asks."""
        one = slice(row, row + 1)
        return self.stage.finish(self.fields.wait()[one], self.items[one])

    def coarse_misfit(self, row: int, fields: Mapping[str, np.ndarray]) -> dict[str, float]:
        """See `Stage.coarse_misfit`; ``fields`` are those of pair number ``row``, as a reader gets them."""
        return self.stage.coarse_misfit(fields, self.items[row].prepared)


def draws(
    stage: Stage,
    prepare: Callable[[int], Prepared],
    pairs: Sequence[Pair],
    *,
    size: int,
    seed: int,
    sampler: config.Sampler | None,
) -> Iterator[Drawn]:
    """Draw ``pairs`` in batches of ``size``; ``prepare`` reads a case by its number, in another thread."""
    with _threads(1, "conditions") as reading, _threads(1, "batches") as planning, _noise_threads() as drawing:
        cases, ahead = _Cases(reading, prepare, pairs), Ahead(drawing, seed)

        def batch(first: int) -> Batch:
            part = pairs[first : first + size]
            prepared = cases.of(first, len(part))
            items = [Item(prepared[number], member) for number, member in part]
            made = Batch([*items, *[items[-1]] * (size - len(items))], ahead)
            made.begin()
            return made

        def begun(first: int) -> Future[Batch]:
            return planning.submit(batch, first) if first < len(pairs) else Future()

        coming = begun(0)
        for first in range(0, len(pairs), size):
            items = coming.result()
            if first:  # the first batch tells what noise the others will ask for
                coming = begun(first + size)
            fields = Arriving(stage.sample(items, seed=seed, sampler=sampler))
            if not first:
                coming = begun(size)
            yield Drawn(stage, pairs[first : first + size], items, fields)


@contextmanager
def _threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool that does not finish, at the end, what nobody waits for any more."""
    pool = ThreadPoolExecutor(count, f"sciffusion-{name}")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _noise_threads() -> AbstractContextManager[ThreadPoolExecutor]:
    return _threads(min(_NOISE_THREADS, physical_cores()), "noise")


class _Cases:
    """Cases of consecutive pairs: those of the current batch and the one after it, nothing else, are in memory."""

    def __init__(self, pool: ThreadPoolExecutor, prepare: Callable[[int], Prepared], pairs: Sequence[Pair]) -> None:
        self._pool, self._prepare = pool, prepare
        runs = [(number, len(list(run))) for number, run in groupby(number for number, _ in pairs)]
        self._numbers = [number for number, _ in runs]
        self._ends = list(accumulate(length for _, length in runs))
        self._read: dict[int, Future[Prepared]] = {}

    def of(self, first: int, count: int) -> Mapping[int, Prepared]:
        """The prepared cases of ``count`` pairs from ``first`` on, by number; the next one is begun."""
        here = range(bisect_right(self._ends, first), bisect_left(self._ends, first + count) + 1)
        wanted = range(here.start, min(here.stop + 1, len(self._ends)))
        self._read = {i: self._read.get(i) or self._pool.submit(self._prepare, self._numbers[i]) for i in wanted}
        return {self._numbers[i]: self._read[i].result() for i in here}
