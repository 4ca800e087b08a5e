"""The state of an evaluation on disk: the sums so far, so that work can stop, go on elsewhere, and be joined.

A compressed NumPy archive without pickles, replaced as a whole, so that a reader never sees half of it.
"""

import json
import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.panel import Marks, Panel
from sciffusion.evaluation.tally import Tally

__all__ = ["load", "save"]

HEAD = "head"
VERSION = 4


def save(panel: Panel, path: str | Path) -> None:
    """Write the sums of ``panel``."""
    target = Path(path)
    head = {
        "version": VERSION,
        "identity": panel.identity,
        "marks": panel.marks,
        "members": panel.members,
        "skipped": panel.skipped,
        "done": sorted(panel.done),
        "keys": [list(key) for key in panel.tallies],
    }
    arrays = {HEAD: np.array(json.dumps(head))}
    for index, tally in enumerate(panel.tallies.values()):
        arrays.update({f"{index}/{name}": value for name, value in tally.state().items()})
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    partial.replace(target)


def load(panel: Panel, path: str | Path) -> Panel:
    """``panel`` with the sums of ``path`` added; its settings must be those under which they were made.

    Raises SciffusionError for a file that is damaged, of another version, or of another evaluation.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as archive:
            arrays = dict(archive)
        head = json.loads(str(arrays[HEAD]))
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise SciffusionError(f"{path} is not the state of an evaluation: {error}", "delete it to start anew") from None
    if head["version"] != VERSION or head["identity"] != json.loads(json.dumps(panel.identity)):
        raise SciffusionError(f"{path} is the state of another evaluation", "give another file, or delete it")
    tallies = {}
    for index, key in enumerate(head["keys"]):
        mine = {n.split("/", 1)[1]: value for n, value in arrays.items() if n.startswith(f"{index}/")}
        sample, system, field = (str(part) for part in key)
        tallies[sample, system, field] = Tally.from_state(mine)
    marks = {name: Marks(centre, scale, tuple(rest)) for name, (centre, scale, rest) in head["marks"].items()}
    stored = panel.emptied(marks)
    stored.members, stored.skipped, stored.done = dict(head["members"]), list(head["skipped"]), set(head["done"])
    stored.tallies = tallies
    return panel.merge(stored)
