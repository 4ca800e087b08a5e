"""Every number of an evaluation that can be resampled has an interval that holds it, or says why it has none."""

import numpy as np
import pytest
import xarray as xr

from sciffusion import evaluation as ev
from sciffusion.evaluation import evaluate
from sciffusion.evaluation.bootstrap import Resampling, bounds

HELD = (
    *("crps", "mae", "rmse", "bias", "spread", "spread_skill", "crps_ratio", "crps_skill", "crps_by_region"),
    *("energy_score", "energy_score_ratio", "variogram_score", "variogram_score_ratio", "pooled_crps"),
    *("roc_area", "event_brier", "fractions_skill", "hit_rate", "false_alarm_rate", "forecast_share"),
    *("observed_frequency", "isotonic_frequency", "structure_function_members", "structure_function_truth"),
    *("autocorrelation_members", "flatness_members", "joint_extremes_truth"),
    *("wasserstein", "kolmogorov_smirnov", "quantile_difference", "density_members", "density_truth"),
    *("variables_correlation_members", "variables_joint_extremes_truth"),
    *("pooled_crps_ratio", "rank_histogram", "spread_in_bin", "rmse_in_bin", "coarse_rms", "coarse_bias"),
)
OF_CASES = ("energy_score", "pooled_crps", "spread_in_bin", "coarse_rms", "crps_by_region")


@pytest.fixture(scope="module")
def data():
    draws = np.random.default_rng(0).normal(size=(7, 30, 12, 12))
    coords = {"time": np.arange(30.0), "y": np.arange(12.0), "x": np.arange(12.0)}
    dims = ("time", "y", "x")
    other = draws + np.random.default_rng(1).normal(size=draws.shape)
    truth = xr.Dataset({"a": (dims, draws[0]), "b": (dims, other[0])}, coords)
    ensemble = xr.Dataset({"a": (("member", *dims), draws[1:]), "b": (("member", *dims), other[1:])}, coords)
    return ensemble, truth, truth.coarsen(y=2, x=2).mean()


@pytest.fixture(scope="module")
def scores(data):
    ensemble, truth, coarse = data
    return evaluate(ensemble, truth, coarse=coarse, baselines={"wide": 1.5 * ensemble}, block=1).scores


@pytest.mark.parametrize("name", HELD)
def test_the_interval_holds_the_value(scores, name):
    value, interval = scores[name], scores[f"{name}_interval"]
    known = np.isfinite(value)
    assert known.any()
    assert (np.isfinite(interval).all("bound") == known).all()
    inside = (interval.sel(bound="lower") <= value) & (value <= interval.sel(bound="upper"))
    # classes and squares are biased a little under resampling, so a few of many may fall beside
    assert float(inside.where(known).mean()) > 0.9


@pytest.mark.parametrize("system", ["ensemble", "wide"])
@pytest.mark.parametrize("variable", ["a", "b"])
def test_densities_are_histograms_of_the_members_and_of_the_truth(data, scores, variable, system):
    ensemble, truth, _ = data
    one = scores.sel(variable=variable, system=system)
    low, high = one.class_low.dropna("class").values, one.class_high.dropna("class").values
    members = (1.5 if system == "wide" else 1.0) * ensemble[variable]
    for name, values in (("members", members), ("truth", truth[variable])):
        exact, _ = np.histogram(values, np.append(low, high[-1]), density=True)
        np.testing.assert_allclose(one[f"density_{name}"].values[: len(low)], exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OF_CASES)
def test_whole_fields_say_why_they_have_none(data, name):
    ensemble, truth, coarse = (ds.isel(time=slice(0, 5)) for ds in data)
    few = evaluate(ensemble, truth, coarse=coarse, block=1).scores
    assert np.isnan(few[f"{name}_interval"]).all()
    assert "withheld: whole fields have no regions" in str(few.case_interval_method.values[0])
    assert "5 case(s) hold only 5 independent block(s)" in str(few.case_interval_method.values[0])
    assert np.isfinite(few.crps_interval).all()  # regions are resampled instead


def test_the_ratio_of_whole_field_scores_is_paired(scores):
    plain = scores.energy_score_interval.isel(system=0, variable=0) / scores.energy_score.isel(system=0, variable=0)
    ratio = scores.energy_score_ratio_interval.isel(baseline=0, variable=0)
    assert float(ratio.sel(bound="upper")) < 1
    assert float(np.diff(ratio)[0]) < 2 * float(np.diff(plain)[0])


def test_classes_of_the_density_are_the_same_for_all_and_hold_every_value(scores):
    one = scores.isel(variable=0).dropna("class", subset=["class_low"])
    np.testing.assert_array_equal(one.class_low[1:], one.class_high[:-1])
    for density in (*one.density_members, one.density_truth):
        assert float((density * (one.class_high - one.class_low)).sum()) == pytest.approx(1, rel=1e-12)


def test_rank_tests_clear_the_perfect_and_name_the_wide(scores):
    chance = scores.rank_chance.isel(variable=0)
    assert float(chance.sel(system="ensemble").min()) > 0.01
    assert float(chance.sel(system="wide", rank_test="curvature")) < 0.002
    assert float(chance.sel(system="wide", rank_test="slope")) > 0.01


def test_resamples_by_region_and_by_case_draw_the_same_sums():
    """Of every region or case as often as the counts say."""
    generator = np.random.default_rng(1)
    value = generator.normal(size=(4, 3, 16))  # (case, own, region)
    plan = Resampling.plan(4, np.ones(16, dtype=bool), 1)
    np.testing.assert_allclose(plan.drawn(value), np.einsum("bcr,cor->bo", plan.counts, value), atol=1e-12)
    many = generator.normal(size=(20, 3, 16))
    plan = Resampling.plan(20, np.ones(16, dtype=bool), 2)
    np.testing.assert_allclose(plan.drawn(many), np.einsum("bcr,cor->bo", plan.counts, many), atol=1e-12)
    mean = plan.of_cases(lambda s: s["x"], {"x": many.sum(axis=-1)})
    np.testing.assert_allclose(mean, bounds(plan.drawn(many)), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("pit_histogram", {}),
        ("roc", {"thresholds": 1.0}),
        ("roc_area", {"thresholds": 1.0}),
        ("reliability", {"thresholds": 1.0}),
        ("brier_score", {"thresholds": 1.0}),
        ("fractions_skill_score", {"thresholds": 1.0, "upper": False}),
    ],
)
def test_the_functions_have_intervals_too_or_the_reason(data, name, given):
    ensemble, truth, _ = (ds.a for ds in data)
    function = getattr(ev, name)
    found = function(ensemble, truth, over="time", interval=0.95, block=1, **given)
    value, low, high = found.transpose("estimate", ...).values
    known = np.isfinite(value)
    assert known.any()
    assert (low[known] <= value[known]).all()
    assert (value[known] <= high[known]).all()
    few = function(ensemble[:, :5], truth[:5], over="time", interval=0.95, block=1, **given)
    assert np.isnan(few.isel(estimate=[1, 2])).all()
    assert few.attrs["interval_method"].startswith("withheld: 5 case(s) hold only 5 independent block(s)")
