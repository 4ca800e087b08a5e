"""The projection of a field onto what an operator observes.

Weights ``W`` (cell areas) define the norm in which a field moves least when it is made to reproduce coarse data ``y``:

    P(x, y) = x + W^-1 C^T (C W^-1 C^T)^-1 (y - C x)                                              (1)
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from sciffusion.operators.constants import Constants
from sciffusion.operators.linear import LinearOperator, Map, Mask, Separable, apply_along_axes

__all__ = ["Projection", "conjugate_gradients", "project"]

DENSE_LIMIT = 1024  # constraints up to which C W^-1 C^T is factorised rather than solved by conjugate gradients


class Projection:
    """Equation (1), batched over leading axes; made by `project`.

    ``Projection(x, y)`` takes x (..., *in_shape) and y (..., *out_shape), works in float64 (float32 where the device
    has none) and returns x's dtype. Where ``y`` is not finite, ``C x`` is left as it is. Differentiable in x and y.
    """

    def __init__(self, operator: LinearOperator, gain: Map) -> None:
        self.operator, self.gain = operator, gain

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Move ``x`` onto ``C x = y``."""
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        residual = y.to(x.device, wide) - self.operator(x.to(wide))
        residual = torch.where(residual.isfinite(), residual, 0)
        return (x.to(wide) + self.gain(residual)).to(x.dtype)


def project(
    operator: LinearOperator,
    weights: Sequence[Tensor] | Tensor | None = None,
    valid: Tensor | None = None,
    *,
    dense_limit: int = DENSE_LIMIT,
) -> Projection:
    """Projection (1) onto ``C x = y`` in the norm of ``weights``.

    Parameters
    ----------
    operator
        C, a row-wise mean when there is a mask: row i then becomes C_ij m_j (sum_j C_ij) / (sum_j C_ij m_j), the mean
        over the valid part of a block, and rows without valid cells constrain nothing.
    weights
        Positive cell weights: one vector per grid axis (their product is meant), or a tensor (*grid); None is 1.
    valid
        Bool (*grid) or (channel, *grid), None when all cells are; invalid cells are left as they are.
    dense_limit
        Number of constraints up to which C W^-1 C^T is factorised; above, conjugate gradients to 1e-10 are used.

    A Separable operator with per-axis weights and no mask is factorised exactly, axis by axis.
    """
    weights = [torch.ones(size) for size in operator.in_shape] if weights is None else weights
    if isinstance(operator, Separable) and not isinstance(weights, Tensor) and (valid is None or bool(valid.all())):
        gains = Constants([_axis_gain(*pair) for pair in zip(operator.matrices, weights, strict=True)])
        return Projection(operator, lambda residual: apply_along_axes(gains.like(residual), residual))
    inverse_weight, used = _inverse_weight(weights, operator.in_shape), torch.ones(operator.out_shape).bool()
    if valid is not None:
        valid = valid.detach().cpu().bool()
        operator, used = _restricted(operator, valid)
        inverse_weight = torch.where(valid, inverse_weight, 0)
    constants, rows = Constants([inverse_weight]), Constants([used])

    def back(dual: Tensor) -> Tensor:  # W^-1 C^T
        return constants.like(dual)[0] * operator.rmatvec(dual)

    def gram(dual: Tensor) -> Tensor:  # C W^-1 C^T
        return operator.matvec(back(dual))

    channels = inverse_weight.shape[: inverse_weight.ndim - len(operator.in_shape)]
    small = prod(operator.out_shape) <= dense_limit
    solve = _dense_solver(gram, channels, operator.out_shape) if small else _iterative_solver(gram, operator.out_shape)
    return Projection(operator, lambda residual: back(solve(torch.where(rows.on(residual)[0], residual, 0))))


def _restricted(operator: LinearOperator, valid: Tensor) -> tuple[LinearOperator, Tensor]:
    """C over valid cells, its rows renormalised to the weight that is left, and which rows have any left."""
    mask = Mask(valid)
    full = operator.matvec(torch.ones(operator.in_shape, dtype=torch.float64))
    left = operator.matvec(valid.to(torch.float64))
    used = left.abs() > 1e-6 * full.abs()
    scale = Constants([torch.where(used, full / torch.where(used, left, 1), 0)])
    restricted = LinearOperator(
        lambda x: scale.like(x)[0] * operator.matvec(mask.matvec(x)),
        lambda y: mask.matvec(operator.rmatvec(scale.like(y)[0] * y)),
        operator.in_shape,
        operator.out_shape,
    )
    return restricted, used


