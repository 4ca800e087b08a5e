"""Tasks in processes of their own, so that one that hangs or breaks its GPU context costs its own time only."""

import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

SPAWN = get_context("spawn")
Function = Callable[[Any], dict[str, Any]]


def perform(
    function: Function, tasks: Sequence[Any], *, workers: int, limit: float, until: float
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield (task, ``function(task)``) as they are done; one that fails or takes ``limit`` seconds has an ``error``.

    A process goes on with the next task, except after an error. Nothing runs beyond ``until`` (of time.monotonic): a
    task that is then under way is not in the answer.
    """
    waiting, busy, idle = deque(tasks), {}, []
    try:
        while busy or (waiting and time.monotonic() < until):
            while waiting and len(busy) < workers and time.monotonic() < until:
                worker = idle.pop() if idle else Worker(function)
                busy[worker.connection] = (worker, waiting.popleft(), min(until, time.monotonic() + limit))
                worker.connection.send(busy[worker.connection][1])
            pause = max(0.0, min(deadline for _, _, deadline in busy.values()) - time.monotonic())
            for connection in wait(list(busy), timeout=pause):
                worker, task, _ = busy.pop(connection)
                result = worker.answer()
                if "error" in result:
                    worker.kill()
                else:
                    idle.append(worker)
                yield task, result
            now = time.monotonic()
            for connection in [key for key, (_, _, deadline) in busy.items() if now >= deadline]:
                worker, task, _ = busy.pop(connection)
                worker.kill()
                if now < until:
                    yield task, {"error": f"took more than {limit:.0f} s"}
    finally:
        for worker in [*idle, *(worker for worker, _, _ in busy.values())]:
            worker.kill()


class Worker:
    """A process that performs one task after the other."""

    def __init__(self, function: Function) -> None:
        self.connection, there = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(there, function))
        self.process.start()
        there.close()

    def answer(self) -> dict[str, Any]:
        """What it has sent."""
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
            return {"error": f"its process ended with code {self.process.exitcode}"}

    def kill(self) -> None:
        """End it and all processes that it has started (compilers)."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()


def _serve(connection: Connection, function: Function) -> None:
    os.setpgrp()
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            task = connection.recv()
            try:
                result = function(task)
            except Exception as error:  # a task that fails is a result: out of memory, a peer that is not installed
                traceback.print_exc(limit=-3)
                result = {"error": f"{type(error).__name__}: {error}"[:300]}
            connection.send(result)
