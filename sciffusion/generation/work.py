"""The work of one process on a store: its own share of the items, then the shares of processes that are gone.

Whoever makes a share holds its lock, which the system frees when the process ends. A process that has finished takes
over shares that nobody holds; where the file system has no locks it leaves them to the next start.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sciffusion import stopping
from sciffusion.execution.cpu import keep_memory, one_core, physical_cores
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.fields.markers import COARSE_MISFIT
from sciffusion.generation.closing import Closing
from sciffusion.generation.processes import Process
from sciffusion.generation.progress import Progress
from sciffusion.generation.sizing import out_of_memory
from sciffusion.generation.writer import Writer
from sciffusion.stages.drawing import Drawn
from sciffusion.stopping import Stopped

__all__ = ["Work"]

log = logging.getLogger("sciffusion")
Item = tuple[int, int]  # case number, member
THREADS = 4  # decoding and writing, at most
_BATCHES = 2  # so many are drawn ahead of them


@dataclass(frozen=True)
class Work:
    """What there is to do in ``store``: the ``members`` of so many ``cases``.

    ``draw`` makes items; ``begin`` is called before the first one is made; ``closing`` is told of every item. With
    ``until``, a time of `time.monotonic`, the work ends there, and members are made one after the other for all cases.
    """

    store: EnsembleStore
    members: Sequence[int]
    cases: int
    draw: Callable[[Sequence[Item]], Iterable[Drawn]]
    begin: Callable[[], None]
    closing: Closing
    verify: bool = True
    progress: bool = True
    until: float | None = None

    def run(self, process: Process) -> None:
        """Make the missing items of ``process``, then those of others that have died."""
        with self.store.claim(process.name, own=True) as mine:
            if mine:
                self._make(process, self.verify)
            else:
                log.info("%s: another process is making this one's share", self.store.path)
        for other in process.others():
            if not self._over() and self._unmarked(other):
                with self.store.claim(other.name, own=False) as mine:
                    if mine:
                        log.info("%s: taking over the share of process %s", self.store.path, other.name)
                        self._make(other, False)

    def _share(self, process: Process) -> list[Item]:
        items = [(case, member) for case in range(self.cases) for member in self.members if process.mine(case, member)]
        return items if self.until is None else sorted(items, key=lambda item: self.members.index(item[1]))

    def _over(self, drawing: Drawn | None = None) -> bool:
        """Whether the time is up, once the batch in the making is there: a GPU would be batches behind its orders."""
        if self.until is None:
            return False
        if drawing is not None:
            drawing.wait()
        return time.monotonic() >= self.until

    def _unmarked(self, process: Process) -> bool:
        done = self._done()
        return any(item not in done for item in self._share(process))

    def _done(self) -> set[Item]:
        return set(self.store.markers.made())

    def _make(self, process: Process, verify: bool) -> None:
        own = self._share(process)
        todo = self._missing(own, verify)
        if todo:
            self.begin()
            self.closing.expect(todo)
            self._fill(todo, Progress(len(own), len(own) - len(todo), show=self.progress))

    def _missing(self, own: Sequence[Item], verify: bool) -> list[Item]:
        """Own items that are not complete, or whose files do not agree with their checksums."""
        done, there = self._done(), set(self.store.markers.complete())
        complete = [item for item in own if item in there]
        faults = self.store.verify(complete, checksums=verify)
        for fault in faults:
            log.warning("case %d, member %d: %s; it is made again", fault.case, fault.member, fault.what)
        self.store.withdraw(faults)
        whole = done.intersection(own) - {(fault.case, fault.member) for fault in faults}
        if whole:
            log.info("%d of %d items are complete already", len(whole), len(own))
        return [item for item in own if item not in whole]

    def _fill(self, todo: Sequence[Item], progress: Progress) -> None:
        """Draw; decode and write in other threads. After an interruption what was drawn is still written."""
        told = threading.Lock()

        def write(job: tuple[Drawn, int]) -> None:
            batch, row = job
            case, member = batch.pairs[row]
            arrays = batch.arrays(row)
            self.store.write(case, member, arrays, self._facts(batch, row, arrays))
            with told:
                progress.update(1)
                self.closing.item(case)

        depth = (_BATCHES if self.until is None else 1) * int(self.store.execution["batch_size"])
        try:
            with stopping.listening(), _writers(write, depth) as writer:
                for batch in self.draw(todo):
                    for row in range(len(batch.pairs)):
                        writer.put((batch, row))
                    stopping.check()
                    if self._over(batch):
                        break
        except torch.OutOfMemoryError:
            raise out_of_memory(self.store.execution["device"], self.store.execution["batch_size"]) from None
        except (KeyboardInterrupt, Stopped):
            left = int((~self.store.completed()).sum())
            what = "interrupted; %s is intact, %d items are missing: the same command goes on"
            log.warning(what, self.store.path, left)
            raise
        finally:
            progress.close()

    def _facts(self, batch: Drawn, row: int, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """How far an item that is rounded or packed will be from the coarse field that it has to reproduce."""
        if not self.store.storage.lossy:
            return {}
        misfit = batch.coarse_misfit(row, self.store.as_read(arrays))
        return {COARSE_MISFIT: misfit} if misfit else {}


def _writers(write: Callable[[tuple[Drawn, int]], None], depth: int) -> Writer[tuple[Drawn, int]]:
    """Threads that decode and write, each on one core and with the GPU of this thread."""
    keep_memory()
    torch.get_num_threads()  # this thread has its number of cores before the others take theirs
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]

    def begin() -> None:
        one_core()
        if gpu is not None:
            torch.cuda.set_device(gpu)

    return Writer(write, depth, min(THREADS, physical_cores()), begin)
