"""Dependence, balances, conservation, coverage and memorisation have their closed forms."""

import numpy as np
import pytest
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation import (
    balance_residual,
    conditional_coverage,
    conservation_error,
    divergence,
    lag_correlation,
    positivity,
    spatial_autocorrelation,
    structure_function,
    training_distance,
    variable_correlation,
)
from sciffusion.evaluation.copies import Copies
from sciffusion.evaluation.coverage import Coverage
from sciffusion.evaluation.increments import Increments
from sciffusion.evaluation.prerank import chance_of_few, chance_of_mean
from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.seams import Seams, comb
from sciffusion.evaluation.timing import timing


def test_autocorrelation_of_a_wave_is_its_cosine():
    x = 2 * np.pi * np.arange(48) / 48
    wave = xr.DataArray(np.sin(3 * x) * np.ones((6, 1)) + 7, dims=("y", "x"))
    found = spatial_autocorrelation(wave, [1, 4, 8], periodic=["x", "y"])
    np.testing.assert_allclose(found.sel(direction="x"), np.cos(3 * x[[1, 4, 8]]), atol=1e-12)
    np.testing.assert_allclose(found.sel(direction="y")[:2], 1, rtol=1e-12)


def test_lag_correlation_of_an_autoregression_is_its_coefficient():
    noise = np.random.default_rng(0).normal(size=(4000, 3))
    series = np.zeros_like(noise)
    for t in range(1, len(noise)):
        series[t] = 0.8 * series[t - 1] + noise[t]
    field = xr.DataArray(series, dims=("time", "x"), coords={"time": np.arange(4000)})
    np.testing.assert_allclose(lag_correlation(field), 0.8, atol=0.03)
    np.testing.assert_allclose(lag_correlation(field, 2), 0.64, atol=0.05)
    exact = np.corrcoef(series[:-1, 0], series[1:, 0])[0, 1]
    assert float(lag_correlation(field)[0]) == pytest.approx(exact, rel=1e-12)
    with pytest.raises(SciffusionError, match="a lag of"):
        lag_correlation(field, 5000)


def test_correlation_between_variables_is_that_of_numpy():
    values = np.random.default_rng(0).normal(size=(3, 100))
    values[1] += values[0]
    ds = xr.Dataset({name: ("time", row) for name, row in zip("abc", values, strict=True)})
    np.testing.assert_allclose(variable_correlation(ds), np.corrcoef(values), rtol=1e-12, atol=1e-14)


def test_a_balance_is_judged_beside_the_truth():
    x = 2 * np.pi * np.arange(32) / 32
    y = x[:, None]
    coords = {"y": x, "x": x}
    u, v = np.cos(x) * np.sin(y), -np.sin(x) * np.cos(y)
    truth = xr.Dataset({"u": (("y", "x"), u), "v": (("y", "x"), v + 0.01 * np.sin(y))}, coords)
    ensemble = xr.concat([truth, truth.assign(v=2 * truth.v)], "member")

    def residual(ds):
        return divergence(ds.u, ds.v, ["y", "x"], periodic=["y", "x"])

    found = balance_residual(ensemble, truth, residual)
    assert found.members.sizes == {"member": 2}
    assert float(found.members[0] / found.truth) == pytest.approx(1, rel=1e-12)
    assert float(found.members[1]) > 10 * float(found.truth)


def test_block_means_are_conserved_and_an_offset_is_found():
    fine = xr.DataArray(
        np.random.default_rng(0).normal(size=(2, 3, 8, 12)),
        dims=("member", "time", "y", "x"),
        coords={"y": np.arange(8) + 0.5, "x": np.arange(12) + 0.5, "time": [1, 2, 3]},
    )
    coarse = fine.isel(member=0).coarsen(y=4, x=4).mean()
    error = conservation_error(fine.isel(member=[0, 0]), coarse)
    np.testing.assert_allclose(error, 0, atol=1e-12)
    np.testing.assert_allclose(conservation_error(fine.isel(member=0) + 0.5, coarse), 0.5, atol=1e-12)
    swapped = conservation_error(fine.transpose("x", "time", "member", "y"), coarse).transpose(*error.dims)
    np.testing.assert_allclose(swapped.isel(member=0), 0, atol=1e-12)


def test_negative_values_are_counted():
    field = xr.DataArray([[1.0, -2.0, np.nan, 3.0]], dims=("t", "x"), attrs={"units": "mm"})
    found = positivity(field)
    assert float(found.share_below) == pytest.approx(1 / 3)
    assert float(found.lowest) == -2


def test_coverage_of_exchangeable_members_is_as_expected_in_every_class():
    generator = np.random.default_rng(0)
    height = xr.DataArray(generator.uniform(0, 1000, 60), dims="x")
    draws = generator.normal(size=(10, 800, 60)) * (1 + height.values / 500)
    members, truth = xr.DataArray(draws[1:], dims=("member", "time", "x")), xr.DataArray(draws[0], dims=("time", "x"))
    found = conditional_coverage(members, truth, height, [0, 300, 600, 1000])
    assert float(found.expected) == pytest.approx(0.8)
    np.testing.assert_allclose(found.coverage, 0.8, atol=0.015)
    assert (found["width"].diff("class") > 0).all()
    narrow = conditional_coverage(members.where(height > 600, 0.5 * members), truth, height, [0, 300, 600, 1000])
    assert (narrow.coverage[:2] < 0.65).all()
    assert float(narrow.coverage[2]) == pytest.approx(float(found.coverage[2]))


