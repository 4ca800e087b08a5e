"""What is done with a case once all its members are there: statistics, scores, and giving up members nobody asked for.

Every member is counted exactly once: it is read from the store, where its marker says that it is whole, and whatever a
kill interrupts is done again from there. All members of a case are read in the order of their numbers, so the result
does not depend on how many processes made them, nor when. The disk holds the members of the cases in progress.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciffusion import stopping
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.fields.locks import held
from sciffusion.fields.markers import FOLDER
from sciffusion.fields.reduced import Statistics
from sciffusion.generation.keep import QUANTILES, Keep
from sciffusion.generation.scoring import Scoring

__all__ = ["Closing"]

log = logging.getLogger("sciffusion")
BUDGET = 1 << 30  # bytes of members that are held at a time


class Closing:
    """Closes the cases of ``store``; without ``keep`` all members stay, without ``scoring`` nothing is scored."""

    def __init__(self, store: EnsembleStore, keep: Keep | None = None, scoring: Scoring | None = None) -> None:
        self.store, self.keep, self.scoring = store, keep, scoring
        self._pending: Counter[int] = Counter()
        self._statistics: Statistics | None = None
        if keep is not None:
            self._statistics = Statistics(store, keep.methods, keep.quantiles)
            self._statistics.make()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do with a case."""
        return self.keep is None and self.scoring is None

    def expect(self, items: Sequence[tuple[int, int]]) -> None:
        """Say which (case, member) items this process is going to make."""
        self._pending.update(case for case, _ in items)

    def item(self, case: int) -> None:
        """An item of ``case`` is complete; the last one of this process may be the last of all."""
        self._pending[case] -= 1
        if self._pending[case] == 0:
            self.close(case)

    def rest(self) -> bool:
        """Close what is left; whether every case of the store is closed. Raises Stopped when a signal asks to stop."""
        closed = True
        for case in range(0 if self.idle else self._count):
            stopping.check()
            closed &= self.close(case)
        return closed

    @property
    def _count(self) -> int:
        return int(np.prod(self.store.case_shape, dtype=int))

    def close(self, case: int) -> bool:
        """Close a case if all its members are complete and no other process is at it; whether it is closed."""
        if self.idle:
            return True
        lock = self.store.path / FOLDER / f".close-{case}-of-{self._count}.lock"  # finalise sweeps it
        with held(lock, without_locks=True) as mine:
            if not mine:
                return False
            if not self._closed(case):
                there = {member for _, member in self.store.markers.complete(case)}
                if not there.issuperset(self.store.members):
                    return False
                self._measure(case)
            self._drop(case)
        return True

    def _closed(self, case: int) -> bool:
        reduced = self._statistics is None or self._statistics.done(case)
        return reduced and (self.scoring is None or self.scoring.done(case))

    def _measure(self, case: int) -> None:
        if self.scoring is not None and not self.scoring.done(case):
            self.scoring.judge(case)
        if self._statistics is not None and self.keep is not None:
            self._statistics.write(case, {name: self._reduced(case, name) for name in self.store.variables})

    def _reduced(self, case: int, name: str) -> dict[str, NDArray[Any]]:
        """Statistics of one variable, by blocks of cells that fit the budget."""
        assert self.keep is not None
        parts = [self.keep.reduce(block) for block in self._blocks(case, name)]
        axis = {statistic: int(statistic == QUANTILES) for statistic in parts[0]}
        return {s: np.concatenate([part[s] for part in parts], axis=axis[s]) for s in parts[0]}

    def _blocks(self, case: int, name: str) -> Iterator[NDArray[Any]]:
        shape, itemsize = self.store.item(name)
        row = max(1, itemsize * int(np.prod(shape[1:], dtype=int)) * len(self.store.members))
        step = max(1, BUDGET // row)
        for first in range(0, shape[0], step):
            yield self.store.read(case, name, slice(first, first + step))

    def _drop(self, case: int) -> None:
        """Give up the members that are not kept."""
        if self.keep is None:
            return
        kept = set(self.store.members[: self.keep.members])
        for _, member in list(self.store.markers.complete(case)):
            if member not in kept:
                self.store.markers.reduce(case, member)
