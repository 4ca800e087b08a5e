"""Member noise is a contract: a function of (key, cell) alone, standard normal, independent between keys."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from sciffusion import noise
from sciffusion.noise import MemberNoise, NoiseKey, member_noise, normal, window_normal

KEY = NoiseKey(seed=7, case=("2026-03-25T00:00:00", 3, 0.5), member=12, stage="denoiser", step=2, stream="churn")
CHANGED = {
    "seed": NoiseKey(8, KEY.case, 12, "denoiser", 2, "churn"),
    "case": NoiseKey(7, ("2026-03-25T00:00:00", 4, 0.5), 12, "denoiser", 2, "churn"),
    "member": NoiseKey(7, KEY.case, 13, "denoiser", 2, "churn"),
    "stage": NoiseKey(7, KEY.case, 12, "other", 2, "churn"),
    "step": NoiseKey(7, KEY.case, 12, "denoiser", 3, "churn"),
    "stream": NoiseKey(7, KEY.case, 12, "denoiser", 2, "start"),
}


def test_the_values_are_a_contract():
    """Changing these numbers changes every ensemble ever made: it needs another _VERSION and a CHANGELOG entry."""
    assert KEY.words() == (15307499456397579882, 10958017367038201361)
    np.testing.assert_array_equal(
        normal(KEY, (8,)),
        np.array(
            [0.6620019, 0.09368536, -0.11091583, -0.15195581, 1.2565093, 0.1651408, -0.71536344, -0.84372914],
            np.float32,
        ),
        strict=True,
    )


def test_moments_to_fourth_order_are_the_normals():
    n = 4_000_000
    x = normal(KEY, (n,)).astype(np.float64)
    for power, (expected, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert np.mean(x**power) == pytest.approx(expected, abs=4 * np.sqrt(variance / n))


def test_the_distribution_passes_kolmogorov_smirnov():
    assert stats.kstest(normal(KEY, (1_000_000,)).astype(np.float64), "norm").pvalue > 1e-3


def test_tails_hold_their_share():
    n = 8_000_000
    x = np.abs(normal(KEY, (n,)))
    for threshold in (3.0, 4.0, 4.5):
        expected = n * 2 * stats.norm.sf(threshold)
        assert np.sum(x > threshold) == pytest.approx(expected, abs=4 * np.sqrt(expected))


def test_quantiles_are_accurate_over_the_whole_range():
    p = np.concatenate([2.0 ** -np.linspace(54, 4, 20_000), np.linspace(0.05, 0.5 - 1e-9, 20_000)])
    ours = np.where(p < 0.075, noise._tail(np.minimum(p, 0.075)), noise._central(0.5 - p))
    np.testing.assert_allclose(ours, -special.ndtri(p), rtol=1e-13)


def test_extreme_words_give_finite_symmetric_values():
    words = np.array([0, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    lowest, middle, negative, minus_middle = noise._transform(words)
    assert lowest == -negative == np.float32(-special.ndtri(2.0**-54))
    assert middle == -minus_middle
    assert 0 < middle < 1e-15


def test_no_element_of_a_stream_is_correlated_with_its_neighbours():
    x = normal(KEY, (1_000_000,)).astype(np.float64)
    for lag in (1, 2, 3, 4, 5, 360):
        assert abs(np.mean(x[lag:] * x[:-lag])) < 4 / np.sqrt(x.size)


@pytest.mark.parametrize(("one", "other"), list(combinations(["", *CHANGED], 2)))
def test_streams_of_different_keys_are_independent(one, other):
    a, b = (normal(CHANGED.get(name, KEY), (100_000,)).astype(np.float64) for name in (one, other))
    assert abs(np.mean(a * b)) < 4 / np.sqrt(a.size)
    assert abs(np.mean((a**2 - 1) * (b**2 - 1))) < 4 * 2 / np.sqrt(a.size)


def test_neighbouring_members_average_like_independent_ones():
    fields = np.stack([normal(NoiseKey(0, (), member), (1000,)) for member in range(400)]).astype(np.float64)
    assert np.var(fields.mean(axis=0)) * 400 == pytest.approx(1, abs=4 * np.sqrt(2 / 1000))


@given(st.integers(0, 50), st.integers(1, 200), st.integers(0, 200))
def test_a_draw_is_a_window_of_every_longer_draw(start, count, more):
    longer = normal(KEY, (start + count + more,))
    np.testing.assert_array_equal(normal(KEY, (count,), start=start), longer[start : start + count])


def test_the_chunks_of_the_transform_leave_no_trace():
    full = normal(KEY, (3 * noise.CHUNK + 5,))
    np.testing.assert_array_equal(normal(KEY, (9,), start=noise.CHUNK - 4), full[noise.CHUNK - 4 :][:9])


@given(st.data())
def test_a_window_holds_the_values_of_the_whole(data):
    grid = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    corners = [sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size)))) for size in grid]
    slices = tuple(slice(*corner) for corner in corners)
    whole = normal(KEY, (2, *grid))
    np.testing.assert_array_equal(window_normal(KEY, (2, *grid), slices), whole[(slice(None), *slices)], strict=True)


def test_a_window_draws_its_rows_only(monkeypatch):
    drawn = []
    raw = noise._raw
    monkeypatch.setattr(noise, "_raw", lambda words, start, count: drawn.append(count) or raw(words, start, count))
    window_normal(KEY, (2, 1000, 50), (slice(10, 14), slice(0, 5)))
    assert sum(drawn) == 2 * 4 * 50


@pytest.mark.parametrize("window", [None, (slice(1, 4), slice(2, 7))])
def test_members_together_are_each_one_alone(window):
    keys, shape = list(CHANGED.values()), (2, 5, 7)
    together = member_noise([MemberNoise(((1.0, key),), window) for key in keys], shape)
    cut = (slice(None), *(window or ()))
    np.testing.assert_array_equal(together, np.stack([normal(key, shape)[cut] for key in keys]), strict=True)


def test_windows_of_members_may_lie_apart():
    windows = [(slice(first, first + 3), slice(2 * first, 2 * first + 2)) for first in (0, 1, 2)]
    together = member_noise([MemberNoise(((1.0, KEY),), window) for window in windows], (2, 5, 7))
    expected = np.stack([window_normal(KEY, (2, 5, 7), window) for window in windows])
    np.testing.assert_array_equal(together, expected, strict=True)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0), (0.8, 0.6), (0.1, 0.2, 0.3)])
def test_sums_and_quotients_are_rounded_in_float64_in_the_order_of_the_terms(weights):
    keys, shape = list(CHANGED.values()), (2, 300)
    terms = tuple(zip(weights, keys, strict=False))
    expected = np.asarray(sum(w * normal(key, shape).astype(np.float64) for w, key in terms), np.float32)
    for divisor in (1.0, 0.7):
        (alone,) = member_noise([MemberNoise(terms, divisor=divisor)], shape)
        np.testing.assert_array_equal(alone, np.asarray(expected / np.float64(divisor), np.float32), strict=True)


def test_numpy_scalars_and_plain_numbers_make_the_same_key():
    plain = NoiseKey(3, ("a", 2, 0.1), 5)
    assert NoiseKey(np.int64(3), (np.str_("a"), np.int32(2), np.float64(0.1)), np.int16(5)).words() == plain.words()


def test_labels_that_look_alike_make_different_keys():
    labels = [(), ("",), ("1",), (1,), (1.0,), (1, 1), ("1,1",), ("1", "1")]
    assert len({NoiseKey(0, label, 0).words() for label in labels}) == len(labels)


def test_a_nan_label_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        NoiseKey(0, (float("nan"),), 0).words()
