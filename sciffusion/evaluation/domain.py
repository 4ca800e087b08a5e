"""What scores need to know of a grid: cell areas, regions that serve as spatial blocks, the basis of its spectra."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.cosine import CosineShells
from sciffusion.evaluation.films import Films
from sciffusion.evaluation.spectra import EARTH_RADIUS, Basis, Shells, Zonal
from sciffusion.fields.grid import Grid
from sciffusion.fields.roles import FRAME

__all__ = ["BANDS", "Domain", "Window", "length_unit"]

Window = Literal["hann", "dct"]
BANDS = {"90S-30S": (-90.0, -30.0), "30S-30N": (-30.0, 30.0), "30N-90N": (30.0, 90.0)}
ZONE = 30.0  # degrees of latitude of a region on the sphere
SECTOR = 45.0  # degrees of longitude of a region on the sphere
TILES = {1: 16, 2: 5, 3: 3}  # regions along each axis elsewhere, by rank


@dataclass(frozen=True)
class Domain:
    """``weights`` (*grid) are cell areas with mean 1; ``regions`` (*grid) index ``region_names``."""

    grid: Grid
    weights: np.ndarray
    regions: np.ndarray
    region_names: tuple[str, ...]
    basis: Basis

    @classmethod
    def of(cls, grid: Grid, window: Window = "hann") -> "Domain":
        """Bands of latitude and sectors on a globe, tiles elsewhere; ``window`` is for spectra of open domains.

        Films have areas, regions and spectra of their frames.
        """
        if FRAME in grid.dims and grid.rank > 1:
            return cls._of_films(grid, window)
        if window == "dct" and any(grid.periodic):
            raise SciffusionError("a cosine transform of a domain that wraps around", "leave the window at its default")
        sphere = _horizontal(grid)
        if sphere and grid.periodic[sphere[1]]:
            regions, names = _globe_regions(grid, *sphere)
            return cls(grid, grid.cell_area(), regions, names, _zonal(grid, *sphere))
        regions, names = _tiles(grid)
        return cls(grid, grid.cell_area(), regions, names, _shells(grid, sphere, window))

    @classmethod
    def _of_films(cls, grid: Grid, window: Window) -> "Domain":
        axis, still = grid.dims.index(FRAME), cls.of(grid.without(FRAME), window)
        weights, regions = (
            np.broadcast_to(np.expand_dims(each, axis), grid.shape) for each in (still.weights, still.regions)
        )
        return cls(grid, weights, regions, still.region_names, Films(still.basis, axis))


def _horizontal(grid: Grid) -> tuple[int, int] | None:
    """Axes of latitude and longitude of a sphere whose grid has just these two."""
    if grid.rank != 2 or grid.latitude_axis is None or grid.longitude_axis is None:
        return None
    return grid.latitude_axis, grid.longitude_axis


def _globe_regions(grid: Grid, north: int, east: int) -> tuple[np.ndarray, tuple[str, ...]]:
    zones, sectors = round(180 / ZONE), round(360 / SECTOR)
    zone = np.clip(np.floor((grid.positions(north) + 90) / ZONE).astype(int), 0, zones - 1)
    sector = np.floor(np.mod(grid.positions(east), 360) / SECTOR).astype(int) % sectors
    index = zone[:, None] * sectors + sector[None, :]
    names = [
        f"{_degrees(-90 + i * ZONE)}..{_degrees(-90 + (i + 1) * ZONE)} {j * SECTOR:g}..{(j + 1) * SECTOR:g}E"
        for i in range(zones)
        for j in range(sectors)
    ]
    there, index = np.unique(index, return_inverse=True)  # a hemisphere or the tropics alone have fewer
    index = index.reshape(zone.size, sector.size)
    return index if north == 0 else index.T, tuple(names[place] for place in there)


def _degrees(latitude: float) -> str:
    return f"{abs(latitude):g}{'S' if latitude < 0 else 'N'}" if latitude else "0"


def _tiles(grid: Grid) -> tuple[np.ndarray, tuple[str, ...]]:
    parts = [min(TILES[grid.rank], n) for n in grid.shape]
    index = np.zeros(grid.shape, dtype=int)
    for axis, (n, count) in enumerate(zip(grid.shape, parts, strict=True)):
        along = (np.arange(n) * count // n).reshape([-1 if i == axis else 1 for i in range(grid.rank)])
        index = index * count + along
    names = [
        " ".join(f"{d}{i + 1}/{c}" for d, i, c in zip(grid.dims, place, parts, strict=True))
        for place in np.ndindex(*parts)
    ]
    return index, tuple(names)


def _zonal(grid: Grid, north: int, east: int) -> Zonal:
    latitude = grid.positions(north)
    rows = {name: _inside(latitude, low, high) for name, (low, high) in BANDS.items()}
    rows = {name: inside for name, inside in rows.items() if inside.any()}
    weights = grid.cell_area().mean(axis=east)
    return Zonal(weights, np.stack(list(rows.values())), tuple(rows), grid.shape[east], (north, east))


def _inside(latitude: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rows of a band; a row on the edge of two bands belongs to the one nearer the equator."""
    above = latitude >= low if low <= 0 else latitude > low
    below = latitude <= high if high >= 0 else latitude < high
    return above & below


def _shells(grid: Grid, sphere: tuple[int, int] | None, window: Window) -> Shells:
    """Isotropic shells; a region of a sphere is measured in km at its middle latitude."""
    shells = CosineShells if window == "dct" else Shells
    if sphere is None:
        units = {length_unit(grid, axis) for axis in range(grid.rank)}
        factor, name = units.pop() if len(units) == 1 else (1.0, "")
        return shells(grid.shape, tuple(factor * d for d in grid.spacing), tuple(grid.periodic), name)
    north, east = sphere
    degree = np.pi * EARTH_RADIUS / 180
    middle = np.cos(np.deg2rad(grid.positions(north).mean()))
    spacing = [0.0, 0.0]
    spacing[north], spacing[east] = grid.spacing[north] * degree, grid.spacing[east] * degree * middle
    return shells(grid.shape, tuple(spacing), tuple(grid.periodic), "km")


def length_unit(grid: Grid, axis: int) -> tuple[float, str]:
    """Factor and name of the unit in which lengths along ``axis`` are shown: metres become km, no coordinate cells."""
    if grid.coords[axis] is None and grid.spacing[axis] == 1:
        return 1.0, "cells"
    unit = str(grid.attrs[axis].get("units", ""))
    return (1e-3, "km") if unit in ("m", "metre", "metres", "meter", "meters") else (1.0, unit)
