"""Scores as functions agree with scoringrules, scores, scipy and closed forms, for any order, chunks, dims and gaps."""

import operator
from functools import partial

import numpy as np
import pytest
import scores.probability
import scores.spatial
import scoringrules
import xarray as xr
from scipy.stats import norm

from sciffusion import evaluation as ev
from sciffusion.errors import SciffusionError
from sciffusion.evaluation.events import ProbabilityTable, brier_of_table
from sciffusion.evaluation.single_cells import CRPS, ErrorOfMean
from sciffusion.evaluation.whole_fields import Energy

MEMBERS, TIMES, ROWS, COLUMNS = 9, 24, 6, 8
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(scope="module")
def data():
    """Draws around a signal, on part of a sphere, in float64."""
    generator = np.random.default_rng(0)
    signal = 2 * generator.normal(size=(TIMES, ROWS, COLUMNS)) + 280
    draws = signal + generator.normal(size=(MEMBERS + 1, TIMES, ROWS, COLUMNS))
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(TIMES) * np.timedelta64(1, "D"),
        "lat": ("lat", np.linspace(60, 35, ROWS), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(COLUMNS) * 5.0, {"units": "degrees_east"}),
    }
    truth = xr.DataArray(draws[0], coords, ("time", "lat", "lon"), "t", {"units": "K"})
    ensemble = xr.DataArray(draws[1:], coords, ("member", "time", "lat", "lon"), "t", {"units": "K"})
    return ensemble, truth


def _totals(ensemble, truth):
    return ev.accumulate(CRPS(), ensemble.drop_vars("time"), truth.drop_vars("time"), over="time")


def area(truth):
    """Integral of cos(latitude) over rows of 5 degrees, relative to its mean."""
    edges = np.deg2rad(np.linspace(62.5, 32.5, ROWS + 1))
    rows = -np.diff(np.sin(edges))
    return xr.DataArray(rows / rows.mean(), dims="lat") * xr.ones_like(truth[0])


def mean(cells, truth):
    return (cells * area(truth)).mean().item()


@pytest.mark.parametrize(("ours", "theirs"), [("fair", "fair"), ("standard", "nrg")])
def test_crps_agrees_with_scoringrules_and_scores(data, ours, theirs):
    ensemble, truth = data
    cells = truth.copy(data=scoringrules.crps_ensemble(truth.values, ensemble.values, m_axis=0, estimator=theirs))
    kept = ev.crps(ensemble, truth, estimator=ours, dims=())
    np.testing.assert_allclose(kept, cells, rtol=1e-11, atol=1e-12)
    assert kept.dims == truth.dims
    assert ev.crps(ensemble, truth, estimator=ours).item() == pytest.approx(mean(cells, truth), rel=1e-12)
    method = {"fair": "fair", "standard": "ecdf"}[ours]
    library = scores.probability.crps_for_ensemble(
        ensemble, truth, "member", method=method, preserve_dims=["time"], weights=area(truth)
    )
    np.testing.assert_allclose(ev.crps(ensemble, truth, estimator=ours, keep="time"), library, rtol=1e-12)


def test_threshold_weighted_crps_agrees_with_scores(data):
    ensemble, truth = data
    for upper, tail in ((True, "upper"), (False, "lower")):
        ours = ev.threshold_weighted_crps(ensemble, truth, [279.0, 282.0], upper=upper)
        for threshold in (279.0, 282.0):
            library = scores.probability.tail_tw_crps_for_ensemble(
                ensemble, truth, "member", threshold, tail=tail, method="fair", weights=area(truth)
            )
            assert ours.sel(threshold=threshold).item() == pytest.approx(library.item(), rel=1e-11)


