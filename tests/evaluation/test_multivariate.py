"""Scores of whole fields agree with scoringrules and see what single cells cannot."""

import numpy as np
import pytest
import scoringrules

from sciffusion.evaluation.multivariate import Multivariate, energy_score, pooled, variogram_score
from sciffusion.evaluation.score import Pair


def test_energy_score_agrees_with_scoringrules():
    generator = np.random.default_rng(0)
    members, truth = generator.normal(size=(7, 5, 6)) + 1e3, generator.normal(size=(5, 6)) + 1e3
    oracle = scoringrules.es_ensemble(truth.ravel(), members.reshape(7, -1), estimator="fair")
    ours = energy_score(members, truth, np.ones((5, 6)))
    assert ours * np.sqrt(30) == pytest.approx(float(oracle), rel=1e-10)


def test_energy_score_of_exchangeable_gaussians_reaches_its_floor():
    """E|X - y| - E|X - X'| / 2 = E|X - X'| / 2 = Gamma((n + 1) / 2) / Gamma(n / 2) in n dimensions."""
    from scipy.special import gammaln

    generator = np.random.default_rng(1)
    n, scores = 40, []
    for _ in range(1500):
        draws = generator.normal(size=(5, n))
        scores.append(energy_score(draws[1:], draws[0], np.ones(n)) * np.sqrt(n))
    floor = np.exp(gammaln((n + 1) / 2) - gammaln(n / 2))
    assert np.mean(scores) == pytest.approx(floor, abs=4 * np.std(scores) / np.sqrt(len(scores)))


def test_variogram_score_is_the_fair_version_of_scoringrules():
    """On two cells with one lag the plain score of scoringrules less the variance of the ensemble mean."""
    generator = np.random.default_rng(2)
    members, truth = generator.normal(size=(6, 2)), generator.normal(size=2)
    plain = scoringrules.vs_ensemble(truth, members, p=0.5) / 2  # it counts every pair twice
    jumps = np.abs(members[:, 0] - members[:, 1]) ** 0.5
    ours = variogram_score(members, truth, np.ones(2), (False,))
    assert ours == pytest.approx(float(plain) - jumps.var(ddof=1) / 6, rel=1e-12)


def test_right_marginals_without_correlation_are_seen_by_pooling_only():
    generator = np.random.default_rng(3)
    size, exact, broken = 32, np.zeros(4), np.zeros(4)
    for _ in range(40):
        draws = generator.normal(size=(9, size // 4, size // 4)).repeat(4, 1).repeat(4, 2)
        scrambled = np.concatenate([draws[:1], generator.permuted(draws[1:], axis=0)])
        for sums, fields in ((exact, draws), (broken, scrambled)):
            found = Multivariate(np.ones((size, size)), (True, True)).measure(Pair.of(fields[1:], fields[0])).by_case
            sums += np.append(found["pooled_crps"] / found["pooled_weight"], found["variogram_score"])
    ratio = broken / exact
    assert ratio[1] > 1.2  # blocks of four cells
    assert ratio[3] > 1.5  # variogram


def test_pooling_drops_what_is_left_over():
    values = np.arange(7.0)[:, None] * np.ones((7, 5))
    np.testing.assert_array_equal(pooled(values, 2), 2 * np.array([[1.0, 1], [5, 5], [9, 9]]))


def test_masked_cells_change_nothing():
    generator = np.random.default_rng(4)
    members, truth = generator.normal(size=(5, 8, 8)), generator.normal(size=(8, 8))
    truth[:, 4:] = np.nan
    score = Multivariate(np.ones((8, 8)), (False, False))
    masked = score.measure(Pair.of(members, truth)).by_case
    cropped = Multivariate(np.ones((8, 4)), (False, False)).measure(Pair.of(members[..., :4], truth[:, :4])).by_case
    assert float(masked["energy_score"]) == pytest.approx(float(cropped["energy_score"]), rel=1e-12)
    np.testing.assert_allclose(masked["pooled_crps"][:2], cropped["pooled_crps"][:2], rtol=1e-12)
