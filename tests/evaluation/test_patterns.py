"""What the report says of places, variables, events and limits follows from closed forms."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from sciffusion.evaluation import evaluate

N, CASES, MEMBERS = 64, 12, 6


def smooth(rng, shape):
    """White noise averaged over two cells along x: neighbours correlate by 1/2, others by 0; Gaussian increments."""
    noise = rng.standard_normal(shape)
    return (noise + np.roll(noise, 1, -1)) / np.sqrt(2)


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    condition = rng.standard_normal((CASES, N, N))
    a = smooth(rng, (1 + MEMBERS, CASES, N, N))
    b = 0.6 * a + 0.8 * rng.standard_normal(a.shape)
    fields = {"a": condition + a, "b": np.exp(b), "c": 2 * condition + rng.standard_normal(a.shape)}
    dims = ("member", "time", "y", "x")
    coords = {"x": ("x", 3.0 * np.arange(N), {"units": "km"}), "y": ("y", 5.0 * np.arange(N), {"units": "km"})}
    ensemble = xr.Dataset({name: (dims, value[1:]) for name, value in fields.items()}, coords)
    truth = xr.Dataset({name: (dims[1:], value[0]) for name, value in fields.items()}, coords)
    return evaluate(ensemble, truth, baselines={"tilted": ensemble - 0.5}, periodic=["x", "y"]).scores


def test_structure_function_and_correlation_follow_from_the_covariance(scores):
    """Of a = condition + smooth noise: variance 2, covariance 1/2 of neighbours along x, 0 along y and farther off."""
    one = scores.sel(variable="a", axis="x")
    expected = np.where(one["lag"] == 1, 2 * (2 - 0.5), 4.0)
    for values in (one["structure_function_truth"], one["structure_function_members"].sel(system="ensemble")):
        np.testing.assert_allclose(values, expected, rtol=0.03)  # 49152 pairs: sampling error 0.6 %
    np.testing.assert_allclose(one["autocorrelation_truth"], np.where(one["lag"] == 1, 0.25, 0), atol=0.02)
    np.testing.assert_allclose(one["flatness_truth"], 3, rtol=0.05)
    np.testing.assert_allclose(one["lag_distance"], 3.0 * one["lag"])
    np.testing.assert_allclose(scores["autocorrelation_truth"].sel(variable="a", axis="y"), 0, atol=0.02)


def test_joint_extremes_are_those_of_the_bivariate_gaussian(scores):
    one = scores.sel(variable="a", axis="x")
    mark = float(scores["threshold"].sel(variable="a", tail=0.99))
    alone = stats.norm.sf(mark / np.sqrt(2))
    both = stats.multivariate_normal([0, 0], [[2, 0.5], [0.5, 2]]).cdf([-mark, -mark])
    near, far = one["joint_extremes_truth"].sel(lag=1), one["joint_extremes_truth"].sel(lag=32)
    error = np.sqrt(alone / 49152) / alone
    assert float(near) == pytest.approx(both / alone, abs=5 * error)
    assert float(far) == pytest.approx(alone, abs=5 * error)


def test_variables_correlate_in_what_the_condition_leaves_open(scores):
    """b = exp(0.6 a + 0.8 e): corr(a, e^b) = 0.6 / sqrt(e - 1); c shares only the condition, which is known."""
    expected = 0.6 / np.sqrt(np.e - 1)
    for who in ("members", "truth"):
        table = scores[f"variables_correlation_{who}"].sel(system="ensemble", variable="a")
        assert float(table.sel(other_variable="b")) == pytest.approx(expected, abs=0.05)
        assert float(table.sel(other_variable="c")) == pytest.approx(0, abs=0.03)
        assert np.isnan(table.sel(other_variable="a"))


def test_extremes_of_independent_variables_meet_by_chance_only(scores):
    joint = scores["variables_joint_extremes_members"].sel(system="ensemble")
    mark = float(scores["threshold"].sel(variable="b", tail=0.99))
    chance = stats.norm.sf(np.log(mark))
    assert float(joint.sel(variable="c", other_variable="b")) == pytest.approx(chance, abs=0.01)
    assert float(joint.sel(variable="a", other_variable="b")) > 4 * chance


def test_reliability_and_roc_are_those_of_the_probabilities(scores):
    one = scores.sel(variable="a", system="ensemble", event=0.99)
    known = one["forecast_share"] > 1e-3
    # observed frequencies rise with the probability and average to the base rate
    observed = one["observed_frequency"][known.values]
    assert (np.diff(observed) > 0).all()
    base = float((one["observed_frequency"] * one["forecast_share"]).sum())
    mark = float(scores["threshold"].sel(variable="a", tail=0.99))
    assert base == pytest.approx(stats.norm.sf(mark / np.sqrt(2)), rel=0.15)
    hits, alarms = one["hit_rate"].values, one["false_alarm_rate"].values
    assert (hits[0], alarms[0]) == (1, 1)
    area = np.trapezoid([*hits, 0][::-1], [*alarms, 0][::-1])
    assert float(one["roc_area"]) == pytest.approx(area, abs=1e-9)


def test_fractions_skill_rises_with_the_window(scores):
    skill = scores["fractions_skill"].sel(variable="a", system="ensemble", event=0.99)
    assert (np.diff(skill) > 0).all()
    assert float(skill[-1]) < 1


def test_negative_values_count_only_where_the_truth_has_none(scores):
    share = scores["negative_share_members"]
    assert np.isnan(share.sel(variable="a")).all()
    assert float(share.sel(variable="b", system="ensemble")) == 0
    expected = stats.norm.cdf(np.log(0.5))  # exp(z) - 0.5 < 0
    assert float(share.sel(variable="b", system="tilted")) == pytest.approx(expected, abs=0.01)


def test_cells_that_only_one_of_the_two_has_are_counted():
    rng = np.random.default_rng(1)
    truth = xr.Dataset({"t": (("time", "y", "x"), rng.standard_normal((3, 10, 10)))})
    ensemble = xr.Dataset({"t": (("member", "time", "y", "x"), rng.standard_normal((4, 3, 10, 10)))})
    truth["t"][:, :2] = np.nan
    ensemble["t"][:, :, :, 9] = np.nan
    found = evaluate(ensemble, truth).scores.isel(variable=0, system=0)
    # 100 cells, of which 2 are missing in both: 20 - 2 filled, 10 - 2 missing
    assert float(found["filled_share"]) == pytest.approx(18 / 98)
    assert float(found["missing_share"]) == pytest.approx(8 / 98)


def test_return_levels_are_those_of_the_maxima_of_gaussian_fields():
    """The highest of n = 1024 normals passes z(T) once in T cases: Phi(z)^n = 1 - 1 / T."""
    rng = np.random.default_rng(2)
    draws = rng.standard_normal((6, 120, 32, 32))
    truth = xr.Dataset({"t": (("time", "y", "x"), draws[0])})
    ensemble = xr.Dataset({"t": (("member", "time", "y", "x"), draws[1:])})
    found = evaluate(ensemble, truth).scores.isel(variable=0)
    period = np.array([2, 5, 10, 20])
    expected = stats.norm.ppf((1 - 1 / period) ** (1 / 1024))
    for extreme, sign in (("highest", 1), ("lowest", -1)):
        one = found.sel(extreme=extreme, return_period=period)
        np.testing.assert_allclose(one["return_level_members"].isel(system=0), sign * expected, atol=0.1)
        low, high = one["return_level_truth_interval"].values.T
        assert (low < sign * expected).all()
        assert (high > sign * expected).all()
