"""Fields without time, on the target's grid, kept in the emulator."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion import config
from sciffusion.conditioners.base import Conditioner, Inputs, Training, Window
from sciffusion.conditioners.coarse_source import periodic_dims
from sciffusion.conditioners.ranges import Moments
from sciffusion.conditioners.reading import read
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Case
from sciffusion.fields.coarsen import regrid
from sciffusion.fields.grid import Grid

__all__ = ["StaticField"]


class StaticField(Conditioner):
    """Fields (channel, *grid) that are the same in every case; where they are missing they count as their mean."""

    kind: ClassVar[str] = "static"
    settings_type: ClassVar[type[config.Settings]] = config.StaticField
    varies: ClassVar[bool] = False
    settings: config.StaticField
    fields: Tensor

    def __init__(self, name: str, settings: config.StaticField, grid: Grid, *, channels: int) -> None:
        super().__init__(name, settings, grid, channels=channels)
        self.register_buffer("fields", torch.zeros(channels, *grid.shape))

    @classmethod
    def build(
        cls, name: str, settings: config.StaticField, data: xr.Dataset | None, training: Training
    ) -> "StaticField":
        """Read the fields, bring them to the target's grid and measure their mean and spread."""
        if data is None:
            raise SciffusionError(f"{name}: no data", "give the condition a source")
        fields = _on_grid(name, data[settings.variables], training)
        conditioner = cls(name, settings, training.grid, channels=len(fields))
        moments = Moments.of([fields], len(fields))
        if (moments.count == 0).any():
            raise SciffusionError(f"{name}: a field is missing everywhere on the target's grid", "check its region")
        offset, scale = moments.standardisation()
        column = (-1, *[1] * training.grid.rank)
        conditioner.fields.copy_(torch.from_numpy(np.where(np.isnan(fields), offset.reshape(column), fields)))
        conditioner.offset.copy_(torch.from_numpy(offset))
        conditioner.scale.copy_(torch.from_numpy(scale))
        return conditioner

    @cached_property
    def _host(self) -> np.ndarray:
        return self.fields.detach().cpu().numpy()

    def prepare(self, dataset: xr.Dataset | None, case: Case, window: Window | None = None) -> Inputs:
        """The fields, or a window of them; ``dataset`` and ``case`` do not matter."""
        place = (slice(None), *(window or ()))
        return {"channels": np.ascontiguousarray(self._host[place])}

    def fields_by_name(self) -> dict[str, np.ndarray]:
        """Variable -> field (*grid) in physical units; of a variable with levels the first."""
        each = len(self._host) // len(self.settings.variables)
        return {name: self._host[index * each] for index, name in enumerate(self.settings.variables)}

    def description(self) -> dict[str, Any]:
        """The number of fields."""
        return {"channels": self.channels}

    @classmethod
    def restore(cls, name: str, settings: Any, grid: Grid, description: Mapping[str, Any]) -> Self:
        """The inverse of `description`."""
        return cls(name, settings, grid, channels=int(description["channels"]))


def _on_grid(name: str, data: xr.Dataset, training: Training) -> np.ndarray:
    """The fields (channel, *grid) in float64."""
    grid, levels = training.grid, training.target.channel_dims
    data = data.squeeze(
        [dim for dim in data.dims if dim not in (*grid.dims, *levels) and data.sizes[dim] == 1], drop=True
    )
    if extra := sorted(map(str, set(data.dims) - {*grid.dims, *levels})):
        raise SciffusionError(
            f"{name}: static fields vary along {', '.join(extra)}", f"choose one with select: {{{extra[0]}: ...}}"
        )
    source = Grid.from_dataset(data, grid.dims, grid.geometry, periodic_dims(data, grid), like=grid)
    return read(regrid(data, grid, source), Case(), list(map(str, data.data_vars)), grid.dims, levels, name=name)
