"""Run as a program: processes generate until a deadline while others keep every core busy; says when what happened.

Prints JSON: for every process the moments, in seconds from its call of `generate`, at which it began each batch, at
which its last item was complete, and at which `generate` returned; and the seconds that it takes to put the members in
place once more.
"""

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.fields.excerpt import excerpt
from sciffusion.generation import generate
from tests.generation.fake import FakeEmulator, conditions

MEMBERS, CASES, PROCESSES = 200, 4, 2


class Timed(FakeEmulator):
    """Says when it begins a batch."""

    def __init__(self, **options):
        super().__init__(**options)
        self.begun = []

    def draws(self, *args, **kwargs):
        batches = super().draws(*args, **kwargs)
        while True:
            self.begun.append(time.monotonic())
            try:
                yield next(batches)
            except StopIteration:
                return


def burn(stop):
    while not stop.is_set():
        sum(range(10_000))


def make(path, rank, deadline, times):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(PROCESSES), LOCAL_RANK=str(rank))
    emulator, written, write = Timed(delay=0.25), [], EnsembleStore.write

    def timed(*args):
        write(*args)
        written.append(time.monotonic())

    EnsembleStore.write = timed
    data, start = conditions(CASES), time.monotonic()
    options = {"batch_size": 3, "device": "cpu", "progress": False, "deadline": deadline}
    generate(emulator, data, path, MEMBERS, **options)
    moments = [[moment - start for moment in some] for some in (emulator.begun, [max(written)], [time.monotonic()])]
    times.put(dict(zip(("begun", "written", "returned"), (moments[0], moments[1][0], moments[2][0]), strict=True)))


def main(path, deadline):
    context = multiprocessing.get_context("fork")
    stop, times = context.Event(), context.Queue()
    load = [context.Process(target=burn, args=(stop,), daemon=True) for _ in range(2 * (os.cpu_count() or 1))]
    work = [context.Process(target=make, args=(path, rank, deadline, times)) for rank in range(PROCESSES)]
    for process in (*load, *work):
        process.start()
    found = [times.get(timeout=120) for _ in work]
    start, store = time.monotonic(), EnsembleStore(path)
    excerpt(store, path.with_name("again.zarr"), store.members)
    publishing = time.monotonic() - start
    stop.set()
    for process in (*work, *load):
        process.join()
    print(json.dumps({"processes": found, "publishing": publishing}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