def _axis_gain(matrix: Tensor, weight: Tensor) -> Tensor:
    """W^-1 C^T (C W^-1 C^T)^+ of one axis, in float64."""
    back = matrix.mT / weight.detach().cpu().to(torch.float64)[:, None]
    gain: Tensor = back @ torch.linalg.pinv(matrix @ back, hermitian=True, rtol=1e-12)
    return gain


def _inverse_weight(weights: Sequence[Tensor] | Tensor, shape: tuple[int, ...]) -> Tensor:
    """1 / W on the whole grid, float64, on the host."""
    if isinstance(weights, Tensor):
        return 1 / weights.detach().cpu().to(torch.float64)
    total = torch.ones(shape, dtype=torch.float64)
    for axis, weight in enumerate(weights):
        total = total * torch.as_tensor(weight).to(torch.float64).reshape(-1, *[1] * (len(shape) - axis - 1))
    return 1 / total


def _dense_solver(gram: Map, channels: Sequence[int], out_shape: Sequence[int]) -> Map:
    """Apply the pseudo-inverse of ``gram``, assembled once from its columns: (channel, m, m) in float64."""
    size = prod(out_shape)
    units = torch.eye(size, dtype=torch.float64).reshape(size, *[1] * len(channels), *out_shape)
    units = units.expand(size, *channels, *out_shape)
    columns = torch.cat([gram(part) for part in torch.split(units, 64)]).flatten(-len(out_shape))
    inverse = Constants([torch.linalg.pinv(columns.movedim(0, -1), hermitian=True, rtol=1e-12)])

    def solve(residual: Tensor) -> Tensor:
        flat = residual.flatten(-len(out_shape))[..., None, :]
        return (flat @ inverse.like(residual)[0].mT).reshape(residual.shape)

    return solve


def _iterative_solver(gram: Map, out_shape: Sequence[int]) -> Map:
    """Apply the inverse of ``gram`` by conjugate gradients; the gradient is another solve, not the unrolled loop."""
    axes = tuple(range(-len(out_shape), 0))

    def solve(residual: Tensor) -> Tensor:
        return conjugate_gradients(gram, residual, axes)

    return lambda residual: _Solve.apply(residual, solve)  # type: ignore[no-untyped-call]


class _Solve(torch.autograd.Function):
    """A symmetric solve: its own adjoint."""

    @staticmethod
    def forward(ctx: Any, rhs: Tensor, solve: Map) -> Tensor:
        ctx.solve = solve
        return solve(rhs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.solve(gradient), None


def conjugate_gradients(
    matrix: Map, rhs: Tensor, axes: tuple[int, ...], tolerance: float = 1e-10, limit: int = 1000
) -> Tensor:
    """Solve ``matrix(z) = rhs`` for every system of the batch; ``axes`` are those of one system.

    A system stops when its residual is below ``tolerance`` times its right-hand side (Hestenes and Stiefel 1952) or
    its direction has no positive curvature, and does not change while others go on; all stop after ``limit`` steps.
    ``matrix`` is symmetric and positive semi-definite, ``rhs`` in its range.
    """
    with torch.no_grad():
        solution, residual, direction = torch.zeros_like(rhs), rhs, rhs
        square = (residual**2).sum(axes, keepdim=True)
        target = tolerance**2 * square
        for _ in range(limit):
            if bool((square <= target).all()):
                break
            image = matrix(direction)
            curvature = (direction * image).sum(axes, keepdim=True)
            target = torch.where(curvature > 0, target, torch.inf)
            running = square > target
            step = torch.where(running, square / curvature, 0)
            solution, residual = solution + step * direction, residual - step * image
            previous, square = square, (residual**2).sum(axes, keepdim=True)
            direction = residual + torch.where(running, square / previous, 0) * direction
        return solution
