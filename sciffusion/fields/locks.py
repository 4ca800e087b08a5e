"""Advisory locks of processes that share a store; the system frees them when their process ends, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sciffusion.errors import SciffusionError
from sciffusion.fields.output import writing

__all__ = ["held"]


@contextmanager
def held(path: Path, *, without_locks: bool, wait: bool = False, remove: bool = False) -> Iterator[bool]:
    """Whether this process holds the lock ``path`` for the length of the block; only with ``wait`` it waits for it.

    With ``remove`` the file is gone afterwards. Two processes may then hold the lock at the same time, if one of them
    was about to take it when the file went: for work only that may be done twice.

    ``without_locks`` is the answer on a file system that has no locks; False where the folder is gone. Raises
    SciffusionError where the folder cannot be written.
    """
    try:
        with writing(path):
            handle = path.open("w")
    except SciffusionError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
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
        try:
            yield mine
        finally:
            if mine and remove:
                path.unlink(missing_ok=True)
