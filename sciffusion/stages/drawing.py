"""Drawing (case, member) items batch by batch, so that the device is never waited for.

Batches have a fixed size, the last one padded: an item's bytes do not depend on how many others are drawn. While a
batch is drawn, a thread reads the case that comes next, and earlier answers are on their way to the host, where
whoever wants them decodes them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, groupby

import numpy as np
import xarray as xr

from sciffusion import config
from sciffusion.execution.transfer import Arriving
from sciffusion.stages.base import Item, Prepared, Stage

__all__ = ["Drawn", "draws"]

Pair = tuple[int, int]  # case number, member


@dataclass(frozen=True)
class Drawn:
    """A batch that has been drawn: ``pairs`` says what is in it; ``items`` has the padding too."""

    stage: Stage
    pairs: Sequence[Pair]
    items: Sequence[Item]
    fields: Arriving

    def datasets(self) -> Iterator[xr.Dataset]:
        """Physical fields, one Dataset (member, *case dims, *grid) per case, after waiting for them."""
        fields = self.stage.finish(self.fields.wait(), self.items)
        for number in dict.fromkeys(number for number, _ in self.pairs):
            rows = [row for row, (other, _) in enumerate(self.pairs) if other == number]
            members = [self.pairs[row][1] for row in rows]
            yield self.stage.decode(fields[rows], self.items[rows[0]].prepared, members)

    def coarse_misfit(self, number: int, fields: Mapping[str, np.ndarray]) -> dict[str, float]:
        """See `Stage.coarse_misfit`; ``fields`` are of one member of case ``number``."""
        row = next(row for row, (other, _) in enumerate(self.pairs) if other == number)
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
    with ThreadPoolExecutor(1, "sciffusion-conditions") as pool:
        cases = _Ahead(pool, prepare, pairs)
        for first in range(0, len(pairs), size):
            batch = pairs[first : first + size]
            prepared = cases.of(first, len(batch))
            items = [Item(prepared[number], member) for number, member in batch]
            items += [items[-1]] * (size - len(items))
            yield Drawn(stage, batch, items, Arriving(stage.sample(items, seed=seed, sampler=sampler)))


class _Ahead:
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