def test_brier_roc_pit_agree_with_scores(data):
    ensemble, truth = data
    thresholds = [279.0, 282.0]
    library = scores.probability.brier_score_for_ensemble(
        ensemble, truth, "member", thresholds, weights=area(truth), event_threshold_operator=operator.gt
    )
    np.testing.assert_allclose(ev.brier_score(ensemble, truth, thresholds), library, **TIGHT)
    table = ev.accumulate(ProbabilityTable(tuple(thresholds)), ensemble, truth).sums["table"].sum("time")
    np.testing.assert_allclose(brier_of_table(table.values), library, **TIGHT)
    probability, event = (ensemble > 282.0).mean("member"), (truth > 282.0) * 1.0
    curve = scores.probability.roc_curve_data(
        probability, event, [k / MEMBERS for k in range(MEMBERS + 1)], weights=area(truth) * xr.ones_like(truth)
    )
    assert ev.roc_area(ensemble, truth, 282.0).item() == pytest.approx(float(curve.AUC), rel=1e-12)
    np.testing.assert_allclose(ev.roc(ensemble, truth, 282.0).sel(rate="hits")[0], curve.POD, **TIGHT)
    tied = (ensemble.round(), truth.round())
    pit = scores.probability.Pit(*tied, ensemble_member_dim="member", weights=area(truth) * xr.ones_like(truth))
    np.testing.assert_allclose(ev.pit_histogram(*tied, bins=7), 7 * pit.hist_values(7), rtol=1e-11)


def test_reliability_is_the_frequency_of_events_and_its_monotone_fit(data):
    ensemble, truth = data
    found = ev.reliability(ensemble, truth, 281.0, weights="equal")[0]
    k = (ensemble > 281.0).sum("member").values
    for level in range(MEMBERS + 1):
        hits = (truth > 281.0).values[k == level]
        assert found.sel(quantity="observed")[level].item() == pytest.approx(hits.mean(), rel=1e-12)
        assert found.sel(quantity="share")[level].item() == pytest.approx(hits.size / truth.size, rel=1e-12)
    fit = found.sel(quantity="isotonic").values
    assert (np.diff(fit) >= 0).all()
    assert (fit * found.sel(quantity="share")).sum().item() == pytest.approx((truth > 281.0).mean().item())


def test_errors_and_quantile_scores_are_their_definitions(data):
    ensemble, truth = data
    error = ensemble.mean("member") - truth
    assert ev.rmse(ensemble, truth).item() == pytest.approx(np.sqrt(mean(error**2, truth)), rel=1e-12)
    assert ev.mse(ensemble, truth).item() == pytest.approx(mean(error**2, truth), rel=1e-12)
    assert ev.mae(ensemble, truth).item() == pytest.approx(mean(abs(error), truth), rel=1e-12)
    assert ev.bias(ensemble, truth).item() == pytest.approx(mean(error, truth), rel=1e-9)
    spread = np.sqrt(mean(ensemble.var("member", ddof=1), truth))
    assert ev.spread(ensemble, truth).item() == pytest.approx(spread, rel=1e-12)
    corrected = np.sqrt((MEMBERS + 1) / MEMBERS) * spread / np.sqrt(mean(error**2, truth))
    assert ev.spread_skill(ensemble, truth).item() == pytest.approx(corrected, rel=1e-12)
    quantile = np.quantile(ensemble.values, 0.3, axis=0, method="weibull")
    pinball = truth.copy(data=scoringrules.quantile_score(truth.values, quantile, 0.3))
    assert ev.quantile_score(ensemble, truth, 0.3).item() == pytest.approx(mean(pinball, truth), rel=1e-12)


def test_anomaly_correlation_agrees_with_scipy_and_needs_a_climatology(data):
    ensemble, truth = data
    climatology = truth.mean("time")
    one, two = (ensemble.mean("member") - climatology, truth - climatology)
    ours = ev.acc(ensemble, truth, climatology, weights="equal")
    assert ours.item() == pytest.approx(np.corrcoef(one.values.ravel(), two.values.ravel())[0, 1], rel=1e-11)
    plain = (one * two).sum() / np.sqrt((one**2).sum() * (two**2).sum())
    assert ev.acc(ensemble, truth, climatology, centred=False, weights="equal").item() == pytest.approx(plain.item())


