"""Small data sets as users have them, each unlike the others, made of random fields with a power-law spectrum."""

from pathlib import Path

import numpy as np
import xarray as xr

__all__ = ["box", "ensemble", "field", "masked_region", "precipitation"]


def field(rng: np.random.Generator, shape: tuple[int, ...], slope: float = 3.0, cases: int = 1) -> np.ndarray:
    """Periodic Gaussian fields (cases, *shape) of unit variance whose spectral density falls as k^-slope."""
    axes = tuple(range(1, len(shape) + 1))
    k = np.sqrt(sum(np.meshgrid(*[np.fft.fftfreq(n, 1 / n) ** 2 for n in shape], indexing="ij")))
    k.flat[0] = np.inf
    noise = np.fft.fftn(rng.standard_normal((cases, *shape)), axes=axes)
    fields = np.fft.ifftn(noise * np.maximum(k, 1) ** (-slope / 2) * np.isfinite(k), axes=axes).real
    return (fields / fields.std()).astype(np.float32)


def precipitation(folder: Path, days: int = 48, seed: int = 0) -> Path:
    """Global, 4 degrees, descending latitude, noleap: temperature and rain with zeros and a long tail."""
    rng = np.random.default_rng(seed)
    latitude, longitude = np.arange(88.0, -90, -4), np.arange(0.0, 360, 4)
    base = field(rng, (len(latitude), len(longitude)), cases=days)
    warm = 288 + 20 * np.cos(np.deg2rad(latitude))[:, None] + 5 * base
    rain = 8 * np.maximum(0.7 * field(rng, base.shape[1:], 2.5, days) + 0.5 * base - 0.4, 0) ** 2
    time = xr.date_range("2001-01-01", periods=days, calendar="noleap", use_cftime=True)
    data = xr.Dataset(
        {
            "tas": (("time", "lat", "lon"), warm.astype(np.float32), {"units": "K"}),
            "pr": (("time", "lat", "lon"), rain.astype(np.float32), {"units": "mm/day", "long_name": "precipitation"}),
        },
        coords={
            "time": time,
            "lat": ("lat", latitude, {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": ("lon", longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        },
    )
    path = folder / "global_rain.zarr"
    data.to_zarr(path, mode="w", consolidated=False)
    return path


def masked_region(folder: Path, hours: int = 48, seed: int = 1) -> Path:
    """A projected region of 2-km cells: sea surface temperature, missing on land, with 2-D latitudes."""
    rng = np.random.default_rng(seed)
    ny, nx = 50, 62
    smooth = field(rng, (64, 64), 3, hours)[:, :ny, :nx]
    land = field(rng, (64, 64), 4)[0, :ny, :nx] > 0.8
    sst = np.where(land, np.nan, 290 + 2 * smooth)
    x, y = 2000.0 * np.arange(nx), 2000.0 * np.arange(ny)
    data = xr.Dataset(
        {"sst": (("time", "y", "x"), sst.astype(np.float32), {"units": "K", "long_name": "sea surface temperature"})},
        coords={
            "time": np.datetime64("2020-06-01", "ns") + np.arange(hours) * np.timedelta64(6, "h"),
            "y": ("y", y, {"units": "m", "standard_name": "projection_y_coordinate"}),
            "x": ("x", x, {"units": "m", "standard_name": "projection_x_coordinate"}),
            "lat": (("y", "x"), 40 + y[:, None] / 111e3 + 0 * x, {"units": "degrees_north"}),
            "lon": (("y", "x"), 5 + x / 85e3 + 0 * y[:, None], {"units": "degrees_east"}),
        },
    )
    path = folder / "region.nc"
    data.to_netcdf(path)
    return path


def box(folder: Path, files: int = 4, each: int = 8, size: int = 16, seed: int = 2) -> Path:
    """A periodic box in several files without time or coordinates: density and one velocity component."""
    rng = np.random.default_rng(seed)
    for number in range(files):
        density = field(rng, (size,) * 3, 4, each)
        speed = 0.6 * density + 0.8 * field(rng, (size,) * 3, 4, each)
        dims = ("snapshot", "z", "y", "x")
        xr.Dataset({"rho": (dims, density), "w": (dims, speed)}).to_netcdf(folder / f"box_{number:02d}.nc")
    return folder / "box_*.nc"


def ensemble(folder: Path, days: int = 16, members: int = 5, seed: int = 3) -> Path:
    """Five realizations of a model's humidity on a regional lat-lon grid."""
    rng = np.random.default_rng(seed)
    latitude, longitude = np.linspace(35, 50.5, 32), np.linspace(-10, 9.5, 40)
    values = field(rng, (64, 64), 3, members * days).reshape(members, days, 64, 64)[..., :32, :40]
    data = xr.Dataset(
        {"huss": (("realization", "time", "lat", "lon"), 0.008 + 0.001 * values, {"units": "kg kg-1"})},
        coords={
            "realization": ("realization", np.arange(1, members + 1), {"standard_name": "realization"}),
            "time": np.datetime64("2015-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D"),
            "lat": ("lat", latitude, {"units": "degrees_north"}),
            "lon": ("lon", longitude, {"units": "degrees_east"}),
        },
    )
    path = folder / "realizations.nc"
    data.to_netcdf(path)
    return path
