"""``evaluate`` gives the same numbers however the data lie, and tells perfect ensembles from forged ones."""

import json

import numpy as np
import pytest
import scoringrules
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation import evaluate
from sciffusion.evaluation.report import render
from sciffusion.fields.coarsen import conservative
from sciffusion.fields.grid import Grid

MEMBERS, CASES, ROWS, COLUMNS = 8, 12, 18, 36


def smooth(values):
    """Correlate neighbours along the last axis without changing the variance."""
    return (values + np.roll(values, 1, -1)) / np.sqrt(2)


@pytest.fixture(scope="module")
def perfect():
    """Truth and members are exchangeable draws around a common signal."""
    generator = np.random.default_rng(0)
    signal = 3 * generator.normal(size=(CASES, ROWS, 1)) + np.zeros((CASES, ROWS, COLUMNS))
    draws = signal + smooth(generator.normal(size=(MEMBERS + 1, CASES, ROWS, COLUMNS)))
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(CASES) * np.timedelta64(1, "D"),
        "lat": ("lat", np.linspace(85, -85, ROWS), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(COLUMNS) * 10.0, {"units": "degrees_east"}),
    }
    truth = xr.Dataset({"t": (("time", "lat", "lon"), draws[0], {"units": "K"})}, coords)
    ensemble = xr.Dataset({"t": (("member", "time", "lat", "lon"), draws[1:], {"units": "K"})}, coords)
    return ensemble, truth


def score(ensemble, truth, **settings):
    return evaluate(ensemble, truth, **settings).scores


def assert_same(one, two, names=("crps", "rmse", "bias", "spread_skill", "spectral_ratio")):
    for name in names:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-11, atol=1e-12, err_msg=name)


def test_headline_numbers_are_area_weighted_means(perfect):
    ensemble, truth = perfect
    scores = score(ensemble, truth)
    grid = Grid.from_dataset(ensemble, ("lat", "lon"), "sphere", ("lon",))
    cells = scoringrules.crps_ensemble(truth.t.values, ensemble.t.values, m_axis=0, estimator="fair")
    assert float(scores.crps[0, 0]) == pytest.approx((cells * grid.cell_area()).mean(), rel=1e-12)
    error = ensemble.t.values.mean(axis=0) - truth.t.values
    assert float(scores.rmse[0, 0]) == pytest.approx(np.sqrt((error**2 * grid.cell_area()).mean()), rel=1e-12)
    assert float(scores.bias[0, 0]) == pytest.approx((error * grid.cell_area()).mean(), rel=1e-10)


def test_a_perfect_ensemble_is_calibrated(perfect):
    scores = score(*perfect)
    assert float(scores.spread_skill[0, 0]) == pytest.approx(1, abs=0.03)
    assert float(scores.spread_skill_interval[0, 0, 0]) < 1 < float(scores.spread_skill_interval[0, 0, 1])
    np.testing.assert_allclose(scores.rank_histogram[0, 0], 1, atol=0.12)
    np.testing.assert_allclose(scores.rmse_in_bin[0, 0] / scores.rmse_in_bin[0, 0].mean(), 1, atol=0.12)
    assert float(scores.crps[0, 0]) == pytest.approx(1 / np.sqrt(np.pi), rel=0.03)


def test_the_tail_of_a_clipped_ensemble_is_named_and_a_rare_event_is_not_judged():
    generator = np.random.default_rng(8)
    draws = generator.normal(size=(7, 20, 30, 30))
    truth = xr.Dataset({"a": (("time", "y", "x"), draws[0])})
    ensemble = xr.Dataset({"a": (("member", "time", "y", "x"), draws[1:])})
    assert "Tail" not in " ".join(evaluate(ensemble, truth).verdicts["a"])
    clipped = evaluate(ensemble.clip(max=2.2), truth)
    assert "Tail too light: values above" in " ".join(clipped.verdicts["a"])
    rare = truth.where(truth.time != 0, truth * 3)  # all extremes in one case
    assert np.isnan(evaluate(ensemble, rare).scores.exceedance_ratio_interval[0, 0, [0, 3]]).all()


