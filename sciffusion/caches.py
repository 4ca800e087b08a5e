"""Where things that can be made again are kept, and how several processes may make them at once.

One folder, named by the environment variable SCIFFUSION_CACHE (default ``~/.cache/sciffusion``). An entry is written
under a temporary name beside its place and renamed, so that a reader meets either nothing or a whole entry.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["VARIABLE", "cache_folder", "publish"]

VARIABLE = "SCIFFUSION_CACHE"


def cache_folder(*parts: str) -> Path:
    """The folder of ``parts`` in the cache, made if need be."""
    root = Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "sciffusion").expanduser()
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def publish(path: str | Path) -> Iterator[Path]:
    """A temporary path to write a file or folder at; it becomes ``path`` when the block ends without an error.

    What stood at ``path`` stays until then, and stays intact when the block fails (disk full, interrupt). Several
    processes may publish the same path: what is left is the whole work of one of them.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        made = workshop / path.name
        yield made
        _replace(made, path, workshop)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _replace(made: Path, path: Path, workshop: Path) -> None:
    """Rename ``made`` to ``path``; a folder in the way is moved aside first, as rename does not replace it."""
    while True:
        try:
            os.replace(made, path)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            with suppress(FileNotFoundError):  # another process has just moved it aside
                os.replace(path, tempfile.mkdtemp(dir=workshop))
        else:
            return
