"""Completion markers of an ensemble store: one small file per (case, member), renamed into place after its data.

A marker says that every variable of the item is on disk and holds the size and CRC-32 of each chunk file. Whatever has
no marker is incomplete, whatever the chunks look like: a kill at any moment leaves either no marker or a true one.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciffusion.fields.guard import require_inside
from sciffusion.fields.output import remove, write_text

__all__ = ["COARSE_MISFIT", "FOLDER", "Fault", "Markers"]

COARSE_MISFIT = "coarse_misfit"  # fact: variable -> largest distance from the coarse field, in its units
FOLDER = "complete/.markers"  # inside the folder of an array, where Zarr looks for chunks only

COMPLETE, REDUCED = ".json", ".reduced"  # of the names of markers


@dataclass(frozen=True)
class Fault:
    """Something wrong with a marked item."""

    case: int
    member: int
    what: str


class Markers:
    """The markers of the store at ``root``; chunk files are named relative to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / FOLDER
        self.aside = self.folder / ".aside"  # chunks are here until they are whole

    def path(self, case: int, member: int) -> Path:
        """File of one marker."""
        return self.folder / f"{case:08d}" / f"{member}{COMPLETE}"

    def write(
        self, case: int, member: int, sums: Mapping[str, list[int]], facts: Mapping[str, Any], *, fsync: bool = False
    ) -> None:
        """Mark (case, member) complete, now that its chunks are on disk; ``sums``: size and CRC-32 of each file."""
        path = self.path(case, member)
        require_inside(self.root, path.parent)
        path.parent.mkdir(exist_ok=True)
        entry = {"case": case, "member": member, **facts, "chunks": dict(sums)}
        write_text(path, json.dumps(entry, sort_keys=True), fsync=fsync)

    def withdraw(self, case: int, member: int) -> None:
        """Take a marker back: the item counts as missing and is made again."""
        path = self.path(case, member)
        require_inside(self.root, path.parent)
        path.unlink(missing_ok=True)

    def reduce(self, case: int, member: int) -> None:
        """Give up the data of an item that has gone into statistics; it need not be made again.

        The marker is renamed first: a reader, and a restart, see the item either with its data or without.
        """
        path, spent = self.path(case, member), self.path(case, member).with_suffix(REDUCED)
        if path.exists():
            path.replace(spent)
        for name in json.loads(spent.read_text())["chunks"]:
            (self.root / name).unlink(missing_ok=True)

    def made(self) -> Iterator[tuple[int, int]]:
        """Every (case, member) that need not be made: those complete, and those reduced to statistics."""
        return self._marked({COMPLETE, REDUCED})

    def complete(self, case: int | None = None) -> Iterator[tuple[int, int]]:
        """Every marked (case, member) whose data are there; of one ``case`` only, if it is given."""
        return self._marked({COMPLETE}, "[0-9]*" if case is None else f"{case:08d}")

    def _marked(self, suffixes: set[str], pattern: str = "[0-9]*") -> Iterator[tuple[int, int]]:
        if not self.folder.is_dir():
            return
        for case in self.folder.glob(pattern):
            with os.scandir(case) as entries:
                for entry in entries:
                    name, suffix = os.path.splitext(entry.name)
                    if name.isdecimal() and suffix in suffixes:
                        yield int(case.name), int(name)

    def largest(self, fact: str) -> dict[str, float]:
        """The largest value of a fact that items have by name, such as `COARSE_MISFIT`."""
        found: dict[str, float] = {}
        for case, member in self.complete():
            for name, value in self._read(case, member).get(fact, {}).items():
                found[name] = max(found.get(name, value), value)
        return found

    def _read(self, case: int, member: int) -> dict[str, Any]:
        entry = json.loads(self.path(case, member).read_text())
        return entry if isinstance(entry, dict) else {}

    def check(self, case: int, member: int, *, checksums: bool = True) -> Fault | None:
        """Compare an item's chunk files with its marker; sizes only when not ``checksums``."""
        try:
            chunks = self._read(case, member)["chunks"]
        except (ValueError, KeyError, OSError):
            return Fault(case, member, "its marker cannot be read")
        for name, (size, crc) in chunks.items():
            path = self.root / name
            if not path.resolve().is_relative_to(self.root.resolve()):
                return Fault(case, member, "its marker names a file outside the store")
            if not path.is_file():
                return Fault(case, member, f"{name} is missing")
            if path.stat().st_size != size or (checksums and _checksum(path)[1] != crc):
                return Fault(case, member, f"{name} is damaged")
        return None

    def sweep(self) -> None:
        """Remove what killed writers left behind; only when nobody writes."""
        remove(self.aside)
        for path in (*self.folder.rglob("*.partial"), *self.folder.glob(".*-of-*.lock"), *self._of_zarr()):
            path.unlink(missing_ok=True)

    def _of_zarr(self) -> Iterator[Path]:
        """What Zarr itself left beside metadata, coordinates and status; it does not write the chunks of items."""
        for folder, folders, files in os.walk(self.root):
            yield from (Path(folder, name) for name in files if name.endswith(".partial"))
            if Path(folder).name == "c" and Path(folder).parent.name != self.folder.parent.name:
                folders.clear()


def _checksum(path: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    data = path.read_bytes()
    return [len(data), zlib.crc32(data)]