FORGERIES = {
    "spread x 0.8": (lambda m: m.mean("member") + 0.8 * (m - m.mean("member")), "Under-dispersive"),
    "spread x 1.25": (lambda m: m.mean("member") + 1.25 * (m - m.mean("member")), "Over-dispersive"),
    "biased": (lambda m: m + 0.5, "too high"),
    "blurred": (lambda m: (m + m.roll(lon=1) + m.roll(lon=-1)) / 3, "too little power"),
    "no correlation": (lambda m: scrambled(m), "No spatial pattern of their own"),
}


def scrambled(members):
    """Right marginals, no spatial correlation: every cell takes the members in its own order."""
    generator = np.random.default_rng(3)
    mean = members.mean("member")
    return mean + (members - mean).copy(data=generator.permuted((members - mean).values, axis=0))


def test_perfect_and_forged_ensembles_are_told_apart(perfect):
    ensemble, truth = perfect
    cleared = " ".join(evaluate(ensemble, truth).verdicts["t"])
    for name, (forge, words) in FORGERIES.items():
        assert words not in cleared
        assert words in " ".join(evaluate(ensemble.map(forge), truth).verdicts["t"]), name


def test_order_of_members_dims_rows_and_chunks_do_not_matter(perfect):
    ensemble, truth = perfect
    scores = score(ensemble, truth)
    shuffled = ensemble.isel(member=np.random.default_rng(0).permutation(MEMBERS)).transpose(
        "lon", "time", "member", "lat"
    )
    assert_same(scores, score(shuffled, truth.transpose("lat", "lon", "time")))
    chunked = ensemble.chunk(member=3, time=5, lon=7)
    assert_same(scores, score(chunked, truth.isel(lat=slice(None, None, -1)).chunk(time=1)))
    assert_same(
        scores, score(ensemble, truth.assign_coords(lon=(truth.lon + 180) % 360 - 180).roll(lon=3, roll_coords=True))
    )


def test_names_and_units_of_the_reference_may_differ(perfect):
    ensemble, truth = perfect
    celsius = (truth - 273.15).rename(lat="latitude", lon="longitude", time="valid_time")
    celsius.t.attrs["units"] = "degC"
    scores = score(ensemble, celsius)
    assert str(scores.units.item()) == "degC"
    np.testing.assert_allclose(scores.crps, score(ensemble, truth).crps, rtol=1e-10)


def test_masked_cells_equal_cropped_data(perfect):
    ensemble, truth = (ds.isel(lon=slice(0, 20)) for ds in perfect)
    masked = score(ensemble, truth.where(truth.lat < 50))
    cropped = score(ensemble.sel(lat=slice(50, -90)), truth.sel(lat=slice(50, -90)))
    assert_same(masked, cropped, ("crps", "rmse", "bias", "spread_skill", "rank_histogram")[:4])
    assert float(masked.coverage[0, 0]) < 0.9


def test_a_lost_member_is_dropped_with_the_right_number_of_members(perfect):
    ensemble, truth = perfect
    gappy = ensemble.where(ensemble.member != 3) if "member" in ensemble.coords else ensemble.copy(deep=True)
    gappy = gappy.assign_coords(member=np.arange(MEMBERS)).where(lambda ds: ds.member != 3)
    assert_same(score(gappy, truth), score(ensemble.isel(member=[0, 1, 2, 4, 5, 6, 7]), truth))


def test_cells_that_a_baseline_lacks_are_left_out_for_all(perfect):
    ensemble, truth = perfect
    baseline = ensemble.where(ensemble.lat < 50)
    scores = score(ensemble, truth, baselines={"half": baseline})
    assert float(scores.crps_ratio[0, 0]) == pytest.approx(1, rel=1e-12)


def test_ratio_to_a_baseline_is_resampled_in_pairs(perfect):
    ensemble, truth = perfect
    worse = ensemble.mean("member") + 2.5 * (ensemble - ensemble.mean("member"))
    scores = score(ensemble, truth, baselines={"worse": worse}, block=1)
    low, high = scores.crps_ratio_interval[0, 0].values
    assert low < float(scores.crps_ratio[0, 0]) < high < 1
    width = np.diff(scores.crps_interval[0, 0].values / float(scores.crps[0, 0])).item()
    assert high - low < width  # what both have in common cancels
    assert "12 blocks of 1" in str(scores.interval_method[0].item())


