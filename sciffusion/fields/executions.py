"""How the items of a store were made: device model, precision, micro-batch, versions; one small file per combination.

A store has one, fixed when it was made, unless members were added elsewhere with permission. Each item's marker names
its own by digest.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sciffusion.fields.identity import digest
from sciffusion.fields.markers import FOLDER
from sciffusion.fields.output import write_text

__all__ = ["read_executions", "record_execution"]


def record_execution(store: Path, execution: Mapping[str, Any]) -> str:
    """Add ``execution`` to those of ``store``, if it is new, and return its digest; safe in several processes."""
    name = digest(execution)
    path = _folder(store) / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(execution, sort_keys=True))
    return name


def read_executions(store: Path) -> dict[str, dict[str, Any]]:
    """Every execution of ``store`` by its digest; unreadable ones are left out."""
    found = {}
    for path in sorted(_folder(store).glob("*.json")):
        try:
            entry = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(entry, dict) and digest(entry) == path.stem:
            found[path.stem] = entry
    return found


def _folder(store: Path) -> Path:
    return store / FOLDER / "executions"
