"""Run as a program: two processes generate and are killed (-9) at random moments, again and again, then once whole.

The processes are forked from this one, which has imported everything and started no thread: a kill costs no start-up.
Prints how many processes died at work.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import sciffusion.generation
from tests.generation.fake import FakeEmulator, conditions

MEMBERS, CASES, PROCESSES = 8, 6, 2


def generate(path, rank, delay):
    """What one process does: its share of the ensemble."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(PROCESSES), LOCAL_RANK=str(rank))
    options = {"batch_size": 3, "device": "cpu", "progress": False}
    sciffusion.generation.generate(FakeEmulator(delay=delay), conditions(CASES), path, MEMBERS, **options)


def fork(path, rank, delay):
    child = os.fork()
    if child == 0:
        try:
            generate(path, rank, delay)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def killed_at_work(child, moment):
    """Kill ``child`` after ``moment`` seconds; whether it was still at work."""
    time.sleep(max(0.0, moment - time.monotonic()))
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(path, rounds, seed, delay):
    random.seed(seed)
    kills = 0
    for _ in range(rounds):
        start = time.monotonic()
        children = [fork(path, rank, delay) for rank in range(PROCESSES)]
        kills += sum(killed_at_work(child, start + random.uniform(0.05, 0.7)) for child in children)
    children = [fork(path, rank, 0.0) for rank in range(PROCESSES)]
    failures = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    print(kills)
    return failures


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
