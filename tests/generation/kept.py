"""Run as a program: three processes reduce an ensemble to statistics and are killed (-9), again and again, then two.

They are forked from this one, which has started no thread. Prints how many processes died at work.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from sciffusion.generation.engine import generate
from tests.generation.fake import FakeEmulator, conditions


def fork(path, keep, members, rank, size, delay):
    """A process of its own, as torchrun starts it."""
    child = os.fork()
    if child == 0:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
        status = 1
        try:
            options = {"batch_size": 1, "device": "cpu", "progress": False}
            generate(FakeEmulator(delay=delay), conditions(), path, members, keep=keep, **options)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def main(path, keep, members):
    random.seed(1)
    kills = 0
    for _ in range(4):
        children = [fork(path, keep, members, rank, 3, 0.05) for rank in range(3)]
        for child in children:
            time.sleep(random.uniform(0.1, 0.4))
            os.kill(child, signal.SIGKILL)
            kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    children = [fork(path, keep, members, rank, 2, 0.0) for rank in range(2)]
    failures = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    print(kills)
    return failures


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
