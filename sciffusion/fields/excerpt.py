"""A part of an ensemble store as a store of its own: metadata copied, chunks linked, so that no data are written twice.

Chunks are replaced by renaming and never written in place, so a link stays what it was. Where a file system has no
links, files are copied.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from sciffusion.fields import layout
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.fields.layout import MEMBER, STATUS
from sciffusion.fields.markers import FOLDER, Markers
from sciffusion.fields.output import write_text

__all__ = ["excerpt"]

CHUNKS = "c"  # folder of an array that holds its chunks


def excerpt(store: EnsembleStore, path: Path, members: Sequence[int]) -> None:
    """Make a store at ``path``, which must not exist, of those items of ``members`` that are complete in ``store``."""
    _copy_metadata(store, path)
    for array in layout.arrays(path).values():
        if MEMBER in layout.dims(array):
            array.resize((len(members), *array.shape[1:]))
    (path / FOLDER).mkdir(exist_ok=True)
    rows = {member: row for row, member in enumerate(members)}
    for case, member in store.markers.complete():
        if member in rows:
            _link(store, path, case, member, rows[member])
    layout.arrays(path)[MEMBER][:] = list(members)
    EnsembleStore(path).finalise()


def _copy_metadata(store: EnsembleStore, path: Path) -> None:
    """Everything but the chunks of members, their markers, and hidden files of processes at work."""

    def ignored(folder: str, names: list[str]) -> list[str]:
        place = Path(folder).relative_to(store.path)
        if str(place) == FOLDER:
            return [name for name in names if name.isdecimal() or name.startswith(".")]
        if str(place) in store.variables:
            return [CHUNKS]
        return [name for name in names if name.startswith(".") and name != Path(FOLDER).name]

    shutil.copytree(store.path, path, ignore=ignored)
    with layout.quiet():
        (path / STATUS).mkdir(exist_ok=True)


def _link(store: EnsembleStore, path: Path, case: int, member: int, row: int) -> None:
    """Link the chunks of one item to where its new row has them, then write its marker."""
    entry = json.loads(store.markers.path(case, member).read_text())
    moved = {}
    for name, facts in entry["chunks"].items():
        variable, _, key = name.partition(f"/{CHUNKS}/")
        new = "/".join([variable, CHUNKS, str(row), *key.split("/")[1:]])
        (path / new).parent.mkdir(parents=True, exist_ok=True)
        try:
            (path / new).hardlink_to(store.path / name)
        except OSError:
            shutil.copy2(store.path / name, path / new)
        moved[new] = facts
    marker = Markers(path).path(case, member)
    marker.parent.mkdir(exist_ok=True)
    write_text(marker, json.dumps(entry | {"chunks": moved}, sort_keys=True))
