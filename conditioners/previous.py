"""Earlier states as a condition: what a forecast starts from, and the persistence that it is the change of.

A case is served by the entries before it, so the same data serve training, where the case is among them, and a
forecast, where it is not yet. In training noise may be added, whose level the network is told: a forecast's own states
are not perfect either, and a network that expects that is steadier over many steps (Sanchez-Gonzalez et al. 2020,
arXiv:2002.09405; as in cascades, Ho et al. 2021, arXiv:2106.15282).
"""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import cftime
import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion import config
from sciffusion.conditioners.base import Conditioner, Inputs, Training, Window
from sciffusion.conditioners.ranges import Moments
from sciffusion.conditioners.reading import noted, read
from sciffusion.context import Context
from sciffusion.errors import SciffusionError
from sciffusion.fields.axes import positions
from sciffusion.fields.cases import Case
from sciffusion.fields.conventions import harmonise
from sciffusion.fields.grid import Grid
from sciffusion.fields.template import Template

__all__ = ["Previous"]

Channels = tuple[tuple[str, int], ...]


class Previous(Conditioner):
    """States ``lags`` entries before a case, standardised; ``step`` is the usual distance of entries in training.

    channels of one state are ``names``; ``target`` are those of the target, which `baseline` gives.
    """

    kind: ClassVar[str] = "previous"
    settings_type: ClassVar[type[config.Settings]] = config.Previous
    needs_data: ClassVar[bool] = True
    looks_back: ClassVar[bool] = True
    settings: config.Previous

    def __init__(
        self, name: str, settings: config.Previous, grid: Grid, template: Template, target: Channels, step: float,
        odd: Mapping[str, Sequence[str]],
    ) -> None:  # fmt: skip
        self.template, self.target, self.step, self.odd = template, target, step, dict(odd)
        self.variables = list(template.fields)
        self.names = tuple(
            (variable, index)
            for variable in self.variables
            for index in range(
                int(np.prod([template.sizes[d] for d in template.channel_dims if d in _dims(template, variable)]))
            )
        )
        channels = len(self.names) * len(settings.lags)
        super().__init__(name, settings, grid, channels=channels, features=int(settings.noise > 0))

    @classmethod
    def build(cls, name: str, settings: config.Previous, data: xr.Dataset | None, training: Training) -> "Previous":
        """Measure mean and spread of the states."""
        data = training.data if data is None else data
        variables = settings.variables or list(training.target.variables)
        if settings.dim not in data.dims:
            raise SciffusionError(
                f"{name}: no dim {settings.dim!r} to look back along", "name the time dim with dim: ..."
            )
        levels = [dim for dim in training.target.channel_dims if dim in data[variables].dims]
        template = Template.of(data[variables], training.grid.dims, levels)
        steps = np.diff(_line(data, settings.dim))
        odd = {v: list(how.odd_along) for v, how in training.target.variables.items() if v in variables}
        step = float(np.median(steps)) if len(steps) else 0.0
        conditioner = cls(name, settings, training.grid, template, training.channels, step, odd)
        moments = Moments(len(conditioner.names))
        for case in training.cases:
            moments.update(conditioner._state(data, case, settings.lags[0]))
        offset, scale = moments.standardisation([bool(odd.get(variable)) for variable, _ in conditioner.names])
        conditioner.offset.copy_(torch.from_numpy(np.tile(offset, len(settings.lags))))
        conditioner.scale.copy_(torch.from_numpy(np.tile(scale, len(settings.lags))))
        return conditioner

    @property
    def core_dims(self) -> tuple[str, ...]:
        """Grid dims and channel dims."""
        return (*self.grid.dims, *self.template.channel_dims)

    def serves(self, dataset: xr.Dataset, case: Case) -> bool:
        """Whether there are enough entries before the case."""
        return self.place(dataset, case) >= max(self.settings.lags)

    def place(self, dataset: xr.Dataset, case: Case) -> int:
        """How many entries of ``dataset`` come before the case."""
        value = case.values[self.settings.dim]
        if self.settings.dim not in dataset.coords:
            return int(value)
        return int(np.sum(dataset[self.settings.dim].values < value))

    def _state(self, dataset: xr.Dataset, case: Case, lag: int, window: Window | None = None) -> np.ndarray:
        """The state ``lag`` entries before the case, (channel, *window), NaN where missing."""
        dim, place = self.settings.dim, self.place(dataset, case)
        if place < lag:
            raise SciffusionError(
                f"{self.name}: {case} has {place} entries before it, and {lag} are needed", "choose later cases"
            )
        others = Case((), {d: v for d, v in case.values.items() if d != dim}, case.indices)
        state = dataset.isel({dim: place - lag})
        return read(
            state, others, self.variables, self.grid.dims, self.template.channel_dims, window=window, name=self.name
        )

    def prepare(self, dataset: xr.Dataset | None, case: Case, window: Window | None = None) -> Inputs:
        """The states, one lag after the other; what is missing counts as the mean."""
        assert dataset is not None, f"{self.name}: no data"
        states = np.concatenate([self._state(dataset, case, lag, window) for lag in self.settings.lags])
        mean = self.offset.double().cpu().numpy().reshape(-1, *[1] * self.grid.rank)
        inputs = {"channels": np.where(np.isfinite(states), states, mean).astype(np.float32)}
        return inputs | ({"vector": np.zeros(1, np.float32)} if self.features else {})

    def baseline(self, dataset: xr.Dataset | None, case: Case, window: Window | None = None) -> np.ndarray:
        """The latest state as a first guess: float32 (target channel, *window), NaN for channels that it has not."""
        assert dataset is not None, f"{self.name}: no data"
        state = self._state(dataset, case, min(self.settings.lags), window)
        guess = np.full((len(self.target), *state.shape[1:]), np.nan, np.float32)
        for place, channel in enumerate(self.target):
            if channel in self.names:
                guess[place] = state[self.names.index(channel)]
        return guess

    def forward(self, inputs: Mapping[str, Tensor], keep: Tensor) -> Context:
        """The states; in training with noise, whose level (0 otherwise) is the vector."""
        context = super().forward(inputs, keep)
        if not self.features or not self.training:
            return context
        level = self.settings.noise * torch.rand(len(keep), device=keep.device)
        channels = context.channels
        assert channels is not None
        noise = level.reshape(-1, *[1] * (channels.ndim - 1)) * torch.randn_like(channels)
        return Context(channels=channels + noise, vector=level[:, None])

    def parity(self, dim: str) -> np.ndarray:
        """-1 for components that are odd along ``dim``."""
        signs = [-1.0 if dim in self.odd.get(variable, []) else 1.0 for variable, _ in self.names]
        return np.array(signs * len(self.settings.lags), np.float32)

    def accept(self, dataset: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
        """Rename, convert, reorder and regrid."""
        with noted("sciffusion.fields.conventions") as notes:
            accepted = harmonise(dataset, self.template, name=self.name)
        return accepted, notes

    def after(self, value: Any) -> Any:
        """The coordinate one step after ``value``."""
        if isinstance(value, np.datetime64):
            return value + np.timedelta64(round(self.step * 1e9), "ns")
        if isinstance(value, cftime.datetime):
            return value + datetime.timedelta(seconds=self.step)
        return value + type(value)(self.step)

    def description(self) -> dict[str, Any]:
        """What its data look like."""
        return {
            "template": self.template.to_json(),
            "target": [list(channel) for channel in self.target],
            "step": self.step,
            "odd": {name: list(dims) for name, dims in self.odd.items()},
        }

    @classmethod
    def restore(cls, name: str, settings: Any, grid: Grid, description: Mapping[str, Any]) -> Self:
        """The inverse of `description`."""
        target = tuple((str(variable), int(index)) for variable, index in description["target"])
        template = Template.from_json(description["template"])
        return cls(name, settings, grid, template, target, float(description["step"]), description["odd"])


def _dims(template: Template, variable: str) -> tuple[str, ...]:
    return template.fields[variable].dims


def _line(data: xr.Dataset, dim: str) -> np.ndarray:
    """The coordinate as numbers; times in seconds."""
    return positions(data[dim].values) if dim in data.coords else np.arange(data.sizes[dim], dtype=float)
