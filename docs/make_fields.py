"""Write small synthetic fields into this folder, so that every line of the docs runs without data of one's own.

A region of 32 x 48 cells, 60 days of temperature that depends on weather, orography and season:

    fine.zarr        the fine field, days from 2001
    coarse.nc        its conservative coarsening by 4
    model.nc         a coarse model of the same days: too warm, too calm, and wrong in detail
    static.nc        orography and land fraction
    new_coarse.nc    coarse fields of other days, 2041 to 2042, in degrees Celsius and with other names
"""

import numpy as np
import xarray as xr

from sciffusion.fields.coarsen import regrid
from sciffusion.fields.grid import Grid

DAYS, SHAPE, FACTOR = 60, (32, 48), 4
LATITUDE = xr.Variable("lat", 42 + 0.25 * np.arange(SHAPE[0]), {"units": "degrees_north"})
LONGITUDE = xr.Variable("lon", 5 + 0.25 * np.arange(SHAPE[1]), {"units": "degrees_east"})


def smooth(rng: np.random.Generator, scale: float, count: int = 1) -> np.ndarray:
    """Random fields (count, lat, lon) with unit variance and a length of ``scale`` cells."""
    wide = [2 * size for size in SHAPE]
    wavenumber2 = np.add.outer(np.fft.fftfreq(wide[0]) ** 2, np.fft.fftfreq(wide[1]) ** 2)
    spectrum = np.exp(-2 * (np.pi * scale) ** 2 * wavenumber2)
    fields = np.fft.ifft2(np.fft.fft2(rng.standard_normal((count, *wide))) * spectrum).real
    return (fields / fields.std())[:, : SHAPE[0], : SHAPE[1]]


def weather(rng: np.random.Generator, days: int) -> np.ndarray:
    """Fields of several scales that remember the day before."""
    shocks = sum(amplitude * smooth(rng, scale, days) for amplitude, scale in ((3.0, 8.0), (1.0, 3.0), (0.5, 1.0)))
    fields = np.zeros_like(shocks)
    for day in range(days):
        fields[day] = (0.7 * fields[day - 1] if day else 0) + shocks[day]
    return fields


def temperature(rng: np.random.Generator, start: str, orography: np.ndarray) -> xr.Dataset:
    """Daily temperature: weather, colder with height."""
    values = (283 + weather(rng, DAYS) - 6.5e-3 * orography).astype(np.float32)
    time = np.datetime64(start, "ns") + np.arange(DAYS) * np.timedelta64(1, "D")
    attributes = {"units": "K", "standard_name": "air_temperature", "long_name": "near-surface air temperature"}
    coordinates = {"time": time, "lat": LATITUDE, "lon": LONGITUDE}
    return xr.Dataset({"tas": (("time", "lat", "lon"), values, attributes)}, coordinates)


def coarsened(fine: xr.Dataset) -> xr.Dataset:
    """Means over blocks of cells, weighted by their area."""
    grid = Grid.from_dataset(fine, ("lat", "lon"), geometry="sphere")
    return regrid(fine, grid.coarsened({"lat": FACTOR, "lon": FACTOR}), grid)


def coarse_model(rng: np.random.Generator, coarse: xr.Dataset) -> xr.Dataset:
    """What a coarse model might say of the same days: 1.5 K too warm, smoother, with errors of its own."""
    tas = coarse["tas"]
    blurred = tas.rolling(lat=3, lon=3, center=True, min_periods=1).mean()
    wrong = blurred + 1.5 + 0.3 * rng.standard_normal(tas.shape)
    return wrong.astype(np.float32).assign_attrs(tas.attrs).to_dataset(name="tas")


def renamed(coarse: xr.Dataset) -> xr.Dataset:
    """The same in degrees Celsius, under the names that another centre uses."""
    other = coarse.rename(tas="t2m", lat="latitude", lon="longitude")
    other["t2m"] = (other["t2m"] - 273.15).assign_attrs(units="degC", standard_name="air_temperature")
    return other


def main() -> None:
    """Write the five files."""
    rng = np.random.default_rng(0)
    orography = 800 * np.maximum(smooth(rng, 4.0)[0], 0)
    static = {
        "orography": (("lat", "lon"), orography, {"units": "m", "standard_name": "surface_altitude"}),
        "land": (("lat", "lon"), (orography > 0) * 1.0, {"units": "1", "standard_name": "land_area_fraction"}),
    }
    fine = temperature(rng, "2001-01-01", orography)
    coarse = coarsened(fine)
    fine.to_zarr("fine.zarr", mode="w", consolidated=False)
    coarse.to_netcdf("coarse.nc")
    coarse_model(rng, coarse).to_netcdf("model.nc")
    xr.Dataset(static, {"lat": LATITUDE, "lon": LONGITUDE}).to_netcdf("static.nc")
    renamed(coarsened(temperature(rng, "2041-12-01", orography))).to_netcdf("new_coarse.nc")


if __name__ == "__main__":
    main()
