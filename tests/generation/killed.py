"""Run as a program: four processes generate and are ended by a signal at random moments, again and again, then not.

The processes are forked from this one, which has imported everything and started no thread: a kill costs no start-up.
Goes on until ``kills`` processes were ended at work, and prints how they ended: by the signal, or by themselves on it.
"""

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import sciffusion.generation.engine
from sciffusion.stopping import Stopped
from tests.generation.fake import FakeEmulator, conditions

MEMBERS, CASES, PROCESSES = 16, 8, 4


class Announcing(FakeEmulator):
    """Writes to ``pipe`` when it begins to draw, as long as somebody reads there."""

    pipe = -1

    def draws(self, *args, **kwargs):
        with contextlib.suppress(BrokenPipeError):
            os.write(self.pipe, b"!")
        yield from super().draws(*args, **kwargs)


def generate(path, rank, emulator):
    """What one process does: its share of the ensemble."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(PROCESSES), LOCAL_RANK=str(rank))
    options = {"batch_size": 3, "device": "cpu", "progress": False}
    sciffusion.generation.engine.generate(emulator, conditions(CASES), path, MEMBERS, **options)


def fork(path, rank, delay):
    """A process that generates: its number, and the end of a pipe where it says that it has begun."""
    here, there = os.pipe()
    child = os.fork()
    if child:
        os.close(there)
        return child, here
    os.close(here)
    emulator = Announcing(delay=delay)
    emulator.pipe = there
    try:
        generate(path, rank, emulator)
    except Stopped as stop:
        os._exit(stop.code)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(child, number):
    """Send ``child`` the signal; how it ended: "killed", "stopped", or "" when it was done already."""
    os.kill(child, number)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    return {0: "", Stopped().code: "stopped"}.get(os.WEXITSTATUS(status), "failed")


def disturbed(path, number):
    """One round: all processes end at random moments of their work, one of them perhaps while it prepares."""
    children = [fork(path, rank, 0.15) for rank in range(PROCESSES)]
    random.shuffle(children)
    early = random.randrange(2)
    ends = [ended(child, number) for child, _ in children[:early]]
    for _, pipe in children:
        os.read(pipe, 1)  # until it begins to draw, or ends
        os.close(pipe)
    start = time.monotonic()
    for (child, _), moment in zip(children[early:], sorted(random.uniform(0, 0.4) for _ in children), strict=False):
        time.sleep(max(0.0, start + moment - time.monotonic()))
        ends.append(ended(child, number))
    return list(filter(None, ends))


def main(path, number, kills, seed):
    random.seed(seed)
    ends = []
    while len(ends) < kills:
        ends += disturbed(path, number)
    children = [fork(path, rank, 0.0)[0] for rank in range(PROCESSES)]
    failures = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    print(*ends)
    return failures


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), signal.Signals[sys.argv[2]], int(sys.argv[3]), int(sys.argv[4])))
