"""Small data sets unlike each other, as researchers have them, with structure that the survey must find."""

import argparse

import cftime
import numpy as np
import xarray as xr
import zarr

from sciffusion.cli import init
from sciffusion.config import load_experiment
from sciffusion.fields.coarsen import conservative
from sciffusion.fields.grid import Grid


def smooth(rng, shape, periodic, scale=3.0):
    """A smooth random field: noise filtered in Fourier space; without wrap it is cut out of a larger one."""
    wide = [size if wraps else 2 * size for size, wraps in zip(shape, periodic, strict=True)]
    noise = np.fft.fftn(rng.standard_normal(wide))
    k = np.meshgrid(*[np.fft.fftfreq(size) for size in wide], indexing="ij")
    field = np.fft.ifftn(noise * np.exp(-0.5 * sum(f**2 for f in k) * (2 * np.pi * scale) ** 2)).real
    field = field[tuple(slice(0, size) for size in shape)]
    return (field / field.std()).astype(np.float32)


def stack(rng, count, shape, periodic, scale=3.0):
    return np.stack([smooth(rng, shape, periodic, scale) for _ in range(count)])


def globe(times=24, rows=36, columns=72, seed=0):
    """Global lat-lon with winds, precipitation (zeros, skew) and orography, south to north, no attributes on dims."""
    rng = np.random.default_rng(seed)
    lat, lon = np.linspace(-87.5, 87.5, rows), np.arange(columns) * 360.0 / columns
    dims = ("time", "lat", "lon")
    rain = np.exp(1.5 * stack(rng, times, (rows, columns), (False, True))) * 1e-5
    rain[rain < 1e-5] = 0
    return xr.Dataset(
        {
            "uas": (dims, 5 * stack(rng, times, (rows, columns), (False, True)), {"units": "m s-1"}),
            "vas": (dims, 5 * stack(rng, times, (rows, columns), (False, True)), {"units": "m s-1"}),
            "pr": (dims, rain, {"units": "kg m-2 s-1", "standard_name": "precipitation_flux"}),
            "orog": (dims[1:], smooth(rng, (rows, columns), (False, True)), {"units": "m"}),
            "time_bnds": (("time", "bnds"), np.zeros((times, 2))),
        },
        {
            "time": np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h"),
            "lat": lat,
            "lon": lon,
        },
    )


def projected(times=30, rows=40, columns=48, seed=1):
    """Regional projected grid: y, x in metres, 2-D latitudes, sea-only field with gaps."""
    rng = np.random.default_rng(seed)
    land = smooth(rng, (rows, columns), (False, False)) > 0.7
    sst = 285 + stack(rng, times, (rows, columns), (False, False))
    sst[:, land] = np.nan
    sst[: times // 2, 5:7, 5:9] = np.nan
    y, x = np.arange(rows) * 4000.0, np.arange(columns) * 4000.0
    geo = {"lat": 45 + y[:, None] / 1.1e5 + 0 * x, "lon": 5 + 0 * y[:, None] + x / 8e4}
    return xr.Dataset(
        {
            "sst": (("time", "y", "x"), sst, {"units": "K", "coordinates": "lat lon"}),
            "crs": ((), 0, {"grid_mapping_name": "lambert_conformal_conic"}),
        },
        {
            "time": xr.date_range("1990-01-01", periods=times, freq="D", calendar="noleap", use_cftime=True),
            "y": ("y", y, {"standard_name": "projection_y_coordinate", "units": "m"}),
            "x": ("x", x, {"standard_name": "projection_x_coordinate", "units": "m"}),
            "lat": (("y", "x"), geo["lat"], {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": (("y", "x"), geo["lon"], {"units": "degrees_east", "standard_name": "longitude"}),
        },
    )


def boxes(folder, count=12, size=16, seed=2):
    """A periodic 3-D box, one NetCDF file per snapshot, without time or coordinates."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        fields = {name: (("z", "y", "x"), smooth(rng, (size,) * 3, (True,) * 3, 2.0)) for name in ("u", "v", "w")}
        xr.Dataset(fields).to_netcdf(folder / f"snapshot_{i}.nc")
    return str(folder / "snapshot_*.nc")


def realizations(members=3, times=20, rows=24, columns=32, seed=3):
    """A regional lat-lon ensemble (realization, time) on levels, 360-day calendar, descending latitude."""
    rng = np.random.default_rng(seed)
    field = stack(rng, members * times * 2, (rows, columns), (False, False))
    return xr.Dataset(
        {
            "ta": (
                ("realization", "time", "plev", "latitude", "longitude"),
                field.reshape(members, times, 2, rows, columns) + 280,
                {"units": "K", "standard_name": "air_temperature"},
            )
        },
        {
            "realization": np.arange(1, members + 1),
            "time": [cftime.Datetime360Day(2000, 1 + i // 30, 1 + i % 30) for i in range(times)],
            "plev": ("plev", [85000.0, 50000.0], {"units": "Pa", "standard_name": "air_pressure"}),
            "latitude": ("latitude", np.linspace(60, 37, rows), {"units": "degrees_north"}),
            "longitude": ("longitude", np.linspace(-10, 21, columns), {"units": "degrees_east"}),
        },
    )


def two_terabytes(path, chunks=(1, 512, 512)):
    """A store of 2 TB whose chunks are missing but for a few: hourly noleap times on a 2048 x 2560 grid in metres."""
    group = zarr.open_group(path, mode="w")
    count, rows, columns = 100_000, 2048, 2560
    names = ("time", "y", "x")
    field = group.create_array(
        "t2m", shape=(count, rows, columns), chunks=chunks, dtype="f4", fill_value=280.0, dimension_names=names
    )
    field.attrs["units"] = "K"
    rng = np.random.default_rng(4)
    for position in np.unique(np.linspace(0, count - 1, 8).round().astype(int)):
        field[position, 960:1088, 1216:1344] = 280 + smooth(rng, (128, 128), (False, False), 8.0)
    for name, values, attrs in (
        ("time", np.arange(count), {"units": "hours since 1990-01-01", "calendar": "noleap"}),
        ("y", np.arange(rows) * 1000.0, {"units": "m", "standard_name": "projection_y_coordinate"}),
        ("x", np.arange(columns) * 1000.0, {"units": "m", "standard_name": "projection_x_coordinate"}),
    ):
        array = group.create_array(name, data=values, dimension_names=(name,))
        array.attrs.update(attrs)
    return str(path)


def run_init(folder, *arguments):
    """Run the command on a YAML in ``folder``; returns the experiment and the YAML's text."""
    parser = argparse.ArgumentParser()
    init.add_arguments(parser)
    path = folder / "experiment.yaml"
    assert init.run(parser.parse_args([*map(str, arguments), "-o", str(path)])) == 0
    return load_experiment(path), path.read_text()


def coarsened(ds, names, dims, geometry, periodic, factor):
    """C(fine) as a file's dataset."""
    grid = Grid.from_dataset(ds, dims, geometry, periodic)
    coarse = grid.coarsened(dict.fromkeys(dims, factor))
    mapping = conservative(grid, coarse)
    others = [dim for dim in ds[names[0]].dims if dim not in dims]
    fields = {
        name: ((*others, *dims), mapping.masked(ds[name].transpose(*others, *dims).values), ds[name].attrs)
        for name in names
    }
    coords = {**{dim: ds[dim] for dim in others}, **coarse.coords_dataset().coords}
    return xr.Dataset(fields, coords)