def test_few_cases_give_spatial_blocks_and_say_so(perfect):
    ensemble, truth = (ds.isel(time=slice(0, 3)) for ds in perfect)
    assert "within-period spatial blocks" in str(score(ensemble, truth).interval_method[0].item())


def test_a_tiny_domain_withholds_the_interval_with_the_reason(perfect):
    ensemble, truth = (ds.isel(time=slice(0, 3), lat=slice(8, 10), lon=slice(0, 3)) for ds in perfect)
    scores = score(ensemble, truth)
    assert np.isnan(scores.crps_interval).all()
    assert "withheld" in str(scores.interval_method[0].item())


def test_coarse_consistency_is_measured_in_sd_of_the_coarse_field(perfect):
    ensemble, truth = perfect
    fine = Grid.from_dataset(ensemble, ("lat", "lon"), "sphere", ("lon",))
    grid = fine.coarsened({"lat": 3, "lon": 3})
    values = conservative(fine, grid)(ensemble.t.isel(member=0).values)
    coarse = xr.Dataset({"t": (("time", "lat", "lon"), values)}, grid.coords_dataset().coords).assign_coords(
        time=truth.time
    )
    own = score(ensemble.isel(member=[0, 0]), truth, coarse=coarse)
    assert float(own.coarse_largest[0, 0]) < 1e-12
    shifted = score(ensemble.isel(member=[0, 0]) + 0.5, truth, coarse=coarse)
    spread = np.sqrt(((values - (values * grid.cell_area()).mean()) ** 2 * grid.cell_area()).mean())
    assert float(shifted.coarse_bias[0, 0]) == pytest.approx(0.5 / spread, rel=1e-9)


def test_training_cases_are_scored_apart(perfect):
    ensemble, truth = perfect
    flagged = ensemble.assign_coords(training_case=("time", np.arange(CASES) < 4))
    evaluation = evaluate(flagged, truth)
    assert evaluation.scores.attrs["sample"] == "held-out"
    assert evaluation.scores.sizes["case"] == CASES - 4
    assert evaluation.in_sample.sizes["case"] == 4
    assert "IN-SAMPLE" in evaluation.summary()
    assert_same(evaluation.scores, score(ensemble.isel(time=slice(4, None)), truth))
    assert_same(evaluation.scores, score(ensemble, truth, training=truth.isel(time=slice(0, 4))))
    both = evaluate(flagged, truth, training=truth.isel(time=slice(2, 6)))  # either of the two is enough
    assert both.in_sample.sizes["case"] == 6


def test_beyond_the_truncation_of_a_spectral_model_nothing_is_compared_and_noise_is_named():
    """Truth packed into 16 bits, members not: of what packing leaves they have none."""
    generator = np.random.default_rng(4)
    draws = generator.normal(size=(9, 24, 32, 64)) + 2 * generator.normal(size=(24, 32, 64))
    modes = np.fft.rfft(draws, axis=-1)
    modes[..., 9:] = 0
    draws = np.fft.irfft(modes, axis=-1)
    packed = np.round(draws[0] * 4000) / 4000
    coords = {"lat": np.linspace(87, -87, 32), "lon": np.arange(64) * 5.625}
    dims = ("time", "lat", "lon")
    truth = xr.Dataset({"t": (dims, packed)}, coords)
    ensemble = xr.Dataset({"t": (("member", *dims), draws[1:])}, coords)
    found = evaluate(ensemble, truth)
    one = found.scores.isel(system=0, variable=0)
    beyond = (one.scale_low > 9).values
    assert beyond.sum() == 3
    assert one.spectral_ratio[:, beyond].isnull().all()
    assert one.spread_skill_by_scale[:, beyond].isnull().all()
    assert float(one.ralsd) < 1
    assert found.faults["t"] == []
    noisy = evaluate(ensemble + 0.05 * generator.normal(size=draws[1:].shape), truth)
    assert "spectrum" in noisy.faults["t"]
    assert float(noisy.scores.ralsd[0, 0]) > 10


