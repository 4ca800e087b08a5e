"""Members of one case that are too many for memory, kept on disk and read one by one or block by block of cells.

A score reads an ensemble in two ways: member by member, or all members of a few cells. Where the data come from is
good at one of the two at most, so what does not fit is written once to a temporary file, which serves both.
"""

import tempfile
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

import numpy as np

__all__ = ["Members", "Spool", "columns"]


class Spool:
    """An ensemble (member, *grid) in a temporary file that vanishes with the object."""

    def __init__(self, members: Iterable[np.ndarray]) -> None:
        self._file = tempfile.TemporaryFile(prefix="sciffusion-members-")
        self.grid: tuple[int, ...] = ()
        self.dtype = np.dtype(np.float64)
        self._places: list[int] = []
        for place, member in enumerate(members):
            self.grid, self.dtype = member.shape, member.dtype
            self._file.write(np.ascontiguousarray(member).data)
            self._places.append(place)
        self._file.flush()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int, ...]:
        """(member, *grid)."""
        return (len(self), *self.grid)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: int | slice) -> np.ndarray:
        if isinstance(key, slice):
            return np.stack([self[i] for i in range(*key.indices(len(self)))])
        return self._read(self._places[key], slice(0, prod(self.grid))).reshape(self.grid)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """All of it in memory, for what can do no better."""
        return self[:] if dtype is None else self[:].astype(dtype)

    def columns(self, cells: slice) -> np.ndarray:
        """All members of some cells, (member, cell)."""
        return np.stack([self._read(place, cells) for place in self._places])

    def only(self, present: np.ndarray) -> "Spool":
        """The members for which ``present`` (member,) is true, from the same file."""
        chosen = Spool(())
        chosen.grid, chosen.dtype, chosen._file = self.grid, self.dtype, self._file
        chosen._places = [place for place, here in zip(self._places, present, strict=True) if here]
        return chosen

    def _read(self, place: int, cells: slice) -> np.ndarray:
        start, stop, _ = cells.indices(prod(self.grid))
        self._file.seek((place * prod(self.grid) + start) * self.dtype.itemsize)
        return np.frombuffer(self._file.read((stop - start) * self.dtype.itemsize), self.dtype)


Members = np.ndarray | Spool


def columns(members: Members | Any, cells: slice) -> Any:
    """All members of some of the flattened cells, (member, cell), of an array, a tensor or a file."""
    if isinstance(members, Spool):
        return members.columns(cells)
    return members.reshape(len(members), -1)[:, cells]
