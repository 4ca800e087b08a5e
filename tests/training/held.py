"""Run as a program: the command line of sciffusion, but a training stays at its 13th step until a signal comes."""

import sys
import time

from sciffusion import stopping
from sciffusion.cli import main
from sciffusion.training.callbacks import StopOnSignal

STEP = 13
look = StopOnSignal.on_train_batch_end


def hold(self, trainer, *arguments):
    while trainer.global_step == STEP and not (self.interrupted or stopping.requested()):
        time.sleep(0.01)
    look(self, trainer, *arguments)


if __name__ == "__main__":
    StopOnSignal.on_train_batch_end = hold
    sys.exit(main())
