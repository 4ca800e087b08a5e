"""Stopping on a signal: batch systems send TERM or USR1 some time before they kill.

The first signal asks: the work goes on to its next good place and ends there by `Stopped`, with exit status 85, which
tells the batch script to queue the job again. A second one ends it at once. Only the standard library is imported
here, so that the handlers are in place before torch is.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["REQUEUE", "Stopped", "check", "listening", "receive", "requested"]

REQUEUE = 85  # exit status: stopped on request, what is complete is saved, the same command goes on
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

log = logging.getLogger("sciffusion")
_received: list[int] = []


class Stopped(SystemExit):
    """Work has ended on a signal; what is complete is saved. A script that does not catch it exits with 85."""

    def __init__(self) -> None:
        super().__init__(REQUEUE)


@contextmanager
def listening() -> Iterator[None]:
    """Take TERM and USR1 as requests while the block runs; within another such block, or a thread, nothing changes."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGUSR1) is receive:
        yield
        return
    _received.clear()
    previous = {number: signal.signal(number, receive) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def requested() -> bool:
    """Whether a signal has asked to stop."""
    return bool(_received)


def check() -> None:
    """Raise Stopped when a signal has asked to stop."""
    if _received:
        raise Stopped


def receive(number: int, frame: FrameType | None) -> None:
    """Handler of the signals: the first one is a request, the second raises Stopped where it comes."""
    _received.append(number)
    if len(_received) > 1:
        raise Stopped
    log.warning("%s: stopping at the next good place; the same command goes on", signal.Signals(number).name)