def test_copies_of_training_fields_are_at_distance_zero():
    generator = np.random.default_rng(0)
    training = xr.DataArray(generator.normal(size=(30, 8, 8)), dims=("sample", "y", "x"))
    truth = xr.DataArray(generator.normal(size=(4, 8, 8)), dims=("time", "y", "x"))
    members = xr.concat([training.isel(sample=slice(0, 4)).rename(sample="time"), truth], "member")
    found = training_distance(members, truth, training)
    np.testing.assert_allclose(found.members.isel(member=0), 0, atol=1e-7)
    xr.testing.assert_allclose(found.members.isel(member=1), found.truth)
    exact = np.sqrt(((training.values - truth.values[0]) ** 2).mean(axis=(1, 2))).min()
    assert float(found.truth[0]) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("wraps", [True, False])
def test_a_comb_of_steps_is_found_where_it_is(wraps):
    generator = np.random.default_rng(0)
    fields = generator.normal(size=(6, 20, 24, 48)).cumsum(axis=3) * 0.1
    fields[1:, ..., 12:24] += 1.5
    fields[1:, ..., 36:] += 1.5
    sums = [Seams((wraps, wraps)).measure(Pair.of(fields[1:, c], fields[0, c])).by_case for c in range(20)]
    members, truth = (np.stack([one[f"seam_{kind}_1"] for one in sums]) for kind in ("members", "truth"))
    seam = comb(members, truth, wraps)
    assert seam.p < 1e-4
    assert (seam.period, seam.offset) == (12, 0)
    swapped = comb(truth, truth, wraps)
    assert swapped.p > 0.05


@pytest.mark.parametrize("fault", ["noise", "inflated"])
def test_too_much_noise_or_power_is_no_seam_where_some_rows_are_smooth(fault):
    """The truth steps less at two borders, half the domain apart: what members have too much stands out there."""
    generator = np.random.default_rng(0)
    rough = np.ones(48)
    rough[[11, 12, 35, 36]] = 0.1
    truth = (generator.normal(size=(20, 24, 48)) * rough).cumsum(axis=2)
    noise = generator.normal(size=(5, *truth.shape))
    members = truth + noise if fault == "noise" else 2 * truth + 1e-3 * noise
    sums = [Seams((False, False)).measure(Pair.of(members[:, c], truth[c])).by_case for c in range(20)]
    seam = comb(*(np.stack([one[f"seam_{kind}_1"] for one in sums]) for kind in ("members", "truth")), False)
    assert seam.p > 0.05


def test_twins_are_counted_and_dry_fields_are_no_twins():
    members = np.random.default_rng(0).normal(size=(6, 12, 12))
    truth = np.random.default_rng(1).normal(size=(12, 12))
    assert Copies().measure(Pair.of(members, truth)).by_case["twins"] == 0
    members[4] = members[1]
    assert Copies().measure(Pair.of(members, truth)).by_case["twins"] == 2
    members[[1, 4]] = 0
    assert Copies().measure(Pair.of(members, truth)).by_case["twins"] == 0


def test_cases_that_belong_elsewhere_are_found_with_their_displacement():
    generator = np.random.default_rng(0)
    signal = 2 * generator.normal(size=(20, 16))
    draws = signal + generator.normal(size=(9, 20, 16))
    members = draws[1:].transpose(1, 0, 2)
    right = timing(draws[0], members.mean(axis=1), members, 8)
    assert right.p_shuffled > 0.1
    assert right.p_unrelated > 0.9
    late = np.roll(members, 1, axis=0)
    wrong = timing(draws[0], late.mean(axis=1), late, 8)
    assert wrong.p_shuffled < 1e-6
    assert ((wrong.belongs - np.arange(20)) % 20 == 1).mean() > 0.7
    alone = generator.normal(size=members.shape)
    assert timing(draws[0], alone.mean(axis=1), alone, 8).p_unrelated < 1e-4


def test_chances_are_those_of_the_binomial_and_of_uniform_means():
    assert chance_of_few(1, np.full(5, 0.5)) == pytest.approx(6 / 32)
    assert chance_of_few(0, np.array([0.2, 0.0, 0.5])) == pytest.approx(0.4)
    assert chance_of_mean(0.5, 30) == 1
    assert chance_of_mean(0.5 + 1.959964 / np.sqrt(12 * 30), 30) == pytest.approx(0.05, rel=1e-4)


def test_mergeable_increments_are_the_structure_functions():
    draws = np.random.default_rng(0).normal(size=(4, 20, 24)).cumsum(axis=2)
    sums = Increments(np.ones((20, 24)), (False, True), 0.0, 1.0).measure(Pair.of(draws[1:], draws[0])).by_case
    found = sums["lag_square_members"] / sums["lag_weight_members"]
    field = xr.DataArray(draws[1:], dims=("member", "y", "x"))
    exact = structure_function(field, [1, 2, 4, 8], [2], ["y", "x"], periodic=["x"]).mean("member")
    np.testing.assert_allclose(found, exact.sel(order=2).transpose("direction", "lag"), rtol=1e-12)


def test_truth_falls_beyond_exchangeable_members_equally_in_every_class():
    draws = np.random.default_rng(0).normal(size=(10, 200, 300)) + 2 * np.random.default_rng(1).normal(size=(200, 300))
    sums = Coverage(np.ones((200, 300)), 0.0, np.sqrt(5)).measure(Pair.of(draws[1:], draws[0])).by_case
    for part in ("below", "above"):
        share = sums[f"coverage_{part}"] / sums["coverage_area"]
        error = np.sqrt(0.09 / sums["coverage_area"])
        assert (np.abs(share - 0.1) < 4 * error).all()