@pytest.mark.parametrize("rows", [slice(0, 9), slice(6, 12), slice(9, 18), slice(0, 18)])
def test_a_part_of_the_globe_scores_as_the_globe_masked_elsewhere(rows):
    """A hemisphere or the tropics, all around."""
    draws = np.random.default_rng(5).normal(size=(5, 4, 18, 24))
    coords = {"lat": np.linspace(-85, 85, 18), "lon": np.arange(24) * 15.0}
    truth = xr.Dataset({"t": (("time", "lat", "lon"), draws[0])}, coords)
    ensemble = xr.Dataset({"t": (("member", "time", "lat", "lon"), draws[1:])}, coords)
    here = truth.lat.isin(truth.lat[rows])
    part, masked = score(ensemble.isel(lat=rows), truth.isel(lat=rows)), score(ensemble, truth.where(here))
    for name in ("crps", "rmse", "spread_skill", "crps_interval"):
        np.testing.assert_allclose(part[name], masked[name], rtol=1e-6)
    known = masked.crps_by_region.dropna("region")
    np.testing.assert_allclose(part.crps_by_region, known, rtol=1e-6)
    assert part.region.values.tolist() == known.region.values.tolist()


def test_no_time_no_coordinates_and_three_dimensions():
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(6, 8, 9, 10))
    truth = xr.Dataset({"p": (("z", "y", "x"), draws[0])})
    ensemble = xr.Dataset({"p": (("number", "z", "y", "x"), draws[1:])})
    scores = score(ensemble, truth, periodic=["z", "y", "x"])
    assert scores.sizes["rank"] == 6
    assert scores.attrs["spectral_window"] == "none (periodic)"
    assert float(scores.power_truth[0, 0].sum()) == pytest.approx(draws[0].var(), rel=1e-12)


def test_levels_are_fields_and_source_members_are_cases():
    generator = np.random.default_rng(0)
    levels = ("level", [850, 500], {"units": "hPa"})
    truth = xr.Dataset({"u": (("level", "y", "x"), generator.normal(size=(2, 8, 8)))}, {"level": levels})
    draws = generator.normal(size=(4, 3, 2, 8, 8))
    ensemble = xr.Dataset({"u": (("member", "source_member", "level", "y", "x"), draws)}, {"level": levels})
    scores = score(ensemble, truth)
    assert scores["variable"].values.tolist() == ["u[level=850]", "u[level=500]"]
    assert scores.sizes["case"] == 3
    assert int(scores.members[0]) == 4


def test_members_of_a_baseline_are_not_taken_for_source_members():
    generator = np.random.default_rng(0)
    truth = xr.Dataset({"u": (("source_member", "y", "x"), generator.normal(size=(3, 8, 8)))})
    ensemble = xr.Dataset({"u": (("member", "source_member", "y", "x"), generator.normal(size=(4, 3, 8, 8)))})
    climatology = xr.Dataset({"u": (("member", "y", "x"), generator.normal(size=(6, 8, 8)))})
    scores = score(ensemble, truth, baselines={"climatology": climatology})
    assert scores.members.values.tolist() == [4, 6]
    cells = scoringrules.crps_ensemble(
        truth.u.values, climatology.u.values[:, None] + np.zeros((6, 3, 8, 8)), m_axis=0, estimator="fair"
    )
    assert float(scores.crps[1, 0]) == pytest.approx(cells.mean(), rel=1e-12)


def test_a_deterministic_field_has_an_absolute_error_and_no_spread(perfect):
    ensemble, truth = perfect
    scores = score(ensemble.isel(member=0), truth)
    np.testing.assert_allclose(scores.crps, scores.mae)
    assert np.isnan(scores.spread_skill).all()
    assert "absolute error" in scores.attrs["estimator"]


