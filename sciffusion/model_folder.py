"""A model on disk: ``model.json`` and ``weights.safetensors``, nothing that runs.

model.json carries the schema version, the stages and the card; ``weights`` names the tensor file with its SHA-256 and
``digest`` is the SHA-256 of the rest, so that a truncated or altered folder is refused before it is used.
"""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sciffusion.errors import SciffusionError

__all__ = ["FORMAT", "VERSION", "digest", "read_model", "write_model"]

FORMAT = "sciffusion-emulator"
VERSION = 1
WEIGHTS = "weights.safetensors"
MAX_JSON = 256 * 2**20  # bytes; a larger model.json is not read


def write_model(folder: Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both files beside their targets and rename them, weights first; nothing half-written is left.

    Raises OSError when the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights, text = folder / f".{WEIGHTS}.{os.getpid()}", folder / f".model.json.{os.getpid()}"
    try:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, weights)
        umask = os.umask(0)
        os.umask(umask)
        weights.chmod(0o666 & ~umask)
        entry = {"file": WEIGHTS, "sha256": _sha256(weights)}
        description = {"format": FORMAT, "version": VERSION, **description, "weights": entry}
        description["digest"] = digest(description)
        text.write_text(json.dumps(description, indent=1, allow_nan=False) + "\n")
        weights.replace(folder / WEIGHTS)
        text.replace(folder / "model.json")
    except SafetensorError as error:
        if "os error 28" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
    finally:
        weights.unlink(missing_ok=True)
        text.unlink(missing_ok=True)


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and verify both files. Raises SciffusionError for a missing, altered, truncated or newer-version model."""
    description = _read_json(folder / "model.json")
    path = folder / WEIGHTS
    if not path.is_file():
        raise SciffusionError(f"{path}: missing", "copy the whole model folder again")
    if _sha256(path) != description["weights"]["sha256"]:
        raise SciffusionError(
            f"{path}: does not match model.json (altered or truncated)", "copy the model folder again"
        )
    try:
        return description, load_file(path)
    except SafetensorError as error:
        raise SciffusionError(f"{path}: not a safetensors file: {error}", "copy the model folder again") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(description: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a description without its own digest."""
    content = {key: value for key, value in description.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SciffusionError(f"{path.parent}: not a model folder (no model.json)", "give the run or model folder")
    if path.stat().st_size > MAX_JSON:
        raise SciffusionError(
            f"{path}: {path.stat().st_size} bytes is no model description", "check where it came from"
        )
    try:
        description = json.loads(path.read_text())
    except ValueError as error:
        raise SciffusionError(f"{path}: not valid JSON ({error})", "copy the model folder again") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise SciffusionError(f"{path}: not the description of a sciffusion emulator", "give a folder that train wrote")
    if description.get("version") != VERSION:
        found = description.get("version")
        raise SciffusionError(
            f"{path}: model version {found}, this sciffusion reads version {VERSION}",
            "install a newer sciffusion" if isinstance(found, int) and found > VERSION else "train the model again",
        )
    if description.get("digest") != digest(description):
        raise SciffusionError(f"{path}: its digest does not match its content (altered)", "copy the model folder again")
    return description
