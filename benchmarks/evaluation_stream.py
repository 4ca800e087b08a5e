"""Scoring members that do not fit memory, from a Zarr store whose chunks are single members."""

import numpy as np
import xarray as xr
import zarr

SHAPE, TINY = (1000, 721, 1440), (12, 19, 36)
MEMORY = "1GB"


def write(store: str, small: bool) -> list[int]:
    """Normal members and a truth on a latitude-longitude grid, float32, one chunk per member; returns the shape."""
    shape = TINY if small else SHAPE
    generator = np.random.default_rng(0)
    lat, lon = np.linspace(90, -90, shape[1]), np.arange(shape[2]) * 360 / shape[2]
    coords = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
    xr.Dataset({"truth": (("lat", "lon"), generator.standard_normal(shape[1:], dtype=np.float32))}, coords).to_zarr(
        store, zarr_format=2
    )
    group = zarr.open_group(store, mode="a")
    array = group.create_array("members", shape=shape, chunks=(1, *shape[1:]), dtype="float32", compressors=None)
    array.attrs["_ARRAY_DIMENSIONS"] = ["member", "lat", "lon"]
    for i in range(shape[0]):
        array[i] = generator.standard_normal(shape[1:], dtype=np.float32)
    return list(shape)


def _opened(store: str, chunks: dict | None = None) -> tuple[xr.DataArray, xr.DataArray]:
    ds = xr.open_zarr(store, chunks=chunks, consolidated=False)
    return ds["members"], ds["truth"].load()


def exact(store: str) -> float:
    """All members of a few latitudes at a time."""
    import sciffusion.evaluation as ev

    return float(ev.crps(*_opened(store), memory=MEMORY))


def exact_dask(store: str) -> float:
    """The same from dask arrays."""
    import sciffusion.evaluation as ev

    return float(ev.crps(*_opened(store, {}), memory=MEMORY))


def streamed(store: str) -> float:
    """Fifty members at a time, each read once."""
    import sciffusion.evaluation as ev

    return float(ev.crps(*_opened(store), stream=50, memory=MEMORY))


def everything(store: str) -> float:
    """All scores of `evaluate` on every second row and column, by way of a temporary file."""
    import sciffusion.evaluation as ev

    quarter = [array.isel(lat=slice(None, None, 2), lon=slice(None, None, 2)) for array in _opened(store)]
    members, truth = (array.to_dataset(name="a") for array in quarter)
    return float(ev.evaluate(members, truth, memory="250MB").scores["crps"].item())


WAYS = {
    "crps": exact,
    "crps, dask": exact_dask,
    "crps, 50 members at a time": streamed,
    "evaluate, every second row and column, memory=250MB": everything,
}