def noleap(ds):
    return xr.date_range("2001-01-01", periods=ds.sizes["time"], calendar="noleap", use_cftime=True)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda e, t: (e, t.rename(t="q")), "no variable 't'"),
        (lambda e, t: (e, t.assign_coords(time=t.time + np.timedelta64(400, "D"))), "none of the ensemble's cases"),
        (lambda e, t: (e, t.assign_coords(lat=("lat", t.lat.values + 3, t.lat.attrs))), "different grids"),
        (lambda e, t: (e, t.t.assign_attrs(units="m s-1").to_dataset()), "units"),
        (lambda e, t: (e, xr.concat([t, t.isel(time=[0])], "time")), "same time twice"),
        (lambda e, t: (e.rename(member="draw"), t), "say member='draw'"),
        (lambda e, t: (e, e), "the reference has the ensemble dim 'member'"),
        (
            lambda e, t: (e.assign_coords(time=noleap(e)), t),
            "time has the calendar noleap in the ensemble, standard in",
        ),
        (lambda e, t: (e.assign(q=e.t), t.assign(q=t.t.where(False))), "no values of q"),
        (lambda e, t: (e, t.where(False)), "or no values there"),
        (lambda e, t: (e.t, t), "ensemble is a DataArray and not a Dataset"),
        (lambda e, t: ({"a": e}, t.t), "the reference is a DataArray and not a Dataset"),
    ],
)
def test_bad_input_is_named(perfect, break_it, message):
    with pytest.raises(SciffusionError, match=message):
        evaluate(*break_it(*perfect))


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (lambda e: e.isel(time=slice(0, 1)), "base has no case time="),
        (lambda e: e.rename(t="q"), r"base has no variable of the ensemble \(t\)"),
        (lambda e: e.t, "base is a DataArray"),
    ],
)
def test_a_baseline_that_cannot_be_compared_is_refused_before_the_first_case(perfect, baseline, message):
    def too_early(label, done, total):
        raise AssertionError

    ensemble, truth = perfect
    with pytest.raises(SciffusionError, match=message):
        evaluate(ensemble, truth, baselines={"base": baseline(ensemble)}, progress=too_early)


def test_a_single_case_may_have_its_time_as_a_scalar(perfect):
    ensemble, truth = perfect
    assert_same(score(ensemble.isel(time=3), truth), score(ensemble.isel(time=[3]), truth))


def test_cases_without_a_truth_are_counted_where_a_reader_looks(perfect):
    ensemble, truth = perfect
    partly = evaluate(ensemble, truth.isel(time=slice(2, None)))
    assert "Not scored for want of a truth or of values: 2 field(s), such as t at time=" in partly.summary()
    assert "Not scored" in render(partly)
    assert "Not scored" not in evaluate(ensemble, truth).summary()


def test_a_device_that_is_not_there_is_named(perfect):
    with pytest.raises(SciffusionError, match="numpy does not compute on 'cuda'"):
        evaluate(*perfect, device="cuda")
    with pytest.raises(SciffusionError, match="torch cannot use the device 'nowhere'"):
        evaluate(*perfect, backend="torch", device="nowhere")


def test_numbers_survive_netcdf_and_json(perfect, tmp_path):
    ensemble, truth = perfect
    evaluation = evaluate(ensemble.assign_coords(training_case=("time", np.arange(CASES) < 2)), truth)
    evaluation.to_netcdf(tmp_path / "a.nc")
    evaluation.to_json(tmp_path / "a.json")
    with xr.open_dataset(tmp_path / "a.nc") as back, xr.open_dataset(tmp_path / "a.nc", group="in_sample") as inside:
        np.testing.assert_array_equal(back.crps, evaluation.scores.crps)
        np.testing.assert_array_equal(inside.crps, evaluation.in_sample.crps)
    entries = json.loads((tmp_path / "a.json").read_text())
    assert entries["scores"]["data_vars"]["crps"]["data"] == evaluation.scores.crps.values.tolist()
    assert entries["verdicts"] == evaluation.verdicts


def test_a_brief_evaluation_gives_the_same_verdict(perfect, tmp_path):
    ensemble, truth = perfect
    biased = ensemble + 0.5
    whole, brief = evaluate(biased, truth), evaluate(biased, truth, brief=True)
    assert brief.verdicts == whole.verdicts
    assert set(brief.scores) < set(whole.scores)
    xr.testing.assert_identical(brief.scores, whole.scores[list(brief.scores)].assign_attrs(brief.scores.attrs))
    assert "too high" in brief.summary()
    brief.to_html(tmp_path / "brief.html")
    assert "too high" in (tmp_path / "brief.html").read_text()
