"""Run as a program: four processes generate and are ended by a signal at random moments, again and again, then not.

Goes on until ``kills`` processes were ended at work, and prints how they ended: by the signal, or by themselves on it.
The last ones hold after their first batch until the file ``open`` is beside the store.
"""

import random
import signal
import sys
from pathlib import Path

from tests.generation import children
from tests.generation.children import Held
from tests.generation.fake import conditions

MEMBERS, CASES, PROCESSES = 20, 8, 4
FREE = 2  # batches of three items in a round: in five rounds a process makes 30 of its 40 items at most


def start(path, *held):
    """All processes, with emulators that are ``held``."""
    work, options = (conditions(CASES), path, MEMBERS), {"batch_size": 3}
    return [children.fork(rank, PROCESSES, Held(*held), *work, **options) for rank in range(PROCESSES)]


def main(path, number, kills, seed):
    random.seed(seed)
    ends = []
    while len(ends) < kills:
        ends += children.disturbed(start(path, 0.15, FREE), number, within=0.4, early=random.randrange(2))
    failures = children.failures(start(path, 0.0, 1, path.with_name("open")))
    print(*ends)
    return failures


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), signal.Signals[sys.argv[2]], int(sys.argv[3]), int(sys.argv[4])))
