"""Imported by every Python whose ``PYTHONPATH`` names this folder: programs of sciffusion wait at a gate.

A process writes one item, or trains for sixty steps, and then waits until it is asked to stop or its working directory
has the file ``open``. So a test finds it at work, on a machine of any speed.
"""

import sys
import time
from itertools import count
from pathlib import Path

FREE = {"generate": 1, "train": 60}  # passes of the gate before it closes
command = next((word for word in sys.orig_argv if word in FREE), "")


def gated(work):
    """``work``, at a gate."""
    from sciffusion import stopping

    passes = count(1)

    def wait(*arguments, **options):
        number = next(passes)  # of several threads
        while number > FREE[command] and not stopping.requested() and not Path("open").exists():
            time.sleep(0.05)
        return work(*arguments, **options)

    return wait


if "sciffusion" in sys.orig_argv and command == "generate":
    from sciffusion.fields.markers import Markers

    Markers.write = gated(Markers.write)
elif "sciffusion" in sys.orig_argv and command == "train":
    from sciffusion.training.callbacks import StopOnSignal

    StopOnSignal.on_train_batch_end = gated(StopOnSignal.on_train_batch_end)
