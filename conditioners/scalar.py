"""Scalars per case (forcings, climate indices) as a standardised vector."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion import config
from sciffusion.conditioners.base import Conditioner, Inputs, Training, Window
from sciffusion.conditioners.ranges import Moments, beyond
from sciffusion.conditioners.reading import noted, read, told_names
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Case
from sciffusion.fields.conventions import convert_units, match_names
from sciffusion.fields.grid import Grid
from sciffusion.fields.template import Template

__all__ = ["Scalar"]


class Scalar(Conditioner):
    """One feature per variable, standardised over the training cases."""

    kind: ClassVar[str] = "scalar"
    settings_type: ClassVar[type[config.Settings]] = config.Scalar
    needs_data: ClassVar[bool] = True
    settings: config.Scalar
    low: Tensor
    high: Tensor

    def __init__(self, name: str, settings: config.Scalar, grid: Grid, *, template: Template) -> None:
        self.template = template
        super().__init__(name, settings, grid, features=len(settings.variables))
        for key in ("low", "high"):
            self.register_buffer(key, torch.zeros(self.features))

    @classmethod
    def build(cls, name: str, settings: config.Scalar, data: xr.Dataset | None, training: Training) -> "Scalar":
        """Measure mean, spread and range over the training cases."""
        if data is None:
            raise SciffusionError(f"{name}: no data", "give the condition a source")
        conditioner = cls(name, settings, training.grid, template=Template.of(data[settings.variables], ()))
        moments = Moments.of((conditioner._values(data, case) for case in training.cases), conditioner.features)
        offset, scale = moments.standardisation()
        buffers = {"vector_offset": offset, "vector_scale": scale, "low": moments.low, "high": moments.high}
        for key, values in buffers.items():
            getattr(conditioner, key).copy_(torch.from_numpy(values))
        return conditioner

    @property
    def core_dims(self) -> tuple[str, ...]:
        """None: every dim of a scalar is a case dim."""
        return ()

    def _values(self, dataset: xr.Dataset | None, case: Case) -> np.ndarray:
        assert dataset is not None, f"{self.name}: no data"
        values = read(dataset, case, self.settings.variables, (), align=self.settings.align, name=self.name)
        if np.isnan(values).any():
            missing = self.settings.variables[int(np.flatnonzero(np.isnan(values))[0])]
            raise SciffusionError(
                f"{self.name}: {missing} is missing for {case}", "fill the gap, or leave the case out"
            )
        return values

    def prepare(self, dataset: xr.Dataset | None, case: Case, window: Window | None = None) -> Inputs:
        """The scalars of one case; the window does not matter."""
        return {"vector": self._values(dataset, case).astype(np.float32)}

    def accept(self, dataset: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
        """Rename and convert units."""
        told = told_names(self.settings.source, dataset)
        with noted("sciffusion.fields.conventions") as notes:
            accepted = match_names(dataset, self.template, rename=told, name=self.name)
            accepted = convert_units(accepted, self.template, name=self.name)
        return accepted, notes

    def outside(self, dataset: xr.Dataset | None, case: Case) -> list[str]:
        """Variables beyond their range over the training cases."""
        values = self._values(dataset, case)
        low, high = self.low.double().cpu().numpy(), self.high.double().cpu().numpy()
        return beyond(self.settings.variables, low, high, values, values)

    def description(self) -> dict[str, Any]:
        """Names and units."""
        return {"template": self.template.to_json()}

    @classmethod
    def restore(cls, name: str, settings: Any, grid: Grid, description: Mapping[str, Any]) -> Self:
        """The inverse of `description`."""
        return cls(name, settings, grid, template=Template.from_json(description["template"]))
