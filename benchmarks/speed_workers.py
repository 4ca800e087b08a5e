"""Tasks in processes of their own, so that one that hangs or breaks its GPU context costs its own time only.

One process measures, one task after the other. Others may compile ahead what later tasks need; while a clock runs
(`alone`) they are stopped, so that nothing of theirs reaches the GPU.
"""

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

SPAWN = get_context("spawn")
HOLD, GO = "hold", "go"  # what a process that measures asks for
SETTLE = 0.3  # seconds until the device has done what a stopped process had ordered
Function = Callable[[Any], dict[str, Any]]
_parent: Connection | None = None


def perform(
    function: Function,
    tasks: Sequence[Any],
    *,
    limit: float,
    until: float,
    ahead: Sequence[Any] = (),
    jobs: int = 0,
    needs: Callable[[Any], Any] = lambda task: None,
    fits: Callable[[Any, float], bool] = lambda task, left: left > 0,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield (task, ``function(task)``) as they are done; one that fails or takes ``limit`` seconds has an ``error``.

    Tasks are begun in their order, one at a time, but for those that need one of ``ahead`` that is not done yet: later
    ones go first. Tasks of ``ahead`` are done in ``jobs`` processes beside, within twice the limit. A process goes on
    with the next task, except after an error. A task for which not ``fits(task, seconds left)`` is left out; nothing
    runs beyond ``until`` (of time.monotonic): a task that is then under way is not in the answer.
    """
    main, side = Pool(function, 1, limit, until), Pool(function, jobs, 2 * limit, until)
    waiting, coming = list(tasks), list(ahead)
    try:
        while True:
            left = until - time.monotonic()
            waiting, coming = ([task for task in group if fits(task, left)] for group in (waiting, coming))
            while coming and side.free:
                side.begin(coming.pop(0))
            pending = [*coming, *side.tasks]
            ready = next((task for task in waiting if needs(task) not in pending), None)
            if ready is not None and main.free:
                waiting.remove(ready)
                main.begin(ready)
            if not main.tasks and not waiting:
                return
            yield from _answers(main, side)
    finally:
        main.close()
        side.close()


def _answers(main: "Pool", side: "Pool") -> Iterator[tuple[Any, dict[str, Any]]]:
    """What comes until the next deadline."""
    connections = [*main.busy, *side.busy]
    for connection in wait(connections, timeout=min(main.pause(), side.pause())):
        pool = main if connection in main.busy else side
        answer = pool.busy[connection][0].answer()
        if answer == HOLD:  # those beside stop nobody, least of all themselves
            connection.send(pool is main and side.hold(True))
        elif answer == GO:
            side.hold(side.held and pool is side)
        else:
            yield pool.end(connection, answer)
    yield from (*main.late(), *side.late())
    if not main.busy:
        side.hold(False)


class Pool:
    """At most ``size`` processes, each with one task at a time."""

    def __init__(self, function: Function, size: int, limit: float, until: float) -> None:
        self.function, self.size, self.limit, self.until = function, size, limit, until
        self.busy: dict[Connection, tuple[Worker, Any, float]] = {}
        self.idle: list[Worker] = []
        self.held = False

    @property
    def free(self) -> bool:
        return len(self.busy) < self.size and not self.held

    @property
    def tasks(self) -> list[Any]:
        return [task for _, task, _ in self.busy.values()]

    def begin(self, task: Any) -> None:
        worker = self.idle.pop() if self.idle else Worker(self.function)
        self.busy[worker.connection] = (worker, task, min(self.until, time.monotonic() + self.limit))
        worker.connection.send(task)

    def end(self, connection: Connection, result: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        worker, task, _ = self.busy.pop(connection)
        if "error" in result:
            worker.kill()
        else:
            self.idle.append(worker)
        return task, result

    def pause(self) -> float:
        """Seconds to the next deadline."""
        return max(0.0, min((deadline for _, _, deadline in self.busy.values()), default=self.until) - time.monotonic())

    def late(self) -> list[tuple[Any, dict[str, Any]]]:
        """End what is beyond its deadline; those that ``limit`` ended are results."""
        now = time.monotonic()
        over = [connection for connection, (_, _, deadline) in self.busy.items() if now >= deadline]
        ended = [self.end(connection, {"error": f"took more than {self.limit:.0f} s"}) for connection in over]
        return ended if now < self.until else []

    def hold(self, held: bool) -> bool:
        """Stop its processes, or let them go on; whether there are any that work."""
        for worker in (
            self._workers if held != self.held else ()
        ):  # one that is idle may have been stopped before it was
            worker.hold(held)
        self.held = held
        return bool(self.busy)

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()

    @property
    def _workers(self) -> list["Worker"]:
        return [*self.idle, *(worker for worker, _, _ in self.busy.values())]


class Worker:
    """A process that performs one task after the other."""

    def __init__(self, function: Function) -> None:
        self.connection, there = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(there, function))
        self.process.start()
        there.close()

    def answer(self) -> Any:
        """What it has sent."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return {"error": f"its process ended with code {self.process.exitcode}"}

    def hold(self, held: bool) -> None:
        """Stop it, and return when it has stopped (or ended); or let it go on."""
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.process.pid, signal.SIGSTOP if held else signal.SIGCONT)
            if held:
                os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def kill(self) -> None:
        """End it and all processes that it has started (compilers)."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()


@contextmanager
def alone() -> Iterator[None]:
    """Within it the processes that compile ahead are stopped; where there are none, nothing is done."""
    if _parent is None:
        yield
        return
    _parent.send(HOLD)
    if _parent.recv():
        time.sleep(SETTLE)
    try:
        yield
    finally:
        _parent.send(GO)


def _serve(connection: Connection, function: Function) -> None:
    global _parent
    os.setpgrp()
    _parent = connection
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            task = connection.recv()
            try:
                result = function(task)
            except Exception as error:  # a task that fails is a result: out of memory, a peer that is not installed
                traceback.print_exc(limit=-3)
                result = {"error": f"{type(error).__name__}: {error}"[:300]}
            connection.send(result)
