"""What the worker processes of a test are told to do."""

import os
import time
from itertools import count
from pathlib import Path

from speed_workers import alone


def act(task):
    if task == "raise":
        raise ValueError("told to")
    if task == "hang":
        time.sleep(600)
    if task == "die":
        os._exit(3)
    return {"done": task}


def together(task):
    """``ahead`` counts in a file until it is told to stop; ``quiet`` looks whether it does while a clock runs."""
    name, folder = task
    counter, stop = Path(folder, "counter"), Path(folder, "stop")
    if name == "ahead":
        with alone():  # which stops nobody here
            pass
        for number in count():
            counter.write_text(str(number))
            if stop.exists():
                break
    if name == "quiet":
        while not counter.exists():
            time.sleep(0.01)
        with alone():
            seen = [(time.sleep(0.2), counter.read_bytes())[1] for _ in range(5)]
        before = counter.read_bytes()
        while counter.read_bytes() in (before, b""):  # it goes on
            time.sleep(0.01)
        stop.touch()
        return {"seen": len(set(seen))}
    return {"done": name}