def test_energy_and_variogram_scores_agree_with_scoringrules(data):
    ensemble, truth = data
    ours = ev.energy_score(ensemble, truth, weights="equal", keep="time")
    cells = ROWS * COLUMNS
    flat = ensemble.values.reshape(MEMBERS, TIMES, cells).transpose(1, 0, 2)
    oracle = scoringrules.es_ensemble(truth.values.reshape(TIMES, cells), flat, estimator="fair")
    np.testing.assert_allclose(ours, oracle / np.sqrt(cells), rtol=1e-11)
    pair = {"lat": slice(0, 1), "lon": slice(0, 2)}
    fair = ev.variogram_score(ensemble.isel(pair), truth.isel(pair), weights="equal", keep="time")
    x, y = ensemble.isel(pair).values.reshape(MEMBERS, TIMES, 2), truth.isel(pair).values.reshape(TIMES, 2)
    plain = scoringrules.vs_ensemble(y, x.transpose(1, 0, 2), p=0.5) / 2  # it counts every pair twice
    jumps = np.abs(x[..., 0] - x[..., 1]) ** 0.5
    np.testing.assert_allclose(fair, plain - jumps.var(axis=0, ddof=1) / MEMBERS, rtol=1e-10, atol=1e-12)


def test_fractions_skill_score_of_one_member_agrees_with_scores(data):
    ensemble, truth = data
    ours = ev.fractions_skill_score(ensemble[:1], truth, 281.0, windows=(1, 3), weights="equal")
    for window in (1, 3):
        library = scores.spatial.fss_2d(
            ensemble[0], truth, event_threshold=281.0, window_size=(window, window), spatial_dims=("lat", "lon"),
            reduce_dims=["time", "lat", "lon"],
        )  # fmt: skip
        assert ours.sel(window=window).item() == pytest.approx(library.item(), rel=1e-12)


def test_pooled_crps_is_the_crps_of_block_means(data):
    ensemble, truth = data
    ours = ev.pooled_crps(ensemble, truth, sizes=(1, 2), weights="equal")
    blocks = {"lat": 2, "lon": 2}
    coarse = ev.crps(ensemble.coarsen(blocks).mean(), truth.coarsen(blocks).mean(), weights="equal")
    assert ours.sel(pool=1).item() == pytest.approx(ev.crps(ensemble, truth, weights="equal").item(), rel=1e-12)
    assert ours.sel(pool=2).item() == pytest.approx(coarse.item(), rel=1e-12)


def test_rank_histogram_agrees_with_scores_and_counts_ties_at_random(data):
    ensemble, truth = data
    library = scores.probability.rank_histogram(ensemble, truth, "member", weights=area(truth) * xr.ones_like(truth))
    np.testing.assert_allclose(ev.rank_histogram(ensemble, truth), (MEMBERS + 1) * library.values, rtol=1e-11)
    generator = np.random.default_rng(1)
    dry = xr.DataArray(np.maximum(generator.normal(size=(6, 40_000)), 0), dims=("member", "x"))
    flat = ev.rank_histogram(dry[1:], dry[0], weights="equal")
    np.testing.assert_allclose(flat, 1, atol=4 * np.sqrt(6 / 40_000))
    assert (ev.rank_histogram(dry[1:], dry[0], seed=1) != flat).any()


def test_the_transform_of_an_ensemble_is_its_rank_histogram_in_bins_as_many_as_ranks(data):
    ensemble, truth = data
    ranks = ev.rank_histogram(ensemble, truth)
    transform = ev.pit_histogram(ensemble, truth, bins=MEMBERS + 1)
    np.testing.assert_allclose(transform, ranks, rtol=1e-11)


