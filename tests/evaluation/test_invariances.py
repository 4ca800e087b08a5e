"""No score depends on order, chunks, units, the backend or how work is split, and masked data equal cropped data."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from sciffusion import evaluation as ev
from sciffusion.errors import SciffusionError
from sciffusion.evaluation import dispersion, events, single_cells, whole_fields
from sciffusion.evaluation.backend import backend_of
from sciffusion.evaluation.crps import crps
from sciffusion.evaluation.multivariate import energy_score
from sciffusion.evaluation.ranks import rank_bins
from sciffusion.evaluation.score import ensemble_moments
from sciffusion.evaluation.spool import Spool
from sciffusion.evaluation.streaming import StreamedCRPS

TIGHT = {"rtol": 1e-11, "atol": 1e-12}
CELLS = (
    single_cells.CRPS(),
    single_cells.CRPS("almost fair"),
    single_cells.ThresholdCRPS((0.0, 0.5)),
    single_cells.QuantileScore((0.2, 0.9)),
    single_cells.ErrorOfMean("rmse"),
    single_cells.ErrorOfMean("bias"),
    dispersion.Dispersion(),
    dispersion.BinnedSpreadSkill(4),
    dispersion.Ranks(),
    events.Brier((0.0,)),
    events.ROCArea((0.0,)),
    events.Reliability((0.0,)),
    events.PIT(5),
)
FIELDS = (
    whole_fields.Energy(),
    whole_fields.Variogram(),
    whole_fields.PooledCRPS((1, 2)),
    whole_fields.FSS((0.0,), (1, 3)),
)
IDS = [type(measure).__name__ for measure in CELLS + FIELDS]
every = pytest.mark.parametrize("measure", CELLS + FIELDS, ids=IDS)
of_cells = pytest.mark.parametrize("measure", CELLS, ids=IDS[: len(CELLS)])
few = settings(max_examples=4)


def draw(seed, members=7, times=6, rows=4, columns=6):
    generator = np.random.default_rng(seed)
    draws = generator.normal(size=(members + 1, times, rows, columns)).round(2)  # ties occur
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(1, "D"),
        "lat": ("lat", np.linspace(60, 30, rows), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(columns) * 10.0, {"units": "degrees_east"}),
    }
    truth = xr.DataArray(draws[0], coords, ("time", "lat", "lon"), "t", {"units": "K"})
    return xr.DataArray(draws[1:], coords, ("member", "time", "lat", "lon"), "t", {"units": "K"}), truth, generator


@every
@few
@given(seed=st.integers(0, 2**32 - 1))
def test_order_of_members_dims_and_chunks(measure, seed):
    ensemble, truth, generator = draw(seed)
    plain = ev.score(measure, ensemble, truth)
    order = generator.permutation(["member", "time", "lat", "lon"])
    shuffled = ensemble.isel(member=generator.permutation(7)).transpose(*order)
    np.testing.assert_allclose(ev.score(measure, shuffled, truth.transpose("lon", "time", "lat")), plain, **TIGHT)
    chunks = {dim: int(generator.integers(1, 5)) for dim in order}
    lazy = ev.score(measure, shuffled.chunk(chunks), truth.chunk(time=2), memory=4000)
    np.testing.assert_allclose(lazy, plain, **TIGHT)
    backward = truth.isel(lat=slice(None, None, -1), time=slice(None, None, -1))
    np.testing.assert_allclose(ev.score(measure, ensemble, backward), plain, **TIGHT)


@every
@few
@given(seed=st.integers(0, 2**32 - 1), at=st.integers(1, 5))
def test_merging_parts_equals_the_whole(measure, seed, at):
    ensemble, truth, _ = draw(seed)
    parts = [ev.accumulate(measure, ensemble.isel(time=part), truth) for part in (slice(at, None), slice(0, at))]
    merged = parts[0].merge(parts[1])
    whole = ev.accumulate(measure, ensemble, truth)
    xr.testing.assert_allclose(merged.result(), whole.result(), rtol=1e-11)
    xr.testing.assert_allclose(merged.result(0.9, block=1), whole.result(0.9, block=1), rtol=1e-11)


@of_cells
@few
@given(seed=st.integers(0, 2**32 - 1))
def test_masked_data_equal_cropped_data(measure, seed):
    ensemble, truth, _ = draw(seed)
    inside = ensemble.lat > 45
    area = xr.DataArray(np.cos(np.deg2rad(ensemble.lat)), dims="lat")
    for masked in ((ensemble, truth.where(inside)), (ensemble.where(inside), truth)):
        ours = ev.score(measure, *masked, weights=area)
        cropped = ev.score(measure, ensemble.sel(lat=inside), truth.sel(lat=inside), weights=area.sel(lat=inside))
        np.testing.assert_allclose(ours, cropped, **TIGHT)
        assert np.isfinite(ours).any()


@every
def test_a_lost_member_is_dropped_with_the_right_number_of_members(measure):
    ensemble, truth, _ = draw(1)
    whole = ev.score(measure, ensemble.isel(member=[0, 1, 2, 4, 5, 6]), truth)
    gappy = ev.score(measure, ensemble.where(np.arange(7)[:, None, None, None] != 3), truth)
    if gappy.shape == whole.shape:  # others have a bin for every possible rank or probability
        np.testing.assert_allclose(gappy, whole, rtol=0 if isinstance(measure, events.ROCArea) else 1e-11, atol=1e-12)


@few
@given(seed=st.integers(0, 2**32 - 1), slope=st.floats(0.1, 50), shift=st.floats(-300, 300))
def test_units_of_the_ensemble_and_of_both(seed, slope, shift):
    ensemble, truth, _ = draw(seed)
    fahrenheit = (ensemble * 1.8 - 459.67).assign_attrs(units="degF")
    other = ev.crps(fahrenheit, truth)
    np.testing.assert_allclose(other, ev.crps(ensemble, truth), rtol=1e-10)
    assert other.attrs["units"] == "K"
    for function in (ev.crps, ev.rmse, ev.energy_score, ev.spread):
        moved = function(slope * ensemble + shift, slope * truth + shift)
        np.testing.assert_allclose(moved, slope * function(ensemble, truth), rtol=1e-9)
    np.testing.assert_allclose(ev.spread_skill(slope * ensemble, slope * truth), ev.spread_skill(ensemble, truth))


@pytest.mark.parametrize("measure", FIELDS, ids=IDS[len(CELLS) :])
def test_a_case_without_any_member_counts_nothing_in_scores_of_fields(measure):
    ensemble, truth, _ = draw(4)
    ensemble[:, 2] = np.nan
    rest = [0, 1, *range(3, truth.sizes["time"])]
    np.testing.assert_allclose(ev.score(measure, ensemble, truth), ev.score(measure, ensemble[:, rest], truth), **TIGHT)


@every
def test_torch_gives_the_numbers_of_numpy(measure):
    ensemble, truth, generator = draw(3)
    ensemble = ensemble.where(generator.random(ensemble.shape) > 0.05)
    ours = ev.score(measure, ensemble, truth, backend="torch", device="cpu")
    np.testing.assert_allclose(ours, ev.score(measure, ensemble, truth), rtol=1e-12, atol=1e-12)


def test_kernels_on_torch_give_the_numbers_of_numpy():
    generator, torch = np.random.default_rng(5), backend_of("torch", "cpu")
    members, truth = generator.normal(size=(300, 40, 30)), generator.normal(size=(40, 30))
    members[3, :5], truth[7] = np.nan, np.nan
    for estimator in ("fair", "standard", "almost fair"):
        ours = crps(members, truth, estimator, backend=torch)
        np.testing.assert_allclose(ours, crps(members, truth, estimator), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ensemble_moments(members, truth, torch), ensemble_moments(members, truth), rtol=1e-12)
    flat = truth.reshape(-1)
    np.testing.assert_array_equal(rank_bins(members, flat, 301, backend=torch), rank_bins(members, flat, 301))
    filled, weights = np.nan_to_num(members), generator.random((40, 30))
    pair = (filled, np.nan_to_num(truth), weights)
    assert energy_score(*pair, torch) == pytest.approx(energy_score(*pair), rel=1e-12)
    states = StreamedCRPS(), StreamedCRPS()
    for state, backend in zip(states, (torch, backend_of("numpy")), strict=True):
        state.update(members[:100], truth, backend)
        state.update(members[100:], truth, backend)
    np.testing.assert_allclose(states[0].result(), states[1].result(), rtol=1e-10, atol=1e-12)


def test_streamed_state_merges_and_is_exact_with_one_block():
    generator = np.random.default_rng(6)
    members, truth = generator.normal(size=(12, 50)), generator.normal(size=50)
    whole, parts = StreamedCRPS(), [StreamedCRPS() for _ in range(2)]
    whole.update(members, truth)
    np.testing.assert_allclose(whole.result()[0], crps(members, truth), rtol=1e-12)
    np.testing.assert_allclose(whole.result()[1], 0, atol=1e-9)
    one = StreamedCRPS()
    for i, part in enumerate(np.split(members, 4)):
        one.update(part, truth)
        parts[i % 2].update(part, truth)
    np.testing.assert_allclose(parts[0].merge(parts[1]).result(), one.result(), rtol=1e-12)


def test_members_on_disk_give_the_numbers_of_memory():
    ensemble, truth, _ = draw(7, members=20)
    ensemble = ensemble.where(np.arange(20)[:, None, None, None] != 4)
    for measure in FIELDS:
        disk = ev.score(measure, ensemble.chunk(member=1), truth, memory=2000)
        np.testing.assert_allclose(disk, ev.score(measure, ensemble, truth), rtol=1e-12)
    spool = Spool(ensemble.values[:, 0])
    assert spool.shape == (20, 4, 6)
    np.testing.assert_array_equal(spool, ensemble.values[:, 0])
    np.testing.assert_array_equal(spool.columns(slice(5, 9)), ensemble.values[:, 0].reshape(20, -1)[:, 5:9])


@every
def test_totals_survive_a_file_and_go_on(measure, tmp_path):
    ensemble, truth, _ = draw(8)
    ev.accumulate(measure, ensemble.isel(time=slice(0, 2)), truth).save(tmp_path / "part.nc")
    rest = ev.accumulate(measure, ensemble.isel(time=slice(2, None)), truth)
    joined = rest.merge(ev.Totals.load(tmp_path / "part.nc")).result(0.9, block=1)
    xr.testing.assert_allclose(joined, ev.accumulate(measure, ensemble, truth).result(0.9, block=1), rtol=1e-11)


def test_a_file_that_holds_no_totals_is_named(tmp_path):
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc")
    for name in ("other.nc", "missing.nc"):
        with pytest.raises(SciffusionError, match=name):
            ev.Totals.load(tmp_path / name)
