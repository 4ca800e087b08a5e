"""Counts give the quantiles, densities and distances that sorting gives."""

import numpy as np
import pytest
from scipy import stats

from sciffusion.evaluation.dispersion import Ranks
from sciffusion.evaluation.distributions import LEVELS, WIDER, Distribution, kolmogorov_smirnov, wasserstein
from sciffusion.evaluation.exceedance import Exceedance, ratio, thresholds
from sciffusion.evaluation.measured import OfCells
from sciffusion.evaluation.score import Pair


@pytest.fixture(scope="module")
def counted():
    generator = np.random.default_rng(0)
    members, truth = generator.gamma(0.7, size=(4, 200, 250)), generator.gamma(0.8, size=(200, 250))
    shape = Distribution(np.ones((200, 250)), float(truth.mean()), float(truth.std()))
    return members, truth, shape, shape.measure(Pair.of(members, truth)).total


def test_quantiles_are_those_of_sorting_to_a_bin(counted):
    members, truth, shape, total = counted
    for values, name in ((members, "members"), (truth, "truth")):
        exact = np.quantile(values, LEVELS)
        width = 0.006 * np.hypot(shape.scale, exact - shape.centre)
        assert (np.abs(shape.quantiles(total[f"values_{name}"]) - exact) < width).all()


def test_density_integrates_to_one(counted):
    _, _, shape, total = counted
    classes = shape.classes(total["values_truth"])
    assert len(classes) <= 81
    density = shape.density(total["values_truth"], classes)
    assert (density * np.diff(shape.edges[classes])).sum() == pytest.approx(1, rel=1e-12)


def test_density_of_wider_bins_is_that_of_the_bins_they_are_made_of(counted):
    """Resamples in the same classes, several at a time."""
    _, _, shape, total = counted
    counts = np.stack([total["values_truth"], total["values_members"]])
    wide = counts.reshape(2, -1, WIDER).sum(axis=-1)
    classes = shape.classes(wide.sum(axis=0))
    several = shape.density(wide, classes)
    for one, row in zip(counts, several, strict=True):
        np.testing.assert_allclose(row, shape.density(one, WIDER * classes), rtol=1e-12)


def test_distances_agree_with_scipy(counted):
    members, truth, shape, total = counted
    counts = total["values_members"], total["values_truth"]
    exact = stats.wasserstein_distance(members.ravel(), truth.ravel())
    assert wasserstein(*counts, shape.edges) == pytest.approx(exact, abs=0.005 * shape.scale)
    exact = stats.ks_2samp(members.ravel(), truth.ravel()).statistic
    assert kolmogorov_smirnov(*counts) == pytest.approx(exact, abs=0.005)


def test_exceedances_are_counted_with_the_weights(counted):
    members, truth, _, _ = counted
    weights = np.random.default_rng(1).random(truth.shape)
    marks = thresholds(truth)
    sums = Exceedance(weights, np.zeros(truth.shape, int), marks).measure(Pair.of(members, truth)).by_case
    expected = ((members > marks[2]) * weights).sum() / 4 / ((truth > marks[2]) * weights).sum()
    assert ratio(2)({name: value.sum() for name, value in sums.items()}) == pytest.approx(expected, rel=1e-12)


def test_many_ties_keep_the_rank_histogram_of_a_perfect_ensemble_flat():
    generator = np.random.default_rng(2)
    draws = np.maximum(generator.normal(size=(8, 300, 300)), 0.5)  # 69 % of the cells are equal
    one = np.ones((300, 300))
    found = OfCells("ties", Ranks(), one, 7).measure(Pair.of(draws[1:], draws[0], seed=1)).by_case
    shares = found["ties_ranks"] / one.size
    np.testing.assert_allclose(shares, 1 / 8, atol=5 * np.sqrt(1 / 8 / one.size))
