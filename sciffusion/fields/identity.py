"""What makes two ensembles the same: model, seed and settings, as a mapping that JSON can hold."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["differences", "digest"]


def differences(stored: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What two identities disagree on, as readable lines."""
    found = []
    for key in sorted({*stored, *given}):
        name, one, other = f"{prefix}{key}", stored.get(key), given.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, f"{name}.")
        elif json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True):
            found.append(f"{name}: {one!r} in the store, {other!r} now")
    return found


def digest(identity: Mapping[str, Any]) -> str:
    """Short fingerprint of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
