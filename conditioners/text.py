"""Text per case, as tokens of a frozen sentence encoder: a regime can be asked for in words.

Texts are read from the condition's data, or made of the target's regimes: below, within or above the middle third of
the training cases, in the mean over the domain and in the variability across it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr
from torch import Tensor

from sciffusion import config
from sciffusion.conditioners import text_encoder
from sciffusion.conditioners.base import Conditioner, Inputs, Training, Window
from sciffusion.conditioners.reading import read
from sciffusion.conditioners.tokens import Tokens
from sciffusion.context import Context
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Case, select
from sciffusion.fields.grid import Grid

__all__ = ["Text"]

MEAN, SPREAD = ("low", "medium", "high"), ("weak", "moderate", "strong")
Thirds = tuple[float, float]


class Text(Conditioner):
    """Tokens of each case's text. ``thirds``: variable -> limits of the middle third of (means, sds) in training."""

    kind: ClassVar[str] = "text"
    settings_type: ClassVar[type[config.Settings]] = config.Text
    needs_data: ClassVar[bool] = True
    settings: config.Text

    def __init__(
        self, name: str, settings: config.Text, grid: Grid, *, thirds: Mapping[str, tuple[Thirds, Thirds]] | None = None
    ) -> None:
        super().__init__(name, settings, grid)
        self.thirds, self.tokens = dict(thirds or {}), settings.width
        self.embed = Tokens(text_encoder.WIDTH, settings.width)

    @classmethod
    def build(cls, name: str, settings: config.Text, data: xr.Dataset | None, training: Training) -> "Text":
        """Measure the regimes of the training cases, where texts are made of them. Raises without the encoder."""
        text_encoder.require()
        if settings.source is not None:
            return cls(name, settings, training.grid)
        thirds = {}
        for variable in settings.regimes or list(training.target.variables)[:1]:
            moments = np.array([_moments(training.data, case, variable, training.grid) for case in training.cases])
            limits = np.quantile(moments, [1 / 3, 2 / 3], axis=0).T
            thirds[variable] = ((float(limits[0, 0]), float(limits[0, 1])), (float(limits[1, 0]), float(limits[1, 1])))
        return cls(name, settings, training.grid, thirds=thirds)

    @property
    def core_dims(self) -> tuple[str, ...]:
        """Grid dims, which the target has where texts are made of it."""
        return self.grid.dims

    def text(self, dataset: xr.Dataset | None, case: Case) -> str:
        """The text of a case: as given, else made of its regime."""
        assert dataset is not None, f"{self.name}: no data"
        variable = self.settings.variables[0]
        if variable in dataset:
            value = select(dataset[[variable]], case, self.settings.align)[variable].values
            return str(np.asarray(value).item())
        return ", ".join(self._regime(dataset, case, name) for name in self.thirds)

    def _regime(self, dataset: xr.Dataset, case: Case, variable: str) -> str:
        words = [
            names[int(np.searchsorted(limits, value))]
            for names, limits, value in zip(
                (MEAN, SPREAD), self.thirds[variable], _moments(dataset, case, variable, self.grid), strict=True
            )
        ]
        return f"{words[0]} {variable} with {words[1]} variability"

    def prepare(self, dataset: xr.Dataset | None, case: Case, window: Window | None = None) -> Inputs:
        """Features and mask of the tokens; the window does not matter."""
        features, mask = text_encoder.encode(self.text(dataset, case), self.settings.tokens)
        return {"tokens": features, "token_mask": mask}

    def forward(self, inputs: Mapping[str, Tensor], keep: Tensor) -> Context:
        """Tokens of a batch."""
        context: Context = self.embed(inputs["tokens"], inputs["token_mask"], keep)
        return context

    def accept(self, dataset: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
        """Texts, or the variables that they are made of. Raises SciffusionError for neither."""
        variable = self.settings.variables[0]
        if variable in dataset:
            return dataset[[variable]], []
        missing = [name for name in self.thirds if name not in dataset]
        if missing or not self.thirds:
            raise SciffusionError(f"{self.name}: no variable {variable!r}", "give a text per case, or one for all")
        return dataset[list(self.thirds)], [f"texts are made of the regimes of {', '.join(self.thirds)}"]

    def description(self) -> dict[str, Any]:
        """The regimes."""
        return {"thirds": {name: [list(limits) for limits in both] for name, both in self.thirds.items()}}

    @classmethod
    def restore(cls, name: str, settings: Any, grid: Grid, description: Mapping[str, Any]) -> Self:
        """The inverse of `description`."""
        thirds: Any = {n: tuple(tuple(limits) for limits in both) for n, both in description["thirds"].items()}
        return cls(name, settings, grid, thirds=thirds)


def _moments(data: xr.Dataset, case: Case, variable: str, grid: Grid) -> Sequence[float]:
    """Area-weighted mean and sd over the domain, of the first level."""
    levels = [str(dim) for dim in data[variable].dims if dim not in case.dims + grid.dims]
    field = read(data, case, [variable], grid.dims, levels)[0]
    weights = np.where(np.isfinite(field), grid.cell_area(), 0.0)
    weights = weights / weights.sum()
    mean = float((weights * np.nan_to_num(field)).sum())
    return mean, float(np.sqrt((weights * np.nan_to_num(field - mean) ** 2).sum()))
