"""The chunks of one item of a Zarr array, encoded and written in the caller's thread: the bytes that Zarr writes.

Zarr hands every chunk to one event loop and from there to other threads, for which several writers wait in a queue:
half a millisecond of the interpreter per chunk, here a tenth. The codecs are those of `sciffusion.fields.layout`.
"""

import os
import threading
import zlib
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numcodecs import Zstd  # type: ignore[import-untyped]
from numpy.typing import NDArray

from sciffusion.errors import SciffusionError
from sciffusion.fields.output import write_bytes

__all__ = ["blocks", "encode", "require_codecs", "write"]

_LEVEL = 1
_CODECS = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "zstd", "configuration": {"level": _LEVEL, "checksum": False}},
    {"name": "crc32c"},
]


def require_codecs(path: Path, name: str, array: Any) -> None:
    """Raise SciffusionError unless ``array`` is encoded as `encode` does."""
    codecs = [codec.to_dict() for codec in array.metadata.codecs]
    if codecs != _CODECS:
        raise SciffusionError(f"{path}: {name} is encoded in another way", "convert it, or begin another store")


def blocks(values: NDArray[Any], array: Any, index: tuple[int, ...]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Keys of the chunks of item ``index`` and the part of its ``values`` in each; the last ones filled up."""
    lengths = array.chunks[len(index) :]
    counts = [ceil(size / length) for size, length in zip(values.shape, lengths, strict=True)]
    for place in np.ndindex(*counts):
        cut = tuple(slice(i * length, (i + 1) * length) for i, length in zip(place, lengths, strict=True))
        part = values[cut]
        if part.shape != tuple(lengths):
            whole = np.full(lengths, array.fill_value, array.dtype)
            whole[tuple(map(slice, part.shape))] = part
            part = whole
        yield array.metadata.encode_chunk_key((*index, *place)), part


def encode(block: NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    """Little-endian values in C order, compressed, followed by their CRC-32C."""
    data: bytes = Zstd(level=_LEVEL).encode(np.ascontiguousarray(block, dtype.newbyteorder("<")))
    checksum: int = crc32c(data)
    return data + checksum.to_bytes(4, "little")


def write(path: Path, data: bytes, aside: Path, *, fsync: bool = False) -> list[int]:
    """Write one chunk to a file in the folder ``aside``, then rename it; its size and CRC-32.

    What killed writers leave is then in one folder, not among all the chunks of a store.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside.mkdir(exist_ok=True)
    write_bytes(path, data, aside / f"{os.uname().nodename}-{os.getpid()}-{threading.get_ident()}", fsync=fsync)
    return [len(data), zlib.crc32(data)]
