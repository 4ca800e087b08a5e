"""Processes that generate and are ended at work, forked from one that has imported everything and started no thread.

They say when they begin to draw, draw ``free`` batches and hold until they are asked to stop, so that whoever ends
them finds them at work on a machine of any speed.
"""

import contextlib
import os
import random
import time
from pathlib import Path

from sciffusion import stopping
from sciffusion.generation.engine import generate
from tests.generation.fake import FakeEmulator


class Held(FakeEmulator):
    """Writes to ``pipe`` when it begins to draw; keeps the batch after the first ``free`` until ``gate`` exists."""

    def __init__(self, delay: float, free: float, gate: Path | None = None):
        super().__init__(delay=delay)
        self.free, self.gate, self.pipe, self.parent = free, gate, -1, os.getpid()

    def draws(self, *args, **kwargs):
        with contextlib.suppress(BrokenPipeError):  # whoever reads there may have read enough
            os.write(self.pipe, b"!")
        for count, batch in enumerate(super().draws(*args, **kwargs)):
            while count >= self.free and not self._released():
                time.sleep(0.01)
            yield batch

    def _released(self):
        orphan = os.getppid() != self.parent  # nobody is left to end it
        return orphan or stopping.requested() or (self.gate is not None and self.gate.exists())


def fork(rank, size, emulator, *work, **options):
    """A process that generates ``work``: its number, and the end of a pipe where it says that it has begun."""
    here, emulator.pipe = os.pipe()
    child = os.fork()
    if child:
        os.close(emulator.pipe)
        return child, here
    os.close(here)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    try:
        generate(emulator, *work, device="cpu", progress=False, **options)
    except stopping.Stopped as stop:
        os._exit(stop.code)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(child, number):
    """Send ``child`` the signal; how it ended: "killed", "stopped", or "done" when it did so by itself."""
    os.kill(child, number)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    return {0: "done", stopping.Stopped().code: "stopped"}.get(os.WEXITSTATUS(status), "failed")


def disturbed(children, number, within, early=0):
    """How ``children`` ended: in random order at random moments ``within`` seconds of when the last began to draw.

    The first ``early`` do so at once: perhaps while they prepare.
    """
    children = random.sample(children, len(children))
    ends = [ended(child, number) for child, _ in children[:early]]
    for _, pipe in children:
        os.read(pipe, 1)  # until it begins to draw, or ends
        os.close(pipe)
    start = time.monotonic()
    for (child, _), moment in zip(children[early:], sorted(random.uniform(0, within) for _ in children), strict=False):
        time.sleep(max(0.0, start + moment - time.monotonic()))
        ends.append(ended(child, number))
    return ends


def failures(children):
    """How many of those that nobody ended went wrong."""
    return sum(os.waitpid(child, 0)[1] != 0 for child, _ in children)