def test_fair_crps_of_gaussians_is_the_closed_form_and_a_streamed_one_within_its_error():
    generator = np.random.default_rng(2)
    members = xr.DataArray(generator.normal(size=(400, 300)), dims=("member", "x"))
    truth = xr.DataArray(generator.normal(size=300), dims="x")
    y = truth.values
    exact = y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - 1 / np.sqrt(np.pi)
    full = ev.crps(members, truth, dims=())
    assert full.mean().item() == pytest.approx(exact.mean(), abs=0.01)
    streamed = ev.crps(members, truth, dims=(), stream=20)
    error = ev.crps(members, truth, stream=20).attrs["streaming_error"]
    rms = np.sqrt(((streamed - full) ** 2).mean()).item()
    assert rms == pytest.approx(error, rel=0.2)
    assert rms < 0.02 * full.mean().item()


def test_skill_is_paired_on_the_cells_that_both_have(data):
    ensemble, truth = data
    worse = ensemble + 2.0
    baseline = worse.where(worse.lat < 50)
    ours = ev.skill_score(ensemble, truth, baseline, interval=0.95, block=1)
    inside = {"lat": ensemble.lat < 50}
    ratio = ev.crps(ensemble.sel(inside), truth.sel(inside)) / ev.crps(worse.sel(inside), truth.sel(inside))
    value, low, high = ours.values
    assert value == pytest.approx(1 - ratio.item(), rel=1e-3)  # areas of the cropped rows are rescaled
    assert low < value < high
    single = ev.skill_score(ensemble, truth, worse.isel(member=0), measure=ErrorOfMean("rmse"))
    assert single.item() == pytest.approx(1 - (ev.rmse(ensemble, truth) / ev.rmse(worse.isel(member=0), truth)).item())


def test_intervals_cover_and_are_withheld_with_the_reason(data):
    ensemble, truth = data
    pools = partial(ev.pooled_crps, sizes=(1, 2))
    for function in (ev.crps, ev.rmse, ev.spread_skill, ev.energy_score, ev.rank_histogram, pools):
        found = function(ensemble, truth, interval=0.9, block=2)
        assert (found.sel(estimate="lower") <= found.sel(estimate="value")).all()
        assert (found.sel(estimate="value") <= found.sel(estimate="upper")).all()
        assert "12 blocks of 2" in found.attrs["interval_method"]
    few = ev.crps(ensemble[:, :5], truth[:5], interval=0.9)
    assert np.isnan(few.sel(estimate=["lower", "upper"])).all()
    assert "withheld: 5 case(s)" in few.attrs["interval_method"]
    assert "time is kept" in ev.crps(ensemble, truth, keep="time", over="time", interval=0.9).attrs["interval_method"]
    maps = ev.crps(ensemble, truth, dims="time", interval=0.9, block=1)
    assert maps.dims == ("lat", "lon", "estimate")
    assert (maps.sel(estimate="lower") < maps.sel(estimate="upper")).all()


def test_interval_of_independent_times_is_as_wide_as_the_normal_one():
    generator = np.random.default_rng(3)
    draws = xr.DataArray(generator.normal(size=(6, 400)), dims=("member", "time"))
    found = ev.bias(draws[1:], draws[0], over="time", interval=0.95, block=1, weights="equal")
    _, low, high = found.values
    error = (draws[1:].mean("member") - draws[0]).values
    assert high - low == pytest.approx(2 * 1.96 * error.std() / 20, rel=0.1)


def test_the_flatness_test_clears_a_perfect_ensemble_and_names_faults():
    generator = np.random.default_rng(4)
    draws = xr.DataArray(generator.normal(size=(8, 120, 30)), dims=("member", "time", "x"))
    perfect = ev.rank_histogram(draws[1:], draws[0], over="time", interval=0.95, block=1).attrs
    assert min(perfect["p_flat"], perfect["p_slope"], perfect["p_curvature"]) > 0.01
    narrow = ev.rank_histogram(0.7 * draws[1:], draws[0], over="time", interval=0.95, block=1).attrs
    assert narrow["p_curvature"] < 0.002 < 0.01 < narrow["p_slope"]
    assert ev.rank_histogram(draws[1:] + 0.3, draws[0], over="time", interval=0.95, block=1).attrs["p_slope"] < 0.002


