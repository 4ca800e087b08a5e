"""Distances and quantiles are scipy's and numpy's, extremes follow their laws, indices are counted by hand."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sciffusion.errors import SciffusionError
from sciffusion.evaluation import (
    climate_indices,
    exceedance_ratio,
    kolmogorov_smirnov,
    log_density,
    quantile_pairs,
    return_levels_gev,
    return_levels_gpd,
    tail_dependence,
    wasserstein,
    wet_fraction,
)


@pytest.fixture(scope="module")
def pair():
    generator = np.random.default_rng(0)
    return (
        xr.DataArray(generator.gamma(0.7, size=(2, 40, 30)), dims=("v", "time", "x"), attrs={"units": "mm"}),
        xr.DataArray(generator.gamma(0.8, size=(2, 50, 30)), dims=("v", "time", "x")),
    )


def test_distances_are_those_of_scipy(pair):
    first, second = pair
    near, far = wasserstein(first, second, ["time", "x"]), kolmogorov_smirnov(first, second, ["time", "x"])
    for v in range(2):
        a, b = first[v].values.ravel(), second[v].values.ravel()
        assert float(near[v]) == pytest.approx(stats.wasserstein_distance(a, b), rel=1e-12)
        assert float(far[v]) == pytest.approx(stats.ks_2samp(a, b).statistic, rel=1e-12)
    assert near.attrs["units"] == "mm"


def test_weights_count_like_repeated_values(pair):
    first, second = (one.isel(v=0) for one in pair)
    weights = xr.DataArray(np.random.default_rng(1).integers(0, 4, 30), dims="x")
    repeated = [one.isel(x=np.repeat(np.arange(30), weights)) for one in (first, second)]
    for distance in (wasserstein, kolmogorov_smirnov):
        assert float(distance(first, second, weights=weights)) == pytest.approx(float(distance(*repeated)), rel=1e-10)
    assert float(wet_fraction(first, 0.5, weights=weights)) == pytest.approx(float(wet_fraction(repeated[0], 0.5)))


@settings(max_examples=20)
@given(shift=st.floats(-10, 10), scale=st.floats(0.1, 10), seed=st.integers(0, 100))
def test_a_shift_is_its_own_distance_and_units_scale(shift, scale, seed):
    values = xr.DataArray(np.random.default_rng(seed).normal(size=60), dims="x")
    shuffled = values[np.random.default_rng(seed + 1).permutation(60)]
    assert float(wasserstein(values, shuffled + shift)) == pytest.approx(abs(shift), abs=1e-12)
    near = float(wasserstein(values, values**3))
    assert float(wasserstein(scale * values, scale * values**3)) == pytest.approx(scale * near, rel=1e-10)
    assert float(kolmogorov_smirnov(scale * values, scale * values**3)) == float(kolmogorov_smirnov(values, values**3))


def test_missing_values_are_as_if_they_were_not_there(pair):
    first, second = (one.isel(v=0) for one in pair)
    hole = first.where(xr.DataArray(np.arange(40) > 12, dims="time"))
    whole = first.isel(time=slice(13, None))
    assert float(wasserstein(hole, second)) == float(wasserstein(whole, second))
    xr.testing.assert_equal(quantile_pairs(hole, second), quantile_pairs(whole, second))


def test_quantiles_are_those_of_numpy_up_to_four_nines(pair):
    first, second = pair
    found = quantile_pairs(first, second, ["time", "x"])
    assert found.level.values[-1] == 0.9999
    np.testing.assert_allclose(found.first[1], np.quantile(first[1], found.level), rtol=1e-12)
    np.testing.assert_allclose(found.second[0], np.quantile(second[0], found.level), rtol=1e-12)


def test_density_integrates_to_one_and_ratios_are_of_counts(pair):
    first, second = pair
    edges = np.linspace(0, 15, 61)
    density = np.exp(log_density(first, edges, ["time", "x"]))
    np.testing.assert_allclose((density * np.diff(edges)).sum("class"), 1, rtol=1e-12)
    ratio = exceedance_ratio(first, second, [1.0, 2.0], ["time", "x"])
    expected = (first > 2).mean(["time", "x"]) / (second > 2).mean(["time", "x"])
    np.testing.assert_allclose(ratio.sel(threshold=2.0), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [0.2, -0.2])
def test_parameters_and_levels_of_extreme_value_laws_are_recovered(shape):
    generator = np.random.default_rng(3)
    maxima = xr.DataArray(
        stats.genextreme.rvs(-shape, 30, 5, size=5000, random_state=generator), dims="year", attrs={"units": "mm"}
    )
    found = return_levels_gev(maxima, [10, 100])
    np.testing.assert_allclose(found.parameters, [shape, 30, 5], rtol=0.05, atol=0.03)
    exact = stats.genextreme.isf([0.1, 0.01], -shape, 30, 5)
    assert (found.interval.sel(bound="lower") < exact).all()
    assert (found.interval.sel(bound="upper") > exact).all()
    beyond = xr.DataArray(stats.genpareto.rvs(shape, scale=2, size=40000, random_state=generator), dims="time")
    found = return_levels_gpd(beyond, [2.0, 5.0], quantile=0.9, per_block=1000)
    exact = stats.genpareto.isf([1 / 2000, 1 / 5000], shape, scale=2)
    np.testing.assert_allclose(found.level, exact, rtol=0.08)
    assert float(found.parameters[0]) == pytest.approx(shape, abs=0.05)


def test_the_interval_of_a_return_level_covers_the_truth_about_as_often_as_it_says():
    """40 maxima, 80 series: 95 % would be 76 +- 2; the delta method is known to be somewhat short."""
    sample = stats.gumbel_r.rvs(size=(80, 40), random_state=np.random.default_rng(0))
    found = return_levels_gev(xr.DataArray(sample, dims=("series", "year")), [10])
    exact = stats.gumbel_r.isf(0.1)
    inside = (found.interval.sel(bound="lower") < exact) & (exact < found.interval.sel(bound="upper"))
    assert 0.86 <= float(inside.mean()) <= 1


def test_series_that_are_too_short_or_constant_have_no_level():
    short = xr.DataArray(np.array([np.arange(12.0), np.full(12, 3.0), [*range(6), *[np.nan] * 6]]), dims=("s", "year"))
    assert np.isfinite(return_levels_gev(short, [5]).level.values[:, 0]).tolist() == [True, False, False]
    with pytest.raises(SciffusionError, match="longer than one"):
        return_levels_gev(short, [1])


def test_gaussian_tails_are_independent_and_equal_ones_are_not():
    generator = np.random.default_rng(0)
    normal = generator.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=200_000)
    first, second = (xr.DataArray(normal[:, i], dims="time") for i in range(2))
    found = tail_dependence(first, second, [0.9, 0.99])
    law = stats.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]])
    z = stats.norm.isf(0.01)
    exact = (1 - 2 * 0.99 + law.cdf([z, z])) / 0.01
    assert float(found.chi.sel(quantile=0.99)) == pytest.approx(exact, abs=0.02)
    assert float(found.chi.sel(quantile=0.99)) < 0.6 * float(found.chi.sel(quantile=0.9))  # on its way to 0
    assert float(found.chi_bar.sel(quantile=0.99)) == pytest.approx(0.5, abs=0.12)
    same = tail_dependence(first, np.exp(first), [0.99])
    assert float(same.chi[0]) == pytest.approx(1, abs=1e-3)
    assert float(same.chi_bar[0]) == pytest.approx(1, abs=1e-3)


@pytest.fixture
def daily():
    rain = np.zeros(365 + 366)
    rain[[0, 1, 2, 10, 400]] = [2.0, 3.0, 4.0, 0.5, 50.0]
    time = xr.date_range("2003-01-01", periods=len(rain), use_cftime=False)
    warm = 280 + 10 * np.sin(np.arange(len(rain)) / 58)
    coords = {"time": time}
    return xr.Dataset(
        {"pr": ("time", rain / 86400, {"units": "kg m-2 s-1"}), "tasmax": ("time", warm, {"units": "K"})}, coords
    )


def test_indices_are_those_counted_by_hand(daily):
    found = climate_indices(daily, "pr", "tasmax")
    np.testing.assert_allclose(found.rx1day, [4, 50], rtol=1e-12)
    np.testing.assert_allclose(found.sdii, [3, 50], rtol=1e-12)
    np.testing.assert_allclose(found.cwd, [3, 1])
    np.testing.assert_allclose(found.cdd, [362, 330])  # 2004: 35 dry days, one wet, 330 dry
    np.testing.assert_allclose(found.txx, daily.tasmax.groupby("time.year").max())
    assert found.txn.attrs["units"] == "K"


def test_members_that_are_no_trajectories_have_no_runs_unless_forced(daily):
    ensemble = daily.expand_dims(member=2).assign_attrs(time_coherence="none: noise is independent between cases")
    with pytest.raises(SciffusionError, match="not trajectories"):
        climate_indices(ensemble, "pr")
    assert set(climate_indices(ensemble, "pr", indices=["rx1day", "sdii"])) == {"rx1day", "sdii"}
    assert climate_indices(ensemble, "pr", forced=True).cdd.sizes == {"member": 2, "year": 2}
    assert set(climate_indices(ensemble, temperature="tasmax")) == {"txx", "txn"}


def test_hourly_data_and_wrong_units_are_refused(daily):
    hourly = daily.assign_coords(time=np.datetime64("2003-01-01", "ns") + np.arange(731) * np.timedelta64(1, "h"))
    with pytest.raises(SciffusionError, match="shorter than a day"):
        climate_indices(hourly, "pr")
    with pytest.raises(SciffusionError):
        climate_indices(daily, "tasmax")
