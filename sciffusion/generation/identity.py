"""What an ensemble must agree on to be continued.

Model, seed, sampler and conditions define the ensemble: another one is refused. Under ``execution`` stands what decides
the last bits: device model, precision, compilation, micro-batch, versions. It is fixed when a store is made; members
that another execution adds differ by rounding errors from those it would have had, and have to be allowed.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

import sciffusion
from sciffusion import config
from sciffusion.emulator import Emulator
from sciffusion.execution.device import device_model
from sciffusion.execution.precision import Precision
from sciffusion.fields.cases import encode_label
from sciffusion.fields.identity import EXECUTION
from sciffusion.fields.storage import STORAGE, Storage

__all__ = ["fingerprint", "identity"]

_SAMPLES = 8  # values per dimension that a fingerprint looks at


def identity(
    emulator: Emulator,
    conditions: Mapping[str, xr.Dataset],
    *,
    seed: int,
    sampler: config.Sampler | str | None,
    device: torch.device,
    precision: Precision = "auto",
    compiled: bool | None = None,
    batch_size: int | None = None,
    storage: Storage | None = None,
) -> dict[str, Any]:
    """Plain data that JSON can hold; two runs with equal identities write equal bytes.

    The precision "auto", and None, are left open: those of the store count.
    """
    chosen = {
        "precision": None if precision == "auto" else emulator.precision(precision, device),
        "compiled": compiled,
        "batch_size": batch_size,
    }
    execution = {
        "device": device_model(device),
        "sciffusion": sciffusion.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    kept = (storage or Storage()).to_json()
    return {
        "emulator": emulator.identity(),
        "seed": int(seed),
        "sampler": emulator.sampler(sampler).model_dump(mode="json"),
        "conditions": {name: fingerprint(data) for name, data in sorted(conditions.items())},
        **({STORAGE: kept} if kept else {}),
        EXECUTION: execution | {name: value for name, value in chosen.items() if value is not None},
    }


def fingerprint(ds: xr.Dataset) -> str:
    """Digest of names, shapes, coordinates' ends and a sample of the values: tells one scenario from another cheaply.

    At most eight entries along each dimension are read, so it does not prove that two data sets are equal.
    """
    digest = hashlib.sha256()
    for name in sorted(map(str, ds.variables)):
        variable = ds[name].variable
        sample = variable.isel({dim: _spread(size) for dim, size in variable.sizes.items()})
        digest.update(f"{name} {dict(variable.sizes)} ".encode())
        digest.update(_bytes(np.asarray(sample.values)))
    return digest.hexdigest()[:16]


def _spread(size: int) -> list[int]:
    """Up to eight positions from the first to the last."""
    return np.unique(np.linspace(0, size - 1, min(size, _SAMPLES)).astype(int)).tolist() if size else []


def _bytes(values: np.ndarray) -> bytes:
    if values.dtype.kind in "fiub":
        return np.ascontiguousarray(values).tobytes()
    return "\n".join(str(encode_label(value)) for value in values.ravel()).encode()
