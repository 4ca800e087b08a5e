"""Transforms: inverse of each other on the range, into the range from anywhere, alike for numpy and torch."""

import numpy as np
import pytest
import torch

from sciffusion.errors import NotAffine, SciffusionError
from sciffusion.fields import transforms

CASES = [
    (transforms.make("standardise"), -5.0, 5.0),
    (transforms.make("log1p", scale=0.1), 0.0, 50.0),
    (transforms.make("sqrt", scale=2.0), 0.0, 50.0),
    (transforms.make("bounded", bounds=(-1.0, 3.0)), -1.0, 3.0),
]
IDS = [transform.name for transform, _, _ in CASES]


@pytest.mark.parametrize(("transform", "low", "high"), CASES, ids=IDS)
def test_inverse_undoes_forward_bounds_included(transform, low, high):
    x = np.linspace(low, high, 101)
    assert transform.inverse(transform.forward(x)) == pytest.approx(x, rel=1e-12, abs=1e-12)
    assert np.isnan(transform.inverse(transform.forward(np.array([np.nan]))))[0]


@pytest.mark.parametrize(("transform", "low", "high"), CASES[1:], ids=IDS[1:])
def test_whatever_is_decoded_is_in_range(transform, low, high):
    x = transform.inverse(np.linspace(-20, 20, 101))
    assert x.min() == low
    assert transform.name != "bounded" or x.max() == high


@pytest.mark.parametrize(("transform", "low", "high"), CASES, ids=IDS)
def test_tensors_and_arrays_agree(transform, low, high):
    x = np.linspace(low - 1, high + 1, 31)
    for function in (transform.forward, transform.inverse):
        assert function(torch.from_numpy(x)).numpy() == pytest.approx(function(x), rel=1e-12)


@pytest.mark.parametrize(("transform", "low", "high"), CASES, ids=IDS)
def test_json_round_trip_and_affinity(transform, low, high):
    assert transforms.from_json(transform.to_json()) == transform
    if transform.affine:
        slope, offset = transform.slope_and_offset()
        assert transform.forward(np.array([2.0]))[0] == slope * 2.0 + offset
    else:
        with pytest.raises(NotAffine):
            transform.slope_and_offset()


def test_an_open_scale_is_fitted_to_the_positive_values():
    fitted = transforms.make("log1p").fitted(np.array([0.0, 0.0, 2.0, 4.0, np.nan]))
    assert fitted.scale == pytest.approx(0.3)
    assert fitted.fitted(np.array([100.0])) == fitted
    with pytest.raises(SciffusionError, match="without positive"):
        transforms.make("log1p").fitted(np.zeros(3))


@pytest.mark.parametrize(
    ("name", "how"),
    [("log1p", {"scale": 0.0}), ("bounded", {}), ("bounded", {"bounds": (1.0, 1.0)}), ("cubic", {})],
)
def test_senseless_settings_are_named(name, how):
    with pytest.raises(SciffusionError, match=name):
        transforms.make(name, **how)
