"""Censored: zeros at one place apart from the smallest wet value, and nothing in between."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciffusion.fields.transforms import Censored, from_json, make

RAIN = Censored(scale=2.0, threshold=0.1)


def test_wet_values_round_trip_and_small_ones_become_zero():
    x = np.array([0.0, 0.05, 0.0999, 0.1, 3.0, 500.0, -0.2])
    back = RAIN.inverse(RAIN.forward(x))
    np.testing.assert_allclose(back, [0, 0, 0, 0.1, 3.0, 500.0, 0], rtol=1e-12)
    assert np.isnan(RAIN.forward(np.array([np.nan]))).all()
    assert np.isnan(RAIN.inverse(np.array([np.nan]))).all()


@given(st.floats(-50, 50))
def test_whatever_is_decoded_is_zero_or_at_least_the_threshold(t):
    for value in (RAIN.inverse(np.array([t])), RAIN.inverse(torch.tensor([t], dtype=torch.float64)).numpy()):
        assert value[0] == 0 or value[0] >= 0.1 * (1 - 1e-12)


def test_the_decision_lies_in_the_middle_of_the_gap():
    dry, wet = RAIN.forward(np.array([0.0, 0.1]))
    assert wet - dry == pytest.approx(Censored.GAP)
    middle = (dry + wet) / 2
    assert RAIN.inverse(np.array([middle - 1e-9]))[0] == 0
    assert RAIN.inverse(np.array([middle + 1e-9]))[0] == pytest.approx(0.1)


def test_open_parameters_are_fitted_and_kept():
    sample = np.array([0, 0, 0, 1.0, 3.0])
    fitted = make("censored").fitted(sample)
    assert (fitted.scale, fitted.threshold) == pytest.approx((0.2, 0.02))
    assert from_json(fitted.to_json()) == fitted
    assert make("censored", threshold=0.5).fitted(sample).threshold == 0.5
