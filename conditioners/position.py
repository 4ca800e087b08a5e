"""Where each cell is: sine of its latitude, Fourier features of its place in the domain.

Computed for the window asked for, so that large domains cost no memory.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
import xarray as xr

from sciffusion import config
from sciffusion.conditioners.base import Conditioner, Inputs, Training, Window
from sciffusion.errors import SciffusionError
from sciffusion.fields.axes import find_axis
from sciffusion.fields.cases import Case
from sciffusion.fields.grid import Grid

__all__ = ["Position", "coordinate"]


class Position(Conditioner):
    """Channels that depend on the cell only.

    latitude: sin(latitude). fourier: per axis and k = 1 ... frequencies, cos and sin of 2 pi k u where the axis is
    periodic and of pi k u elsewhere, u in [0, 1] the place between the edges of the domain.
    """

    kind: ClassVar[str] = "position"
    settings_type: ClassVar[type[config.Settings]] = config.Position
    varies: ClassVar[bool] = False
    settings: config.Position

    def __init__(self, name: str, settings: config.Position, grid: Grid) -> None:
        self.latitudes = _latitudes(grid, name) if "latitude" in settings.features else None
        waves = 2 * settings.frequencies * grid.rank if "fourier" in settings.features else 0
        super().__init__(name, settings, grid, channels=(self.latitudes is not None) + waves)

    @classmethod
    def build(cls, name: str, settings: config.Position, data: xr.Dataset | None, training: Training) -> "Position":
        """Nothing is fitted."""
        return cls(name, settings, training.grid)

    def prepare(self, dataset: xr.Dataset | None, case: Case, window: Window | None = None) -> Inputs:
        """The channels on the window; ``dataset`` and ``case`` do not matter."""
        window = window or (slice(None),) * self.grid.rank
        shape = tuple(len(range(*w.indices(n))) for w, n in zip(window, self.grid.shape, strict=True))
        parts = [np.broadcast_to(part, shape) for part in self._parts(window)]
        return {"channels": np.stack(parts).astype(np.float32)}

    def _parts(self, window: Window) -> Iterator[np.ndarray]:
        if self.latitudes is not None:
            sizes = self.latitudes.shape
            cut = tuple(w if n > 1 else slice(None) for w, n in zip(window, sizes, strict=True))
            yield np.sin(np.deg2rad(self.latitudes[cut]))
        if "fourier" in self.settings.features:
            for axis in range(self.grid.rank):
                yield from self._waves(axis, window[axis])

    def _waves(self, axis: int, cut: slice) -> Iterator[np.ndarray]:
        edges = self.grid.axis_bounds(axis)
        place = (self.grid.positions(axis)[cut] - edges.min()) / (edges.max() - edges.min())
        place = place.reshape([-1 if other == axis else 1 for other in range(self.grid.rank)])
        turn = 2 * np.pi if self.grid.periodic[axis] else np.pi
        for k in range(1, self.settings.frequencies + 1):
            yield np.cos(turn * k * place)
            yield np.sin(turn * k * place)

    def parity(self, dim: str) -> np.ndarray:
        """Sine of latitude is odd across the equator; u becomes 1 - u, so half waves alternate and sines are odd."""
        axis = self.grid.dims.index(dim)
        signs = [] if self.latitudes is None else [-1.0 if axis == self.grid.latitude_axis else 1.0]
        if "fourier" in self.settings.features:
            for other in range(self.grid.rank):
                for k in range(1, self.settings.frequencies + 1):
                    even = 1.0 if other != axis or self.grid.periodic[axis] else (-1.0) ** k
                    signs += [even, even if other != axis else -even]
        return np.array(signs, np.float32)

    @classmethod
    def restore(cls, name: str, settings: Any, grid: Grid, description: Mapping[str, Any]) -> Self:
        """The inverse of `description`."""
        return cls(name, settings, grid)


def coordinate(grid: Grid, kind: Literal["latitude", "longitude"]) -> np.ndarray | None:
    """Latitudes or longitudes in degrees, shaped to broadcast over the grid: of an axis, or of a 2-D coordinate."""
    axis = grid.latitude_axis if kind == "latitude" else grid.longitude_axis
    if axis is not None:
        return grid.positions(axis).reshape([-1 if other == axis else 1 for other in range(grid.rank)])
    names = list(grid.auxiliary)
    found = find_axis(kind, names, [grid.auxiliary[name][2] for name in names])
    if found is None:
        return None
    dims, values, _ = grid.auxiliary[names[found]]
    order = [dims.index(dim) for dim in grid.dims if dim in dims]
    shape = [grid.shape[i] if dim in dims else 1 for i, dim in enumerate(grid.dims)]
    return np.asarray(values, np.float64).transpose(order).reshape(shape)


def _latitudes(grid: Grid, name: str) -> np.ndarray:
    degrees = coordinate(grid, "latitude")
    if degrees is None:
        raise SciffusionError(f"{name}: the grid has no latitudes", "remove latitude from its features")
    return degrees
