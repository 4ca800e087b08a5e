"""A stage on disk: an entry of model.json and tensors, and the same stage made of them again."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciffusion import registry
from sciffusion.conditioners.base import Conditioner
from sciffusion.errors import SciffusionError, reason
from sciffusion.fields.codec import FieldCodec
from sciffusion.fields.grid import Grid
from sciffusion.memory import available_memory
from sciffusion.stages.base import Parts, Stage

__all__ = ["stage_from_state", "state_of"]


def state_of(stage: Stage, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The stage as (JSON, tensors); floating-point parameters are rounded to ``dtype``."""
    shared = next((other.name for other in stage.earlier.values() if other.codec is stage.codec), None)
    codec, arrays = stage.codec.state() if shared is None else ({"of": shared}, {})
    tensors = {f"codec.{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    parameters = {name for name, _ in stage.named_parameters()}
    for name, value in stage.state_dict().items():
        rounded = name in parameters and value.is_floating_point()
        tensors[f"module.{name}"] = value.to(dtype) if rounded else value
    entry = {
        "name": stage.name,
        "kind": stage.kind,
        "codec": codec,
        "conditioners": {name: conditioner.state()[0] for name, conditioner in stage.conditioners.items()},
        **stage.describe(),
    }
    return entry, tensors


def stage_from_state(
    entry: Mapping[str, Any], tensors: Mapping[str, Tensor], earlier: Mapping[str, Stage] | None = None
) -> Stage:
    """The inverse of `state_of`, behind the stages ``earlier``.

    Raises SciffusionError when tensors are missing or of another shape.
    """
    parts = _parts(entry, tensors, earlier or {})
    kind: type[Stage] = registry.get("stages", entry["kind"])
    stage = kind.restore(entry, parts)
    own = {n.removeprefix("module."): t for n, t in tensors.items() if n.startswith("module.")}
    own = {n: t.float() if t.is_floating_point() else t for n, t in own.items()}
    try:
        stage.load_state_dict(own)
    except RuntimeError as error:
        what = f"weights of stage {entry['name']!r} do not fit its description ({reason(error)})"
        mend = "an older version saved it, or it is damaged: copy it again, or train anew"
        raise SciffusionError(what, mend) from None
    return stage.eval()


def _parts(entry: Mapping[str, Any], tensors: Mapping[str, Tensor], earlier: Mapping[str, Stage]) -> Parts:
    described = entry["codec"]
    arrays = {n.removeprefix("codec."): t.numpy() for n, t in tensors.items() if n.startswith("codec.")}
    codec = earlier[described["of"]].codec if "of" in described else FieldCodec.from_state(described, arrays)
    _require_room(entry["name"], len(codec.channels), codec.grid)
    return Parts(codec, {name: _conditioner(own, codec.grid) for name, own in entry["conditioners"].items()}, earlier)


def _require_room(name: str, channels: int, grid: Grid) -> None:
    """Refuse a grid that this machine's memory cannot hold a few fields of, before any is made."""
    size = 4 * channels * prod(grid.shape)
    if size > available_memory() // 4:
        what = f"stage {name!r} has fields of {size / 2**30:.1f} GiB"
        raise SciffusionError(what, "use a machine with more memory; do not use a model that you do not trust")


def _conditioner(entry: Mapping[str, Any], grid: Grid) -> Conditioner:
    """A conditioner as described; its tensors are loaded with the stage's."""
    kind: type[Conditioner] = registry.get("conditioners", entry["kind"])
    settings = kind.settings_type.model_validate(entry["settings"])
    return kind.restore(entry["name"], settings, grid, entry["description"])
