"""Clocks of a case: time of day and day of year as a vector, local solar time as channels.

Each clock is a phase p in [0, 1) and enters as cos 2 pi p, sin 2 pi p. Every calendar works, because a phase is a share
of that calendar's own day or year.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import cftime
import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion import config
from sciffusion.conditioners.base import Conditioner, Inputs, Training, Window
from sciffusion.conditioners.position import coordinate
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Case
from sciffusion.fields.grid import Grid

__all__ = ["Calendar", "day_of_year", "time_of_day"]

SEASONS = 12  # parts of the year that are remembered as seen


class Calendar(Conditioner):
    """Cosine and sine of the clocks that the settings name."""

    kind: ClassVar[str] = "calendar"
    settings_type: ClassVar[type[config.Settings]] = config.Calendar
    settings: config.Calendar
    seen: Tensor

    def __init__(self, name: str, settings: config.Calendar, grid: Grid) -> None:
        solar = "local_solar_time" in settings.features
        clocks = len(set(settings.features) - {"local_solar_time"})
        super().__init__(name, settings, grid, channels=2 * solar, features=2 * clocks)
        self.longitudes = _longitudes(grid, name) if solar else None
        self.register_buffer("seen", torch.zeros(SEASONS, dtype=torch.bool))

    @classmethod
    def build(cls, name: str, settings: config.Calendar, data: xr.Dataset | None, training: Training) -> "Calendar":
        """Remember the seasons of the training cases."""
        conditioner = cls(name, settings, training.grid)
        for case in training.cases:
            conditioner.seen[_season(conditioner._time(case))] = True
        return conditioner

    def _time(self, case: Case) -> Any:
        value = case.values.get(self.settings.dim)
        if isinstance(value, (np.datetime64, cftime.datetime)):
            return value
        known = ", ".join(case.dims) or "none"
        raise SciffusionError(
            f"{self.name}: {self.settings.dim!r} is not a time coordinate of the cases (case dims: {known})",
            "name the time dim with dim: ..., or remove this condition",
        )

    def prepare(self, dataset: xr.Dataset | None, case: Case, window: Window | None = None) -> Inputs:
        """The clocks at the time of the case."""
        time, inputs = self._time(case), Inputs()
        clocks = {"time_of_day": time_of_day, "day_of_year": day_of_year}
        phases = [clocks[feature](time) for feature in self.settings.features if feature in clocks]
        if phases:
            inputs["vector"] = np.concatenate([_circle(np.float64(phase)).ravel() for phase in phases]).astype(
                np.float32
            )
        if self.longitudes is not None:
            inputs["channels"] = self._solar(time, window)
        return inputs

    def _solar(self, time: Any, window: Window | None) -> np.ndarray:
        """Mean solar time: that of the zero meridian, and one day more per turn eastward."""
        assert self.longitudes is not None
        window = window or (slice(None),) * self.grid.rank
        cuts = tuple(w if n > 1 else slice(None) for w, n in zip(window, self.longitudes.shape, strict=True))
        phase = time_of_day(time) + self.longitudes[cuts] / 360.0
        shape = tuple(len(range(*w.indices(n))) for w, n in zip(window, self.grid.shape, strict=True))
        return np.broadcast_to(_circle(phase), (2, *shape)).astype(np.float32)

    def vector_parity(self, dim: str) -> np.ndarray:
        """-1 for the season when the hemispheres change places: there it is half a year later."""
        axis = self.grid.latitude_axis
        mirrored = axis is not None and self.grid.dims[axis] == dim
        clocks = [feature for feature in self.settings.features if feature != "local_solar_time"]
        signs = [-1.0 if mirrored and feature == "day_of_year" else 1.0 for feature in clocks for _ in range(2)]
        return np.array(signs, np.float32)

    def outside(self, dataset: xr.Dataset | None, case: Case) -> list[str]:
        """Whether the season was seen in training."""
        if "day_of_year" not in self.settings.features or bool(self.seen[_season(self._time(case))]):
            return []
        return ["season, none of the training cases is from this part of the year"]

    @classmethod
    def restore(cls, name: str, settings: Any, grid: Grid, description: Mapping[str, Any]) -> Self:
        """The inverse of `description`."""
        return cls(name, settings, grid)


def time_of_day(time: np.datetime64 | cftime.datetime) -> float:
    """Share of the day that has passed (UTC)."""
    if isinstance(time, cftime.datetime):
        seconds = time.hour * 3600 + time.minute * 60 + time.second + time.microsecond * 1e-6
        return float(seconds / 86400)
    return float((time - time.astype("datetime64[D]")) / np.timedelta64(1, "D"))


def day_of_year(time: np.datetime64 | cftime.datetime) -> float:
    """Share of the year that has passed, in the calendar of ``time``."""
    if isinstance(time, cftime.datetime):
        start, end = (cftime.datetime(year, 1, 1, calendar=time.calendar, has_year_zero=time.has_year_zero)
                      for year in (time.year, time.year + 1))  # fmt: skip
        return float((time - start) / (end - start))
    year = time.astype("datetime64[Y]")
    length = (year + np.timedelta64(1, "Y")).astype("datetime64[D]") - year.astype("datetime64[D]")
    return float((time - year.astype("datetime64[D]")) / length)


def _season(time: Any) -> int:
    return int(day_of_year(time) * SEASONS) % SEASONS


def _circle(phase: np.ndarray | np.float64) -> np.ndarray:
    """Cosine and sine, (2, ...)."""
    return np.stack([np.cos(2 * np.pi * phase), np.sin(2 * np.pi * phase)])


def _longitudes(grid: Grid, name: str) -> np.ndarray:
    """Longitudes in degrees, shaped to broadcast over the grid."""
    degrees = coordinate(grid, "longitude")
    if degrees is None:
        raise SciffusionError(f"{name}: local_solar_time needs longitudes", "remove it, or give the grid longitudes")
    return degrees
