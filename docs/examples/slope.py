"""A condition of one's own: the slope of the orography, as two channels that the emulator keeps."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr

from sciffusion.conditioners.base import Conditioner, Inputs, Training, Window
from sciffusion.config import CustomCondition
from sciffusion.fields.cases import Case
from sciffusion.fields.grid import Grid


class Slope(Conditioner):
    """Differences of the height between the neighbours of each cell, along both axes."""

    kind: ClassVar[str] = "slope"
    settings_type: ClassVar[type] = CustomCondition
    varies: ClassVar[bool] = False  # the same in every case, so it is read once

    def __init__(self, name: str, settings: CustomCondition, grid: Grid) -> None:
        super().__init__(name, settings, grid, channels=2)
        self.register_buffer("slopes", torch.zeros(2, *grid.shape))  # buffers are saved with the model

    @classmethod
    def build(cls, name: str, settings: CustomCondition, data: xr.Dataset | None, training: Training) -> "Slope":
        """Called once, before training: measure everything that the condition needs."""
        assert data is not None
        height = data[settings.options["variable"]].transpose(*training.grid.dims).values
        conditioner = cls(name, settings, training.grid)
        slopes = np.stack(np.gradient(height)).astype(np.float32)
        conditioner.slopes.copy_(torch.from_numpy(slopes))
        conditioner.scale.copy_(torch.from_numpy(slopes.std(axis=(1, 2))))  # `forward` divides by it
        return conditioner

    def prepare(self, dataset: xr.Dataset | None, case: Case, window: Window | None = None) -> Inputs:
        """Called in the workers: the arrays of a case, or of a window of the grid."""
        return {"channels": self.slopes.cpu().numpy()[(slice(None), *(window or ()))]}

    def parity(self, dim: str) -> np.ndarray:
        """A slope changes its sign when its axis is mirrored."""
        return np.array([-1.0 if dim == axis else 1.0 for axis in self.grid.dims], np.float32)

    @classmethod
    def restore(cls, name: str, settings: Any, grid: Grid, description: Mapping[str, Any]) -> "Slope":
        """Called when a model is loaded; tensors follow by themselves."""
        return cls(name, settings, grid)
