"""CF metadata of ensembles: the member coordinate, global attributes, provenance."""

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import xarray as xr

__all__ = [
    "CONVENTIONS",
    "EXECUTIONS",
    "IDENTITY",
    "INDEPENDENT",
    "member_coordinate",
    "plain_attributes",
    "provenance",
    "software",
]

CONVENTIONS = "CF-1.11"
IDENTITY = "sciffusion_identity"  # attribute with the JSON of the model, seed and settings
EXECUTIONS = "sciffusion_executions"  # attribute with the JSON of every device, precision and version that took part
INDEPENDENT = "none: noise is independent between cases, members are not trajectories"


def member_coordinate(members: Iterable[int]) -> xr.Variable:
    """The coordinate of ensemble members (CF standard name ``realization``)."""
    attributes = {"standard_name": "realization", "units": "1", "long_name": "ensemble member"}
    return xr.Variable("member", np.asarray(list(members), np.int64), attributes)


def software() -> str:
    """Name and version of this package."""
    try:
        return f"sciffusion {version('sciffusion')}"
    except PackageNotFoundError:
        return "sciffusion"


def provenance(attributes: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """Global attributes of an ensemble: those of the template, then what CF and a reader need to know.

    A template's ``title``, ``source``, ``references`` and ``history`` are kept (history is added to).
    """
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = f"{now} {software()}: ensemble generated"
    earlier = attributes.get("history")
    return plain_attributes(
        {
            "title": "ensemble of generated fields",
            "source": f"diffusion model, {software()}",
            "references": "https://doi.org/10.48550/arXiv.2206.00364",
            "time_coherence": INDEPENDENT,
            **attributes,
            "Conventions": CONVENTIONS,
            "history": f"{line}\n{earlier}" if earlier else line,
            "creation_date": now,
            "tracking_id": str(uuid.uuid4()),
            IDENTITY: json.dumps(identity, sort_keys=True),
        }
    )


def plain_attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes that NetCDF and Zarr can both hold: None is left out, truth values become 0 and 1, dicts JSON."""
    return {str(name): _plain(value) for name, value in attributes.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (dict, set)):
        return json.dumps(value, default=list, sort_keys=isinstance(value, dict))
    return value
