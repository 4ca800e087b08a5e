"""The CRPS agrees with other libraries and with closed forms, whatever the size, the mean and the gaps."""

import numpy as np
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.backend import NUMPY
from sciffusion.evaluation.crps import crps, threshold_weighted_crps


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(11, 6, 7)), generator.normal(size=(6, 7))


@pytest.mark.parametrize(("ours", "theirs"), [("fair", "fair"), ("standard", "nrg")])
def test_agrees_with_scoringrules(data, ours, theirs):
    members, truth = data
    oracle = scoringrules.crps_ensemble(truth, members, m_axis=0, estimator=theirs)
    np.testing.assert_allclose(crps(members, truth, ours), oracle, rtol=1e-12, atol=1e-12)


def test_almost_fair_is_the_mixture(data):
    fair, standard = crps(*data), crps(*data, "standard")
    np.testing.assert_allclose(crps(*data, "almost fair", alpha=0.95), 0.95 * fair + 0.05 * standard, rtol=1e-12)


def test_threshold_weighting_agrees_with_scoringrules(data):
    members, truth = data
    oracle = scoringrules.twcrps_ensemble(truth, members, a=0.3, m_axis=0, estimator="fair")
    np.testing.assert_allclose(threshold_weighted_crps(members, truth, 0.3), oracle, rtol=1e-12, atol=1e-12)


def test_fair_score_of_a_perfect_gaussian_ensemble_is_sd_over_root_pi():
    generator = np.random.default_rng(1)
    members, truth = generator.normal(size=(5, 200_000)), generator.normal(size=200_000)
    score = crps(members, truth)
    assert score.mean() == pytest.approx(1 / np.sqrt(np.pi), abs=4 * score.std() / np.sqrt(score.size))


def test_a_large_mean_costs_no_digits_in_single_precision(data):
    members, truth = (np.round(array * 64) / 64 for array in data)  # exact in float32 after the shift
    shifted = crps((members + 1e5).astype(np.float32), (truth + 1e5).astype(np.float32))
    np.testing.assert_allclose(shifted, crps(members, truth), rtol=1e-6, atol=1e-7)


def test_blocks_of_cells_do_not_change_the_answer():
    generator = np.random.default_rng(2)
    members, truth = generator.normal(size=(64, NUMPY.values // 32)), generator.normal(size=NUMPY.values // 32)
    np.testing.assert_array_equal(crps(members, truth)[:100], crps(members[:, :100], truth[:100]))


@settings(max_examples=40)
@given(st.integers(3, 9), st.integers(0, 2**32 - 1))
def test_a_missing_member_is_dropped_from_its_cell(size, seed):
    generator = np.random.default_rng(seed)
    members, truth = generator.normal(size=(size, 8)), generator.normal(size=8)
    lost = generator.integers(size)
    gappy = members.copy()
    gappy[lost] = np.nan
    np.testing.assert_allclose(crps(gappy, truth), crps(np.delete(members, lost, 0), truth), rtol=1e-11, atol=1e-12)


@settings(max_examples=40)
@given(st.integers(2, 12), st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-1e3, 1e3))
def test_order_shift_and_units_of_members(size, seed, scale, shift):
    generator = np.random.default_rng(seed)
    members, truth = generator.normal(size=(size, 5)), generator.normal(size=5)
    score = crps(members, truth)
    np.testing.assert_allclose(crps(generator.permutation(members), truth), score, rtol=1e-12, atol=1e-12)
    moved = crps(members * scale + shift, truth * scale + shift)
    np.testing.assert_allclose(moved, scale * score, rtol=1e-7, atol=1e-9 * scale + 1e-12 * abs(shift))


def test_nothing_to_score_is_missing_not_perfect():
    members = np.array([[1.0, np.nan, 1.0], [2.0, np.nan, np.nan]])
    assert np.isnan(crps(members, np.array([np.nan, 0.0, 0.0]))).all()


def test_an_unknown_estimator_is_named(data):
    with pytest.raises(SciffusionError, match="unfair"):
        crps(*data, "unfair")
