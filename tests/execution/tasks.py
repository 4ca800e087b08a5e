"""What the worker processes of a test are told to do."""

import multiprocessing.connection
import os
import signal
import time
from itertools import count
from pathlib import Path

from speed_workers import alone


def act(task):
    if task == "raise":
        raise ValueError("told to")
    if task == "hang":
        Path(os.environ["HANGING"]).touch()
        while True:
            signal.pause()
    if task == "die":
        os._exit(3)
    return {"done": task}


class Clock:
    """Stands still but for the time that passes until the deadline of a task that hangs: stands in for ``time``."""

    now = 0.0

    def monotonic(self):
        return self.now

    def wait(self, connections, timeout):
        """Stands in for multiprocessing's."""
        hanging = Path(os.environ["HANGING"])
        while not (ready := multiprocessing.connection.wait(connections, 0.05)):
            if hanging.exists():
                hanging.unlink()
                self.now += timeout
                break
        return ready


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
