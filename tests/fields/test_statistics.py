"""One pass against brute force: moments, the shrinkage that predicts left-out folds, the leading mode."""

import numpy as np
import pytest

from sciffusion.fields.statistics import FoldMoments, Moments, Sketch, Totals, fold_of, leading_rms, shell_rms

RNG = np.random.default_rng(0)
WEIGHTS = RNG.random((5, 4)) + 0.5


def residuals(cases=7, gaps=0.2):
    r = 2.0 + 0.7 * RNG.standard_normal((1, 2, 5, 4)) + RNG.standard_normal((cases, 2, 5, 4))
    r[RNG.random(r.shape) < gaps] = np.nan
    return r


def moments_of(r):
    moments = Moments.zeros(r.shape[1:])
    for case in r:
        moments.update(case)
    return moments


def test_moments_equal_those_of_the_whole():
    r = residuals()
    moments = moments_of(r)
    assert moments.mean == pytest.approx(np.nanmean(r, axis=0), rel=1e-12)
    assert moments.squares == pytest.approx(np.nanvar(r, axis=0) * moments.count, rel=1e-10)


def test_moments_do_not_lose_digits_to_a_large_mean():
    r = residuals(gaps=0) + 1e8
    assert moments_of(r).squares == pytest.approx(np.var(r, axis=0) * len(r), rel=1e-6)


def folds_of(r, folds):
    moments = FoldMoments(r.shape[1:])
    for index, case in enumerate(r):
        moments.update(case, fold_of(index, len(r), folds))
    return moments


@pytest.mark.parametrize("gaps", [0.0, 0.3])
@pytest.mark.parametrize("folds", [7, 3])
def test_shrinkage_is_what_predicts_the_left_out_folds_best(gaps, folds):
    r = residuals(gaps=gaps)
    fold = np.array([fold_of(i, len(r), folds) for i in range(len(r))])
    scaling = folds_of(r, folds).scaling(WEIGHTS, "fit")
    for channel in range(2):
        mass = np.where(np.isnan(r[:, channel]), 0, WEIGHTS)
        g = np.nansum(mass * r[:, channel]) / mass.sum()

        def error(a, channel=channel, g=g):
            total = 0.0
            for i in range(len(r)):
                rest = r[fold != fold[i], channel]
                count = (~np.isnan(rest)).sum(axis=0)
                d = np.where(count > 0, np.nansum(rest, axis=0) / np.maximum(count, 1) - g, 0)
                total += np.nansum(WEIGHTS * (r[i, channel] - g - a * d) ** 2)
                assert np.allclose(scaling.held_out[fold[i], channel], g + scaling.shrinkage[channel] * d)
            return total

        best = scaling.shrinkage[channel]
        a = np.array([0.0, 0.5, 1.0])
        optimum = -np.polyfit(a, [error(value) for value in a], 2)[1] / (2 * np.polyfit(a, [error(v) for v in a], 2)[0])
        assert 0 < best < 1
        assert best == pytest.approx(optimum, rel=1e-8)
        assert scaling.sd[channel] == pytest.approx(np.sqrt(error(best) / mass.sum()), rel=1e-10)


def test_one_case_has_no_mean_per_cell():
    scaling = folds_of(residuals(cases=1, gaps=0), 3).scaling(WEIGHTS, "fit")
    assert scaling.shrinkage.tolist() == [0.0, 0.0]
    assert np.ptp(scaling.mean[0]) == 0


def test_totals_equal_weighted_moments():
    r = residuals()
    totals = Totals.zeros(2)
    for case in r:
        totals.update(case, WEIGHTS)
    scaling, other = totals.scaling(2), folds_of(r, 3).scaling(WEIGHTS, 0.0)
    assert scaling.sd == pytest.approx(other.sd, rel=1e-12)
    assert scaling.mean.ravel() == pytest.approx(other.mean[:, 0, 0], rel=1e-6)


@pytest.mark.parametrize("rms", [20.0, 60.0])
def test_the_leading_mode_is_found_among_many_cells(rms):
    """40 cases of 20000 cells: the plain Gram matrix would say sqrt(rms^2 + 500), 22 above white noise."""
    mode = np.ones(20000) / np.sqrt(20000)
    amplitudes = RNG.standard_normal(40)
    amplitudes *= rms / np.sqrt((amplitudes**2).mean())
    z = RNG.standard_normal((40, 20000)) + np.outer(amplitudes, mode)
    assert leading_rms(z) == pytest.approx(rms, rel=0.1)


def test_the_strongest_wavenumber_is_found_in_one_case():
    x = np.arange(64) * 2 * np.pi / 64
    z = 0.1 * RNG.standard_normal((1, 1, 64, 64)) + np.sqrt(2) * np.cos(0 * x[:, None] + 0 * x) / np.sqrt(2)
    assert shell_rms(z) == pytest.approx(64.0, rel=0.02)  # all of the variance of 64^2 cells in one mode


def test_a_sketch_keeps_to_its_limit_and_forgets_no_end():
    sketch = Sketch(most=16)
    for i in range(200):
        sketch.update(np.full((1, 2, 2), float(i)))
    kept = sorted(case[0, 0, 0] for case in sketch.cases)
    assert len(kept) == 16
    assert kept[0] < 60
    assert kept[-1] > 140
    small = Sketch(limit=4 * 16 * 50)
    for _ in range(5):
        small.update(RNG.standard_normal((2, 40, 40)))
    assert sum(case.nbytes for case in small.cases) <= 4 * 16 * 50
    assert small.leading_rms(np.zeros((2, 40, 40)), np.ones(2)) >= 1.0
