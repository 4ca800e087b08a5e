"""Quantile mapping gives every cell the distribution of its training values, and spreads as the conditional does."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from sciffusion.fields.cases import Case
from sciffusion.stages.items import Item, Prepared
from sciffusion.stages.quantile import QuantileMappingStage
from sciffusion.stages.quantile_table import QuantileTable, normal_scores
from sciffusion.stages.saved import stage_from_state, state_of
from tests.stages.simple import CoarseGuess, simple_codec


def test_the_map_takes_training_values_exactly_to_the_order_statistics_of_the_target():
    rng = np.random.default_rng(0)
    source, target = (
        rng.standard_normal((21, 5, 7)).astype(np.float32),
        rng.gamma(0.7, size=(21, 5, 7)).astype(np.float32),
    )
    tables = [QuantileTable.of(sample, 21) for sample in (source, target)]
    mapped = np.stack([tables[1].value_of(tables[0].score_of(x)) for x in source])
    np.testing.assert_allclose(np.sort(mapped, axis=0), np.sort(target, axis=0), rtol=1e-6, atol=1e-7)
    assert (np.argsort(mapped, axis=0) == np.argsort(source, axis=0)).all()


def test_scores_and_values_are_inverse_between_and_beyond_the_order_statistics():
    sample = np.random.default_rng(1).standard_normal((15, 40))
    table = QuantileTable.of(sample, 15)
    x = np.linspace(-4, 4, 40)
    np.testing.assert_allclose(table.value_of(table.score_of(x)), x, atol=1e-9)


def test_equal_values_share_the_mean_of_their_scores():
    table = QuantileTable.of(np.array([0.0, 0, 0, 1, 2])[:, None], 5)
    assert table.score_of(np.zeros(1))[0] == pytest.approx(normal_scores(5)[:3].mean())


def test_gaps_and_constant_cells_leave_finite_maps():
    sample = np.array([[1.0, np.nan, 3], [2, np.nan, 3], [np.nan, np.nan, 3]])
    table = QuantileTable.of(sample, 2)
    np.testing.assert_allclose(table.values, [[1, 0, 3], [2, 0, 3]])
    assert np.isfinite(table.score_of(np.array([9.0, 9, 9]))).all()
    np.testing.assert_allclose(table.value_of(np.full(3, 2.0))[1:], [0, 3])


def test_fewer_quantiles_than_values_are_those_of_the_distribution():
    sample = np.random.default_rng(2).standard_normal((4000, 1))
    table = QuantileTable.of(sample, 19)
    # a quantile at probability p of n values errs by sqrt(p (1 - p) / n) / density: 0.04 at the outermost of 19
    np.testing.assert_allclose(table.values[:, 0], normal_scores(19), atol=4 * 0.04)


@pytest.fixture(scope="module")
def gaussian():
    """Truth x = 0.8 b + 0.6 e cell by cell, sd 1 each, in a channel that has a coarse field; another has none."""
    rng = np.random.default_rng(3)
    guess = rng.standard_normal((400, 1, 6, 8))
    fed = 0.8 * guess + 0.6 * rng.standard_normal(guess.shape)
    free = rng.standard_normal(guess.shape)
    fields = np.concatenate([fed, 5 + 2 * free], axis=1).astype(np.float32)
    baselines = np.concatenate([guess, np.full(guess.shape, np.nan)], axis=1).astype(np.float32)
    codec = simple_codec(fields, baselines)
    stage = QuantileMappingStage.fit(
        codec, {"coarse": CoarseGuess()}, "coarse", zip(fields, baselines, strict=True), np.zeros((6, 8), int)
    )
    return stage, fields, baselines


def drawn(stage, baseline, members, seed=0):
    prepared = Prepared(Case((0,), {"time": 0}), {}, baseline)
    fields = stage.draw([Item(prepared, member) for member in range(members)], seed=seed)
    return stage.codec.decode(fields, baseline)


def test_members_have_the_conditional_distribution_of_jointly_gaussian_data(gaussian):
    """For x = 0.8 b + 0.6 e equation (1) is the exact conditional: mean 0.8 b, sd 0.6."""
    stage = gaussian[0]
    assert float(stage.correlation[0].mean()) == pytest.approx(0.8, abs=0.01)  # 19200 pairs: se 0.003
    assert float(stage.correlation[1].abs().max()) == 0
    one = np.concatenate([np.full((1, 6, 8), 1.0), np.full((1, 6, 8), np.nan)]).astype(np.float32)
    members = drawn(stage, one, 300)["a"]
    # 48 tables of 100 quantiles, each off by up to 0.06, and 14400 draws
    assert members.mean() == pytest.approx(0.8, abs=0.04)
    assert members.std(axis=0).mean() == pytest.approx(0.6, abs=0.03)


def test_a_channel_without_a_coarse_field_gets_its_climate(gaussian):
    stage, _, baselines = gaussian
    members = drawn(stage, baselines[0], 300)["b"]
    assert members.mean() == pytest.approx(5, abs=0.1)
    assert members.std() == pytest.approx(2, abs=0.1)


def test_over_the_training_cases_the_members_have_the_marginal_of_the_truth(gaussian):
    stage, fields, baselines = gaussian
    members = np.concatenate([drawn(stage, b, 2, seed=i)["a"] for i, b in enumerate(baselines)])
    for level in (0.01, 0.1, 0.5, 0.9, 0.99):
        error = np.sqrt(level * (1 - level) / (400 * 48)) / norm.pdf(norm.ppf(level))
        assert np.quantile(members, level) == pytest.approx(np.quantile(fields[:, 0], level), abs=5 * error)


def test_a_saved_stage_draws_the_same(gaussian):
    stage, _, baselines = gaussian
    entry, tensors = state_of(stage)
    again = stage_from_state(entry | {"conditioners": {}}, tensors)
    item = Item(Prepared(Case((1,), {"time": 1}), {}, baselines[1]), 3)
    assert torch.equal(again.draw([item], seed=1), stage.draw([item], seed=1))
