"""Operators have true adjoints; the projection is the smallest weighted move onto the observed values."""

import numpy as np
import pytest
import torch

from sciffusion.operators import (
    BlockMean,
    LinearOperator,
    Mask,
    Mean,
    Points,
    Separable,
    Stations,
    conjugate_gradients,
    project,
    stack,
)

SHAPE = (12, 10)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def overlapping_means(n, m):
    """A conservative coarsening whose factor does not divide: overlap of n cells with m, rows summing to 1."""
    fine, coarse = np.linspace(0, 1, n + 1), np.linspace(0, 1, m + 1)
    low = np.maximum(fine[None, :-1], coarse[:-1, None])
    high = np.minimum(fine[None, 1:], coarse[1:, None])
    overlap = np.clip(high - low, 0, None)
    return torch.tensor(overlap / overlap.sum(axis=1, keepdims=True))


def means(shape=SHAPE, coarse=(5, 3)):
    return Separable([overlapping_means(n, m) for n, m in zip(shape, coarse, strict=True)])


OPERATORS = {
    "separable": means(),
    "block mean": BlockMean(SHAPE, (4, 3)),
    "points": Points(torch.tensor([[0, 0], [3, 4], [3, 4], [11, 9]]), SHAPE),
    "mask": Mask(randn(*SHAPE) > 0),
    "stations": Stations([[0.3, 9.7], [11.4, 2.5], [-0.5, -3.2]], SHAPE, [False, True]),
    "mean": Mean(randn(*SHAPE).exp()),
    "stack": stack([Points([[1, 2]], SHAPE), BlockMean(SHAPE, (4, 5)), Mask(randn(*SHAPE) > 0)]),
    "composition": Points(torch.tensor([[1, 2], [0, 0]]), (5, 3)) @ means(),
    "scaled": 2.5 * means(),
    "scaled per row": randn(5, 3) * means(),
    "3-D": Separable([randn(3, 4), randn(2, 5), randn(6, 3)]),
    "1-D": BlockMean((7,), (2,)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_adjoint_moves_the_operator_to_the_other_side(name):
    c = OPERATORS[name]
    x, y = randn(2, 3, *c.in_shape), randn(2, 3, *c.out_shape, seed=1)
    assert c(x).shape == y.shape
    torch.testing.assert_close((c(x) * y).sum(), (x * c.adjoint(y)).sum(), rtol=1e-12, atol=1e-12)


def test_block_means_average_blocks_and_an_incomplete_last_one():
    x = torch.arange(7.0)
    torch.testing.assert_close(BlockMean((7,), (3,))(x), torch.tensor([1.0, 4.0, 6.0]))


def test_points_pick_values():
    x = randn(2, *SHAPE)
    torch.testing.assert_close(OPERATORS["points"](x), x[:, [0, 3, 3, 11], [0, 4, 4, 9]])


def test_stations_are_linear_between_cell_centres_wrap_and_hold_at_edges():
    row, column = torch.meshgrid(torch.arange(12.0).double(), torch.arange(10.0).double(), indexing="ij")
    plane = 2 * row - 3 * column
    inside = torch.tensor([[0.0, 0.0], [3.25, 4.5], [10.999, 8.1], [11.0, 9.0]], dtype=torch.float64)
    torch.testing.assert_close(Stations(inside, SHAPE)(plane), inside @ torch.tensor([2.0, -3.0], dtype=torch.float64))
    torch.testing.assert_close(Stations([[11.5, -0.5]], SHAPE)(plane), plane[-1:, 0])
    around = Stations([[5.0, 9.25], [5.0, -0.75], [5.0, 19.25]], SHAPE, [False, True])(plane)
    torch.testing.assert_close(around, (0.75 * plane[5, 9] + 0.25 * plane[5, 0]).expand(3))


@pytest.mark.parametrize("positions", [[[0.0, 9.6]], [[-0.6, 0.0]], [[float("nan"), 0.0]], [1.0, 2.0]])
def test_stations_outside_the_grid_are_refused(positions):
    with pytest.raises(ValueError, match="positions"):
        Stations(torch.tensor(positions), SHAPE)


def test_a_direction_without_curvature_ends_its_system_and_no_other():
    """The second system is indefinite: it stops where it is, and the first is solved as if it were alone."""
    scale = torch.tensor([[1.0, 4.0, 2.0], [1.0, -9.0, 2.0]], dtype=torch.float64)
    rhs = torch.ones(2, 3, dtype=torch.float64)
    solution = conjugate_gradients(lambda z: scale * z, rhs, (1,))
    torch.testing.assert_close(solution[0], rhs[0] / scale[0])
    torch.testing.assert_close(solution[1], torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("indices", [[[0, 10]], [[-1, 0]], [0, 1]])
def test_points_outside_the_grid_are_refused(indices):
    with pytest.raises(ValueError, match="indices"):
        Points(torch.tensor(indices), SHAPE)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="acts on"):
        means()(randn(3, 5, 5))
    with pytest.raises(ValueError, match="compose"):
        means() @ means()


AXIS_WEIGHTS = [torch.linspace(0.1, 1, 12).double(), torch.ones(10).double()]
FULL_WEIGHTS = AXIS_WEIGHTS[0][:, None] * AXIS_WEIGHTS[1]
ISLAND = torch.ones(SHAPE, dtype=torch.bool)
ISLAND[:3, :4] = False
ISLAND[7, 5:] = False
SETTINGS = {
    "separable weights": ("separable", AXIS_WEIGHTS, None, 1024),
    "no weights": ("separable", None, None, 1024),
    "dense": ("separable", FULL_WEIGHTS, None, 1024),
    "iterative": ("separable", FULL_WEIGHTS, None, 0),
    "masked dense": ("separable", AXIS_WEIGHTS, ISLAND, 1024),
    "masked iterative": ("separable", FULL_WEIGHTS, ISLAND, 0),
    "masked per channel": ("separable", AXIS_WEIGHTS, torch.stack([ISLAND, ISLAND.flip(0)]), 1024),
    "masked per channel, iterative": ("separable", AXIS_WEIGHTS, torch.stack([ISLAND, ISLAND.flip(0)]), 0),
    "points": ("composition", FULL_WEIGHTS, None, 1024),
    "scaled": ("scaled", AXIS_WEIGHTS, None, 1024),
}


def masked_means(operator, x, valid):
    """The mean over valid cells, written down directly."""
    if valid is None:
        return operator(x), torch.ones(operator.out_shape, dtype=torch.bool)
    share = operator(valid.to(x.dtype))
    full = operator(torch.ones(SHAPE, dtype=x.dtype))
    return operator(torch.where(valid, x, 0)) / torch.where(share > 1e-9, share, 1) * full, share > 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_projection_reproduces_the_data(name, dtype):
    kind, weights, valid, limit = SETTINGS[name]
    c = OPERATORS[kind]
    x, y = randn(3, 2, *SHAPE, dtype=dtype), randn(3, 2, *c.out_shape, seed=1, dtype=dtype)
    moved = project(c, weights, valid, dense_limit=limit)(x, y)
    observed, used = masked_means(c, moved.double(), valid)
    assert moved.dtype == dtype
    tolerance = (2e-7 if dtype == torch.float32 else 1e-9) * float(moved.abs().max())  # rounding of x itself
    torch.testing.assert_close(observed * used, y.double() * used, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", SETTINGS)
def test_no_other_solution_is_nearer_in_the_weighted_norm(name):
    """Optimality: W (P(x) - x) lies in the range of C^T, so it is orthogonal to the null space of C."""
    kind, weights, valid, limit = SETTINGS[name]
    c = OPERATORS[kind]
    projection = project(c, weights, valid, dense_limit=limit)
    x, y = randn(3, 2, *SHAPE), randn(3, 2, *c.out_shape, seed=1)
    move = projection(x, y) - x
    w = FULL_WEIGHTS if weights is not None else torch.ones(SHAPE)
    free = randn(3, 2, *SHAPE, seed=2)
    null = projection(free, torch.zeros_like(y))
    null = null if valid is None else torch.where(valid, null, 0)
    product = (w * move * null).sum((-2, -1))
    assert float(product.abs().max()) < 1e-8 * float((w * move**2).sum().sqrt() * (w * null**2).sum().sqrt())


@pytest.mark.parametrize("name", SETTINGS)
def test_projecting_twice_changes_nothing(name):
    kind, weights, valid, limit = SETTINGS[name]
    projection = project(OPERATORS[kind], weights, valid, dense_limit=limit)
    y = randn(3, 2, *OPERATORS[kind].out_shape)
    once = projection(randn(3, 2, *SHAPE), y)
    torch.testing.assert_close(projection(once, y), once, rtol=0, atol=1e-8)


def test_all_ways_of_solving_agree():
    x, y = randn(3, 2, *SHAPE), randn(3, 2, 5, 3, seed=1)
    exact = project(means(), AXIS_WEIGHTS)(x, y)
    for limit in (0, 1024):
        torch.testing.assert_close(project(means(), FULL_WEIGHTS, dense_limit=limit)(x, y), exact, rtol=0, atol=1e-9)


def test_invalid_cells_are_left_as_they_are():
    x = torch.where(ISLAND, randn(3, 2, *SHAPE), float("nan"))
    moved = project(means(), AXIS_WEIGHTS, ISLAND)(x, randn(3, 2, 5, 3))
    assert bool(moved[..., ~ISLAND].isnan().all())
    assert bool(moved[..., ISLAND].isfinite().all())


def test_missing_data_constrain_nothing():
    c = BlockMean(SHAPE, (4, 5))
    x, y = randn(1, 1, *SHAPE), randn(1, 1, 3, 2, seed=1)
    y[..., 1, 1] = float("nan")
    moved = project(c, AXIS_WEIGHTS)(x, y)
    torch.testing.assert_close(moved[..., 4:8, 5:], x[..., 4:8, 5:])
    torch.testing.assert_close(c(moved)[..., 0, :], y[..., 0, :])


def test_rank_deficient_operators_reproduce_consistent_data():
    c = Points(torch.tensor([[3, 4], [3, 4], [0, 0]]), SHAPE)
    y = torch.tensor([[2.0, 2.0, -1.0]])
    torch.testing.assert_close(c(project(c)(randn(1, *SHAPE), y)), y.double())


def test_a_global_grid_with_poles_is_exact_in_float32():
    """The demo's case: 181 x 360 to 4 degrees, sphere weights, float32 data, values far from zero."""
    latitude = torch.linspace(-90, 90, 181).deg2rad().double()
    weights = [latitude.cos().clamp(min=2e-3), torch.ones(360).double()]
    c = means((181, 360), (46, 90))
    x, y = 280 + 10 * randn(2, 1, 181, 360, dtype=torch.float32), 280 + 10 * randn(2, 1, 46, 90, dtype=torch.float32)
    moved = project(c, weights)(x, y)
    assert float((c(moved.double()) - y).abs().max()) < 1e-6 * 280


@pytest.mark.parametrize("limit", [0, 1024])
def test_gradients_pass_through_the_projection(limit):
    projection = project(means(), FULL_WEIGHTS, ISLAND, dense_limit=limit)
    x, y = randn(1, 1, *SHAPE).requires_grad_(), randn(1, 1, 5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(projection, (x, y), eps=1e-1, atol=1e-7)  # linear: a long step is exact


def test_conjugate_gradients_stop_each_system_of_a_batch_by_itself():
    matrices = torch.stack([torch.eye(6).double(), torch.diag(torch.arange(1.0, 7.0).double())])
    rhs = torch.stack([torch.zeros(6).double(), randn(6)])
    solution = conjugate_gradients(lambda z: (matrices @ z[..., None])[..., 0], rhs, (-1,))
    torch.testing.assert_close(solution, torch.linalg.solve(matrices, rhs), rtol=1e-9, atol=1e-12)


def test_an_operator_of_functions_works_like_one_of_matrices():
    matrix = randn(4, 9)
    c = LinearOperator(lambda x: x @ matrix.mT, lambda y: y @ matrix, (9,), (4,))
    x, y = randn(5, 9), randn(5, 4, seed=3)
    torch.testing.assert_close(project(c)(x, y), x + (y - x @ matrix.mT) @ torch.linalg.pinv(matrix).mT)
