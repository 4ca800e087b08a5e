"""Advisory locks of processes that share a store; the system frees them when their process ends, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["held"]


@contextmanager
def held(path: Path, *, without_locks: bool, wait: bool = False) -> Iterator[bool]:
    """Whether this process holds the lock ``path`` for the length of the block; only with ``wait`` it waits for it.

    ``without_locks`` is the answer on a file system that has no locks; False where the folder is gone.
    """
    try:
        handle = path.open("w")
    except FileNotFoundError:
        yield False
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            mine = True
        except BlockingIOError:
            mine = False
        except OSError:
            mine = without_locks
        yield mine
