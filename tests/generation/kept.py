"""Run as a program: three processes reduce an ensemble to statistics and are killed (-9), again and again, then two.

Prints how the killed ones ended.
"""

import random
import signal
import sys
from pathlib import Path

from tests.generation import children
from tests.generation.children import Held
from tests.generation.fake import conditions

FREE = 3  # items in a round: in four rounds a process makes 12 of its 16 at most, and two or three of four cases close


def start(path, keep, members, size, *held):
    work, options = (conditions(), path, members), {"batch_size": 1, "keep": keep}
    return [children.fork(rank, size, Held(*held), *work, **options) for rank in range(size)]


def main(path, keep, members):
    random.seed(1)
    ends = []
    for _ in range(4):
        ends += children.disturbed(start(path, keep, members, 3, 0.05, FREE), signal.SIGKILL, within=0.4)
    failures = children.failures(start(path, keep, members, 2, 0.0, float("inf")))
    print(*ends)
    return failures


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
