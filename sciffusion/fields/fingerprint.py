"""Fingerprints of data on disk: SHA-256 of a file's bytes, or of the names and hashes in a folder (a Zarr store).

Two sources with the same fingerprint hold the same bytes, wherever they lie and whenever they were copied.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sciffusion.fields.files import expand_paths

__all__ = ["fingerprint"]

_THREADS = 4


def fingerprint(paths: Sequence[str]) -> str:
    """Hexadecimal SHA-256 of what ``paths`` (files, stores, globs) hold; "" when a part of it is not on disk (a URL).

    Raises SciffusionError for a path that does not exist.
    """
    found = expand_paths(list(paths))
    if any("://" in path for path in found):
        return ""
    with ThreadPoolExecutor(_THREADS) as pool:
        hashes = [_folder(Path(path), pool) if Path(path).is_dir() else _file(Path(path)) for path in found]
    return hashes[0] if len(hashes) == 1 else _joined(hashes)


def _file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(path: Path, pool: ThreadPoolExecutor) -> str:
    files = sorted(entry for entry in path.rglob("*") if entry.is_file())
    names = (entry.relative_to(path).as_posix() for entry in files)
    return _joined([f"{name}\0{digest}" for name, digest in zip(names, pool.map(_file, files), strict=True)])


def _joined(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
