"""The linear-Gaussian baseline finds a linear law when there is one, and claims no skill where there is none."""

import numpy as np
import pytest

from sciffusion.fields.grid import Grid
from sciffusion.stages.linear import fit_linear, predict
from sciffusion.stages.stencil import Stencil


def plane(shape, periodic=(True, True)):
    return Grid(dims=("y", "x"), shape=shape, coords=(None, None), periodic=periodic)


@pytest.fixture
def wide():
    """A grid with more coarse cells than the stencil."""
    fine = plane((24, 28))
    return Stencil.between(fine, fine.coarsened({"y": 4, "x": 4}))


@pytest.fixture
def stencil():
    fine = plane((12, 16))
    return Stencil.between(fine, fine.coarsened({"y": 4, "x": 4}))


def test_parents_and_phases_of_a_nested_grid(stencil):
    assert stencil.parents[0].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert stencil.phases[1].tolist() == [0, 1, 2, 3] * 4
    assert sorted(set(stencil.positions().ravel())) == list(range(16))


def test_neighbours_wrap_around_periodic_axes_and_stop_at_others():
    fine = plane((8, 8), periodic=(True, False))
    stencil = Stencil.between(fine, fine.coarsened({"y": 4, "x": 4}))
    coarse = np.arange(4.0).reshape(1, 2, 2)
    up_left = stencil.predictors(coarse)[8]  # neighbour (-1, -1) minus the centre
    assert up_left[0, 0] == coarse[0, 1, 0] - coarse[0, 0, 0]  # wraps in y, stays in x


def test_descending_coordinates_find_the_same_parent():
    rows = np.arange(11.5, 0, -1)
    fine = Grid(dims=("y",), shape=(12,), coords=(rows,))
    stencil = Stencil.between(fine, fine.coarsened({"y": 4}))
    assert stencil.parents[0].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def linear_cases(stencil, noise, count=24, seed=0):
    """z = A(place) . predictors + noise, with a table A drawn at random."""
    rng = np.random.default_rng(seed)
    positions = stencil.positions()
    table = rng.standard_normal((16, 26, 1))
    cases = []
    for _ in range(count):
        coarse = rng.standard_normal((1, 6, 7))
        z = predict(stencil.predictors(coarse), positions, table) + noise * rng.standard_normal((1, 24, 28))
        cases.append((coarse, z, np.ones(z.shape, bool)))
    return cases, table


def test_a_linear_law_without_noise_is_recovered(wide):
    cases, table = linear_cases(wide, noise=0.0)
    coefficients, sd = fit_linear(cases, wide, np.zeros((24, 28), int))
    assert np.allclose(coefficients, table, atol=1e-4)
    assert sd.max() < 1e-3


def test_the_noise_level_is_recovered_per_group(wide):
    groups = np.zeros((24, 28), int)
    groups[12:] = 1
    cases, _ = linear_cases(wide, noise=0.0, count=120)
    rng = np.random.default_rng(5)
    noisy = [(c, z + np.where(groups, 2.0, 0.5) * rng.standard_normal(z.shape), v) for c, z, v in cases]
    _, sd = fit_linear(noisy, wide, groups)
    # held-out error = noise + error of the 26 coefficients, which 80 cases x 42 cells per place of mean noise variance
    # 2.1 determine: + 26 / 3360 * 2.1 in variance; 120 x 336 samples give a sampling error of 0.4 %
    extra = 26 / 3360 * (0.25 + 4) / 2
    assert sd[0, 0, 0] == pytest.approx(np.sqrt(0.25 + extra), rel=0.03)
    assert sd[0, -1, 0] == pytest.approx(np.sqrt(4 + extra), rel=0.03)


def test_on_pure_noise_the_spread_is_that_of_the_noise_not_of_an_overfit(wide):
    rng = np.random.default_rng(1)
    cases = [
        (rng.standard_normal((1, 6, 7)), rng.standard_normal((1, 24, 28)), np.ones((1, 24, 28), bool)) for _ in range(9)
    ]
    coefficients, sd = fit_linear(cases, wide, np.zeros((24, 28), int))
    assert sd[0, 0, 0] > 0.98  # an overfit of 26 predictors on 378 samples per place would claim 0.96
    assert np.abs(coefficients).max() < 0.7
