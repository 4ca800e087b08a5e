"""What makes two ensembles the same: model, seed and settings, as a mapping that JSON can hold.

Its entry `EXECUTION` says how items were made, which decides their last bits only.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import xarray as xr

from sciffusion.fields.layout import MEMBER, STATUS

__all__ = ["EXECUTION", "differences", "digest", "execution_of", "misfits", "without_execution"]

EXECUTION = "execution"


def execution_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """How items are made: device model, precision, micro-batch, versions."""
    return dict(identity.get(EXECUTION, {}))


def without_execution(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What defines the ensemble."""
    return {key: value for key, value in identity.items() if key != EXECUTION}


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


def misfits(stored: xr.Dataset, template: xr.Dataset) -> list[str]:
    """Coordinates of the template that an ensemble does not have, as readable lines."""
    names = [name for name in template.coords if name not in (MEMBER, STATUS)]
    wrong = [name for name in names if name not in stored.coords or not _same(stored[name], template[name])]
    return [f"coordinate {name!r}: the store has other values" for name in wrong]


def _same(one: xr.DataArray, other: xr.DataArray) -> bool:
    """Equal dims and values; attributes do not count."""
    plain: Any = one.variable.to_base_variable()
    return bool(plain.equals(other.variable.to_base_variable()))
