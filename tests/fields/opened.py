"""A field that tells where its values come from, and the message that a bad source gives."""

import numpy as np
import pytest
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.open import open_source

LAT, LON = np.linspace(75, -75, 6), np.arange(8) * 45.0


def field(first=0, count=10, names=("u",), lat=LAT, lon=LON, **coords):
    """(time, lat, lon), value = day + cell, so that every cell tells where it comes from."""
    days = np.arange(first, first + count)
    values = days[:, None, None] + np.arange(lat.size * lon.size).reshape(lat.size, lon.size) / 100
    time = np.datetime64("2000-01-01", "ns") + days * np.timedelta64(1, "D")
    variables = {name: (("time", "lat", "lon"), values.astype(np.float32), {"units": "m s-1"}) for name in names}
    return xr.Dataset(variables, {"time": time, "lat": lat, "lon": lon, **coords})


def message(*arguments, **options):
    with pytest.raises(SciffusionError) as error:
        open_source(*arguments, **options)
    assert error.value.mend, "every fault has a mend"
    return str(error.value)
