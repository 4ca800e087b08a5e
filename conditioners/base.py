"""What every condition is: read as xarray in a worker (`prepare`), turned into a `Context` on the device (`forward`).

``prepare`` returns named arrays: ``channels`` (channel, *window) and ``vector`` (feature,) in physical units, and
``tokens`` (token, feature) with ``token_mask`` (token,). ``forward`` standardises them with constants measured on
training cases, and puts a learned null in the place of a dropped condition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sciffusion import config, registry
from sciffusion.context import Context
from sciffusion.fields.cases import Case
from sciffusion.fields.grid import Grid

__all__ = ["Conditioner", "Inputs", "State", "Training", "Window", "load_conditioner"]

Inputs = dict[str, np.ndarray]
Window = tuple[slice, ...]
State = tuple[dict[str, Any], dict[str, Tensor]]


@dataclass(frozen=True)
class Training:
    """What conditioners are fitted on: the target with its grid, and the training cases that are looked at."""

    target: config.Target
    data: xr.Dataset
    grid: Grid
    cases: Sequence[Case]

    @property
    def channels(self) -> tuple[tuple[str, int], ...]:
        """(variable, index) of every channel of the target."""
        sizes = {
            name: int(
                np.prod([self.data.sizes[dim] for dim in self.target.channel_dims if dim in self.data[name].dims])
            )
            for name in self.target.variables
        }
        return tuple((name, index) for name, size in sizes.items() for index in range(size))


class Conditioner(nn.Module):
    """One named condition. ``channels`` and ``features`` say how much it adds to the context.

    needs_data : whether sampling needs a Dataset for it; varies : whether its inputs differ between cases; tokens : the
    width of the tokens it gives, 0 for none; looks_back : whether a case needs entries before its own.
    """

    kind: ClassVar[str]
    settings_type: ClassVar[type[config.Settings]]
    needs_data: ClassVar[bool] = False
    varies: ClassVar[bool] = True
    looks_back: ClassVar[bool] = False
    tokens: int = 0

    offset: Tensor
    scale: Tensor
    vector_offset: Tensor
    vector_scale: Tensor

    def __init__(
        self, name: str, settings: config.Settings, grid: Grid, *, channels: int = 0, features: int = 0
    ) -> None:
        super().__init__()
        self.name = name
        self.settings = settings
        self.grid = grid
        self.channels = channels
        self.features = features
        for key, size in (("offset", channels), ("vector_offset", features)):
            self.register_buffer(key, torch.zeros(size))
            self.register_buffer(key.replace("offset", "scale"), torch.ones(size))
        # small and not zero: zero is the condition's mean, which the network must be able to tell from its absence
        self.null_channels = nn.Parameter(0.1 * torch.randn(channels)) if channels else None
        self.null_vector = nn.Parameter(0.1 * torch.randn(features)) if features else None

    @classmethod
    def build(cls, name: str, settings: Any, data: xr.Dataset | None, training: Training) -> Self:
        """Make the conditioner from its opened source (None: it has none) and measure its constants."""
        raise NotImplementedError

    @property
    def core_dims(self) -> tuple[str, ...]:
        """Dims of its data that are not case dims."""
        return self.grid.dims

    def prepare(self, dataset: xr.Dataset | None, case: Case, window: Window | None = None) -> Inputs:
        """Read one case, or a window of the target's grid of it; float32, without NaN.

        Raises SciffusionError when the case cannot be served.
        """
        raise NotImplementedError

    def forward(self, inputs: Mapping[str, Tensor], keep: Tensor) -> Context:
        """Context of a batch; ``keep`` Bool (batch,), False where the condition is dropped."""
        channels = vector = None
        if self.null_channels is not None:
            x = inputs["channels"]
            column = (-1, *[1] * (x.ndim - 2))
            x = (x - self.offset.reshape(column)) / self.scale.reshape(column)
            kept = keep.reshape(column[:1] + (1,) * (x.ndim - 1))
            channels = torch.where(kept, x, self.null_channels.reshape(column).to(x.dtype))
        if self.null_vector is not None:
            v = (inputs["vector"] - self.vector_offset) / self.vector_scale
            vector = torch.where(keep[:, None], v, self.null_vector.to(v.dtype))
        return Context(channels=channels, vector=vector)

    def parity(self, dim: str) -> np.ndarray:
        """+1 or -1 per channel: its sign under mirroring along ``dim``."""
        return np.ones(self.channels, np.float32)

    def vector_parity(self, dim: str) -> np.ndarray:
        """+1 or -1 per feature of the vector."""
        return np.ones(self.features, np.float32)

    def accept(self, dataset: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
        """Bring new data into the terms of the training data.

        Returns them and what was changed, one line each, which begins with the condition's name.
        """
        return dataset, []

    def outside(self, dataset: xr.Dataset | None, case: Case) -> list[str]:
        """What of this case lies beyond the range seen in training, one line per variable."""
        return []

    def serves(self, dataset: xr.Dataset, case: Case) -> bool:
        """Whether the case can be prepared from these data, as far as entries before it are concerned."""
        return True

    def description(self) -> dict[str, Any]:
        """What `restore` needs besides name, settings, grid and tensors, as plain JSON."""
        return {}

    @classmethod
    def restore(cls, name: str, settings: Any, grid: Grid, description: Mapping[str, Any]) -> Self:
        """Make the conditioner as `description` says it, with tensors of the right shapes and any values."""
        raise NotImplementedError

    def state(self) -> State:
        """Everything, as plain JSON and tensors on the CPU. Source paths are cut to file names."""
        entry = {
            "kind": self.kind,
            "name": self.name,
            "settings": _without_folders(self.settings.model_dump(mode="json")),
            "description": self.description(),
        }
        return entry, {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}

    @classmethod
    def from_state(cls, entry: Mapping[str, Any], tensors: Mapping[str, Tensor], grid: Grid) -> Self:
        """The inverse of `state`, on the target's grid."""
        settings = cls.settings_type.model_validate(entry["settings"])
        conditioner = cls.restore(entry["name"], settings, grid, entry["description"])
        conditioner.load_state_dict(dict(tensors))
        return conditioner


def load_conditioner(entry: Mapping[str, Any], tensors: Mapping[str, Tensor], grid: Grid) -> Conditioner:
    """A conditioner of any kind from its `Conditioner.state`."""
    kind: type[Conditioner] = registry.get("conditioners", entry["kind"])
    return kind.from_state(entry, tensors, grid)


def _without_folders(settings: dict[str, Any]) -> dict[str, Any]:
    """A model is passed on; the folders of the machine that trained it are not."""
    if settings.get("source"):
        names = [path.rstrip("/").rpartition("/")[2] or path for path in settings["source"]["paths"]]
        settings["source"] = settings["source"] | {"paths": names}
    return settings
