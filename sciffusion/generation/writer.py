"""Writing behind the sampler's back: threads and a bounded queue, so that memory stays bounded too."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["Writer"]

T = TypeVar("T")


class Writer(Generic[T]):
    """Calls ``write`` for everything that is put, begun in order, in ``threads`` other threads.

    The first error of ``write`` is raised by the next `put`, or when the block ends; what was put after it is dropped.
    When the block ends by another exception, Ctrl-C say, what was put before is still written. ``begin`` is called once
    in every thread.
    """

    def __init__(
        self,
        write: Callable[[T], None],
        depth: int = 2,
        threads: int = 1,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._write, self._begin = write, begin
        self._queue: queue.Queue[T | None] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        names = [f"sciffusion-writer-{number}" for number in range(threads)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]

    def __enter__(self) -> "Writer[T]":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        if value is None:
            self._raise()

    def put(self, job: T) -> None:
        """Queue a job; waits while the queue is full."""
        self._raise()
        self._queue.put(job)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        self._begin()
        while (job := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._write(job)
                except BaseException as error:
                    self._error = self._error or error
