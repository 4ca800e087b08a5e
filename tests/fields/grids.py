"""Grids of every kind that the door must take, for the tests of this room."""

import numpy as np
import xarray as xr

from sciffusion.fields.grid import Grid


def dataset(**coords):
    """A dataset with one variable of zeros on 1-D coordinates; an int stands for a size without coordinate."""
    shape = [c if isinstance(c, int) else len(c) for c in coords.values()]
    named = {k: c for k, c in coords.items() if not isinstance(c, int)}
    return xr.Dataset({"field": (tuple(coords), np.zeros(shape))}, coords=named)


def pole_rows(step=5.0):
    """ERA5's kind: descending latitudes with both poles as rows."""
    lat, lon = np.arange(90, -90 - step / 2, -step), np.arange(0, 360, step)
    return Grid.from_dataset(dataset(lat=lat, lon=lon), ("lat", "lon"), "sphere", ["lon"])


def gaussian(rows=24, columns=48):
    """A GCM's kind: Gaussian latitudes, ascending."""
    lat = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))
    lon = np.arange(columns) * 360 / columns
    return Grid.from_dataset(dataset(latitude=lat, longitude=lon), ("latitude", "longitude"), "sphere", ["longitude"])


def regional():
    """A regional part of the sphere across Greenwich."""
    return Grid.from_dataset(dataset(lat=np.arange(30, 50.0), lon=np.arange(-10, 14.0)), ("lat", "lon"), "sphere")


def stretched():
    """A plane with uneven spacing, one axis descending."""
    y, x = -np.cumsum(np.linspace(1, 3, 20)), np.cumsum(np.linspace(2, 1, 24))
    return Grid.from_dataset(dataset(y=y, x=x), ("y", "x"))


def box(size=12):
    """A periodic 3-D box without coordinates."""
    return Grid.from_dataset(
        dataset(z=size, y=size, x=size), ("z", "y", "x"), periodic=["y", "x"], spacing={"z": 2.0, "y": 0.5, "x": 0.5}
    )


ALL = {make.__name__: make for make in (pole_rows, gaussian, regional, stretched, box)}
