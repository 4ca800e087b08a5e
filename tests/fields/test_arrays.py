"""Arrays through JSON are the same arrays, whatever they hold."""

import json

import numpy as np
import pytest
import xarray as xr

from sciffusion.fields.arrays import array_from_json, array_to_json, attributes_to_json

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "array",
    [
        RNG.standard_normal(5),
        RNG.standard_normal((3, 2)).astype(np.float32),
        np.array([np.nan, np.inf, -np.inf, 0.1]),
        RNG.standard_normal((80, 90)),
        RNG.standard_normal((80, 90)).astype(">f4"),
        np.arange(4, dtype=np.int16),
        np.array([True, False]),
        np.array(["low", "high"], dtype=object),
        np.array(["2000-01-01", "NaT"], "datetime64[ns]"),
        np.arange(9000).astype("timedelta64[s]"),
        np.array(2.5),
        xr.date_range("2000-02-28T00:00:00.5", periods=3, calendar="noleap", use_cftime=True).values,
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_the_same_array_comes_back(array):
    text = json.dumps(array_to_json(array), allow_nan=False)
    back = array_from_json(json.loads(text))
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype.newbyteorder("=")
    assert len(text) < 400 or array.size > 4096


def test_numpy_attributes_become_plain():
    attrs = {"scale": np.float32(0.5), "range": np.array([0, 1]), "units": "K", "flag": np.True_}
    assert json.loads(json.dumps(attributes_to_json(attrs))) == {
        "scale": 0.5, "range": [0, 1], "units": "K", "flag": True,
    }  # fmt: skip