def test_datasets_and_attributes(data):
    ensemble, truth = data
    both = xr.Dataset({"t": ensemble, "q": ensemble**2})
    found = ev.crps(both, xr.Dataset({"t": truth, "q": truth**2}), keep="lat")
    assert set(found.data_vars) == {"t", "q"}
    xr.testing.assert_identical(found.t, ev.crps(ensemble, truth, keep="lat"))
    assert found.t.attrs == {
        "long_name": "continuous ranked probability score", "units": "K", "estimator": "fair", "members": MEMBERS,
        "weights": "cell area", "averaged_over": "time, lon",
    }  # fmt: skip
    single = ev.crps(ensemble[0], truth)
    assert single.item() == pytest.approx(ev.mae(ensemble[0], truth).item(), rel=1e-12)
    assert "absolute error" in single.attrs["estimator"]
    assert ev.mse(ensemble, truth).attrs["units"] == "(K)2"


@pytest.mark.parametrize("name", ["number", "realisation", "ens", "ensemble_member"])
def test_members_are_found_under_the_names_in_use(data, name):
    ensemble, truth = data
    assert ev.crps(ensemble.rename(member=name), truth).item() == ev.crps(ensemble, truth).item()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, t: ev.crps(e, t, dims="time", keep="lat"), "one of dims and keep"),
        (lambda e, t: ev.crps(e, t, keep="level"), "no dim 'level'"),
        (lambda e, t: ev.crps(e, t, estimator="unfair"), "unfair"),
        (lambda e, t: ev.crps(e, t.isel(lat=slice(1, None))), "different grids"),
        (lambda e, t: ev.crps(e, t.assign_coords(time=t.time + np.timedelta64(400, "D"))), "no time in common"),
        (lambda e, t: ev.crps(e, t.assign_attrs(units="m s-1")), "units"),
        (lambda e, t: ev.crps(e, t.expand_dims(member=2)), "one truth"),
        (lambda e, t: ev.crps(e, t, memory="much"), "memory"),
        (lambda e, t: ev.energy_score(e, t, keep="lat"), "whole fields"),
        (lambda e, t: ev.crps(e.to_dataset(), t.to_dataset(name="q")), "no 't'"),
        (lambda e, t: ev.crps(e, t, weights=-xr.ones_like(t)), "weights"),
        (lambda e, t: ev.crps(e, t, weights=xr.ones_like(t[:, 1:])), "not known everywhere"),
        (lambda e, t: ev.brier_score(e, t, []), "no threshold"),
        (lambda e, t: ev.crps(e.values, t), "the ensemble is a ndarray and not a DataArray"),
        (lambda e, t: ev.crps(e, t.to_dataset()), "the reference is a Dataset"),
        (lambda e, t: ev.crps(e + 1j, t), "no real numbers but complex128"),
        (lambda e, t: ev.crps(e, xr.concat([t, t[:1]], "time")), "the reference has the same time twice"),
        (lambda e, t: ev.crps(e.rename(member="draw"), t), "the reference has no 'draw'"),
        (lambda e, t: ev.crps(e, t, interval=95), "an interval of 95"),
        (lambda e, t: ev.crps(e, t, interval=0.95, block=0), "blocks of 0"),
        (lambda e, t: ev.crps(e, t, weights="cos"), "no weights are called 'cos'"),
        (lambda e, t: ev.crps(e, t, stream=1), "two or more members"),
        (lambda e, t: ev.quantile_score(e, t, 95), "levels from 0 to 1"),
        (lambda e, t: ev.fractions_skill_score(e, t, 280, windows=[0, 3]), "each 1 or more"),
        (lambda e, t: ev.skill_score(e, t, t, measure=Energy()), "whole fields"),
        (lambda e, t: _totals(e, t).merge(_totals(e, t)), "time has no labels"),
        (lambda e, t: ev.accumulate(CRPS(), e, t).merge(ev.accumulate(ErrorOfMean(), e, t)), "different measures"),
    ],
)
def test_bad_input_is_named(data, call, message):
    with pytest.raises(SciffusionError, match=message):
        call(*data)
