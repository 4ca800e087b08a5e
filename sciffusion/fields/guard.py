"""Zarr stores of strangers: nothing in them runs, leads out of their folder, or takes more memory than it says.

What is refused before any array is read: codecs that unpickle, names that climb (``..``), links that lead outside,
metadata or declared sizes beyond the memory there is. What is refused when a chunk is read: one that would expand to
more than its array declares (a few bytes of zstd can become gigabytes).
"""

import json
import os
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from zarr.storage import LocalStore

from sciffusion.errors import SciffusionError
from sciffusion.memory import available_memory

__all__ = ["GuardedStore", "check_zarr", "frame_bytes", "half_of_memory", "require_inside"]

_METADATA = ("zarr.json", ".zmetadata", ".zarray", ".zgroup", ".zattrs")
_MOST_METADATA = 256 * 2**20  # bytes of one metadata file
_MOST_TEXT = 64 * 2**20  # bytes of a chunk whose items have no fixed size
_PLAIN = {"bytes", "crc32c", "transpose", "vlen-utf8"}  # codecs that do not expand
_MEND = "do not use a store that you do not trust"


def require_inside(root: Path | str, path: Path | str) -> None:
    """Raise SciffusionError unless ``path``, with its links followed, lies in the folder ``root``."""
    real, folder = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, folder]) != folder:
        raise SciffusionError(f"{path}: leads out of its store", _MEND)


def check_zarr(root: Path) -> dict[str, int]:
    """Look through the metadata of a local Zarr store of any version; see above for what is refused.

    Returns the bytes of one chunk of every array of version 3, decoded, by name.
    """
    limits: dict[str, int] = {}
    most = half_of_memory()
    for path in _metadata_files(root):
        require_inside(root, path)
        if path.stat().st_size > _MOST_METADATA:
            raise SciffusionError(f"{path}: {path.stat().st_size} bytes of metadata", _MEND)
        try:
            entry = json.loads(path.read_text())
        except (ValueError, RecursionError):
            raise SciffusionError(f"{path}: not valid JSON", _MEND) from None
        _refuse_code(path, entry)
        for name, array in _arrays(root, path, entry):
            if ".." in Path(name).parts or Path(name).is_absolute() or "\\" in name:
                raise SciffusionError(f"{path}: an array is called {name!r}", _MEND)
            limit = _chunk_bytes(array)
            for what, size in (("a chunk", limit), ("a coordinate", _axis_bytes(array))):
                if size > most:
                    raise SciffusionError(f"{path}: {what} of {size / 2**30:.1f} GiB", "use a machine with more memory")
            limits[name] = min(limit, limits.get(name, limit))
    return limits


def _metadata_files(root: Path) -> Iterator[Path]:
    """Metadata of the groups and arrays below ``root``, without looking among the chunks of an array."""
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        yield from (here / name for name in files if name in _METADATA)
        for name in folders:
            require_inside(root, here / name)
        array = ".zarray" in files or ("zarr.json" in files and here != root and (here / "c").is_dir())
        folders[:] = [] if array else [name for name in folders if not name.startswith(".") and name != "c"]


def _refuse_code(path: Path, entry: Any) -> None:
    """Refuse codecs that unpickle, wherever they are named."""
    if isinstance(entry, dict):
        for key in ("id", "name"):
            if "pickle" in str(entry.get(key, "")).lower():
                raise SciffusionError(f"{path}: its data are pickled, and unpickling can run any code", _MEND)
        entry = list(entry.values())
    if isinstance(entry, list):
        for value in entry:
            _refuse_code(path, value)


def _arrays(root: Path, path: Path, entry: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Arrays of version 3 that a metadata file describes, consolidated ones too, by name."""
    if not isinstance(entry, dict):
        raise SciffusionError(f"{path}: not the metadata of a Zarr store", _MEND)
    consolidated = (entry.get("consolidated_metadata") or {}).get("metadata", {})
    for name, own in [(str(path.parent.relative_to(root)), entry), *consolidated.items()]:
        if isinstance(own, dict) and own.get("node_type") == "array" and own.get("zarr_format") == 3:
            yield name, own


def _chunk_bytes(array: Mapping[str, Any]) -> int:
    """Decoded size of one chunk."""
    try:
        lengths = [int(length) for length in array["chunk_grid"]["configuration"]["chunk_shape"]]
        return prod(lengths) * np.dtype(array["data_type"]).itemsize if array["data_type"] != "string" else _MOST_TEXT
    except (KeyError, TypeError, ValueError):
        return _MOST_TEXT


def _axis_bytes(array: Mapping[str, Any]) -> int:
    """Size of an array of one dimension, which is read when the store is opened; 0 for others."""
    shape = array.get("shape")
    return 8 * int(shape[0]) if isinstance(shape, list) and len(shape) == 1 else 0


def half_of_memory() -> int:
    """Bytes that opening a store may take at most."""
    return available_memory() // 2


class GuardedStore(LocalStore):
    """A local store for reading, whose keys stay in its folder and whose chunks expand to what is declared at most."""

    _limits: dict[str, int]

    @classmethod
    def at(cls, root: Path) -> "GuardedStore":
        """The store at ``root``, looked through by `check_zarr`."""
        limits = check_zarr(root)
        store = cls(root, read_only=True)
        store._limits = limits
        return store

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """The bytes of ``key``, as LocalStore gives them. Raises SciffusionError for what leads out or expands."""
        require_inside(self.root, self.root / key)
        value = await super().get(key, prototype, byte_range)
        parts = key.split("/")
        limit = self._limits.get("/".join(parts[: parts.index("c")])) if "c" in parts else None
        if value is not None and limit is not None:
            size = frame_bytes(value.as_numpy_array()[:18].tobytes())
            if size is not None and size > limit:
                raise SciffusionError(f"{self.root / key}: would expand to {size / 2**20:.0f} MiB", _MEND)
        return value


def frame_bytes(head: bytes) -> int | None:
    """Size that a zstd frame declares for its content (RFC 8878, section 3.1.1.1); None for anything else."""
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flag, single = head[4] >> 6, bool(head[4] & 0x20)
    start = 5 + (not single) + (0, 1, 2, 4)[head[4] & 3]
    length = (int(single), 2, 4, 8)[flag]
    size = int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)
    return size if length else 2**63  # of unknown size: never written here
