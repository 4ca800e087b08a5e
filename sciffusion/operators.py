"""Linear operators on gridded tensors, their adjoints, and the projection onto what they observe.

An operator ``C`` maps (..., *in_shape) to (..., *out_shape); leading axes (batch, channel) are carried along. Weights
``W`` (cell areas) define the norm in which a field moves least when it is made to reproduce coarse data ``y``:

    P(x, y) = x + W^-1 C^T (C W^-1 C^T)^-1 (y - C x)                                              (1)
"""

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "BlockMean",
    "LinearOperator",
    "Mask",
    "Mean",
    "Points",
    "Projection",
    "Separable",
    "Stations",
    "project",
    "stack",
]

Map = Callable[[Tensor], Tensor]
DENSE_LIMIT = 1024  # constraints up to which C W^-1 C^T is factorised rather than solved by conjugate gradients


class LinearOperator:
    """A linear map with its adjoint: ``matvec`` (..., *in_shape) -> (..., *out_shape), ``rmatvec`` the transpose."""

    def __init__(self, matvec: Map, rmatvec: Map, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
        self.matvec, self.rmatvec = matvec, rmatvec
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to (..., *in_shape)."""
        if tuple(x.shape[x.ndim - len(self.in_shape) :]) != self.in_shape:
            raise ValueError(f"the operator acts on (..., {self.in_shape}), not on {tuple(x.shape)}")
        return self.matvec(x)

    @property
    def adjoint(self) -> "LinearOperator":
        """The transpose, (..., *out_shape) -> (..., *in_shape)."""
        return LinearOperator(self.rmatvec, self.matvec, self.out_shape, self.in_shape)

    def __matmul__(self, other: "LinearOperator") -> "LinearOperator":
        """The composition ``self(other(x))``."""
        if other.out_shape != self.in_shape:
            raise ValueError(f"cannot compose: {other.out_shape} comes out, {self.in_shape} is expected")
        back = other.adjoint
        return LinearOperator(lambda x: self(other(x)), lambda y: back(self.rmatvec(y)), other.in_shape, self.out_shape)

    def __mul__(self, factor: float | Tensor) -> "LinearOperator":
        """Scale the output; a tensor factor broadcasts against (..., *out_shape)."""
        return LinearOperator(
            lambda x: factor * self.matvec(x), lambda y: self.rmatvec(factor * y), self.in_shape, self.out_shape
        )

    __rmul__ = __mul__


class Separable(LinearOperator):
    """One matrix (out, in) per grid axis. Matrices are kept in float64 and applied in the precision of the data."""

    def __init__(self, matrices: Sequence[Tensor]) -> None:
        self.matrices = tuple(torch.as_tensor(matrix).detach().cpu().to(torch.float64) for matrix in matrices)
        self._cast = _Cache(self.matrices)
        out_shape, in_shape = zip(*(matrix.shape for matrix in self.matrices), strict=True)
        super().__init__(self._apply, self._apply_transposed, in_shape, out_shape)

    def _apply(self, x: Tensor) -> Tensor:
        return apply_along_axes(self._cast.like(x), x)

    def _apply_transposed(self, y: Tensor) -> Tensor:
        return apply_along_axes([matrix.mT for matrix in self._cast.like(y)], y)


class BlockMean(Separable):
    """Means over blocks of ``factors`` cells per axis, as a Separable; a last block may be incomplete."""

    def __init__(self, in_shape: Sequence[int], factors: Sequence[int]) -> None:
        super().__init__([_block_mean(size, factor) for size, factor in zip(in_shape, factors, strict=True)])


class Points(LinearOperator):
    """Values at cells: ``indices`` (point, axis) of integers; the adjoint adds up repeated points."""

    def __init__(self, indices: Tensor, in_shape: Sequence[int]) -> None:
        self.indices = torch.as_tensor(indices)
        strides = torch.tensor([prod(in_shape[axis + 1 :]) for axis in range(len(in_shape))])
        outside = (self.indices < 0) | (self.indices >= torch.tensor(tuple(in_shape)))
        if self.indices.ndim != 2 or bool(outside.any()):
            raise ValueError(f"indices must be (point, {len(in_shape)}) within {tuple(in_shape)}")
        self._flat = _Cache([(self.indices * strides).sum(dim=1)])
        super().__init__(self._gather, self._scatter, in_shape, [len(self.indices)])

    def _gather(self, x: Tensor) -> Tensor:
        return x.flatten(-len(self.in_shape))[..., self._flat.on(x)[0]]

    def _scatter(self, y: Tensor) -> Tensor:
        flat = y.new_zeros(*y.shape[:-1], prod(self.in_shape))
        return flat.index_add(-1, self._flat.on(y)[0], y).reshape(*y.shape[:-1], *self.in_shape)


class Stations(LinearOperator):
    """Values anywhere on the grid, multilinear between cell centres.

    Parameters
    ----------
    positions : (point, axis) in units of cells, cell i having its centre at i; up to half a cell beyond the outermost
        centres, where the nearest value holds.
    periodic : whether each axis wraps around; positions are then any numbers. None: none does.
    """

    def __init__(self, positions: Tensor, in_shape: Sequence[int], periodic: Sequence[bool] | None = None) -> None:
        positions = torch.as_tensor(positions).detach().cpu().to(torch.float64)
        wraps = torch.tensor(list(periodic) if periodic is not None else [False] * len(in_shape))
        size = torch.tensor(tuple(in_shape))
        if positions.ndim != 2 or not bool((wraps | ((positions >= -0.5) & (positions <= size - 0.5))).all()):
            raise ValueError(f"positions must be (point, {len(in_shape)}) within the cells of {tuple(in_shape)}")
        positions = torch.where(wraps, positions.remainder(size), positions.clamp(size * 0, size - 1))
        corners, weights = _corners(positions, size)
        self._points, self._weights = Points(corners.reshape(-1, len(in_shape)), in_shape), _Cache([weights])
        super().__init__(self._interpolate, self._spread, in_shape, [len(positions)])

    def _interpolate(self, x: Tensor) -> Tensor:
        weights = self._weights.like(x)[0]
        values = self._points.matvec(x)
        return (values.reshape(*values.shape[:-1], *weights.shape) * weights).sum(-1)

    def _spread(self, y: Tensor) -> Tensor:
        return self._points.rmatvec((y[..., None] * self._weights.like(y)[0]).flatten(-2))


class Mean(LinearOperator):
    """Mean over the whole grid with ``weights`` (*grid), such as cell areas: an integral over the domain, (..., 1)."""

    def __init__(self, weights: Tensor) -> None:
        self._weights = _Cache([weights.double() / weights.double().sum()])
        super().__init__(self._mean, self._spread, weights.shape, [1])

    def _mean(self, x: Tensor) -> Tensor:
        return (x * self._weights.like(x)[0]).flatten(-len(self.in_shape)).sum(-1, keepdim=True)

    def _spread(self, y: Tensor) -> Tensor:
        return y.reshape(*y.shape, *[1] * (len(self.in_shape) - 1)) * self._weights.like(y)[0]


class Mask(LinearOperator):
    """Zero outside ``valid``, a Bool tensor of the grid's shape; its own adjoint."""

    def __init__(self, valid: Tensor) -> None:
        self._valid = _Cache([valid.bool()])
        super().__init__(self._mask, self._mask, valid.shape, valid.shape)

    def _mask(self, x: Tensor) -> Tensor:
        return torch.where(self._valid.on(x)[0], x, 0)


def stack(operators: Sequence[LinearOperator]) -> LinearOperator:
    """Several operators on one grid as one: their outputs flattened and put in a row, (..., sum of sizes)."""
    sizes = [prod(operator.out_shape) for operator in operators]

    def matvec(x: Tensor) -> Tensor:
        lead = x.shape[: x.ndim - len(operators[0].in_shape)]
        return torch.cat([operator(x).reshape(*lead, -1) for operator in operators], dim=-1)

    def rmatvec(y: Tensor) -> Tensor:
        parts = zip(operators, torch.split(y, sizes, dim=-1), strict=True)
        return sum((c.rmatvec(part.reshape(*y.shape[:-1], *c.out_shape)) for c, part in parts), y.new_zeros(()))

    return LinearOperator(matvec, rmatvec, operators[0].in_shape, [sum(sizes)])


def apply_along_axes(matrices: Sequence[Tensor], x: Tensor) -> Tensor:
    """Apply one matrix to each of the last ``len(matrices)`` axes of ``x``."""
    for axis, matrix in enumerate(matrices, start=-len(matrices)):
        x = torch.matmul(x.movedim(axis, -1), matrix.mT).movedim(-1, axis)
    return x


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
        gains = _Cache([_axis_gain(*pair) for pair in zip(operator.matrices, weights, strict=True)])
        return Projection(operator, lambda residual: apply_along_axes(gains.like(residual), residual))
    inverse_weight, used = _inverse_weight(weights, operator.in_shape), torch.ones(operator.out_shape).bool()
    if valid is not None:
        valid = valid.detach().cpu().bool()
        operator, used = _restricted(operator, valid)
        inverse_weight = torch.where(valid, inverse_weight, 0)
    constants, rows = _Cache([inverse_weight]), _Cache([used])

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
    scale = _Cache([torch.where(used, full / torch.where(used, left, 1), 0)])
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
    inverse = _Cache([torch.linalg.pinv(columns.movedim(0, -1), hermitian=True, rtol=1e-12)])

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


def _corners(positions: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The 2^rank cells around each position, (point, corner, axis), and their weights (point, corner)."""
    low = positions.floor()
    share = (positions - low)[:, None]
    upper = torch.tensor(list(product((0, 1), repeat=len(size))))
    weights = torch.where(upper == 1, share, 1 - share).prod(-1)
    return (low[:, None].long() + upper) % size, weights


class _Cache:
    """Constant tensors, copied once to every device and precision in which they are used."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._copies: dict[tuple[torch.device, torch.dtype | None], list[Tensor]] = {}
        self._originals = [tensor.detach().cpu() for tensor in tensors]

    def on(self, x: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
        """On the device of ``x``, in ``dtype`` (None: their own)."""
        key = (x.device, dtype)
        if key not in self._copies:
            self._copies[key] = [tensor.to(device=x.device, dtype=dtype) for tensor in self._originals]
        return self._copies[key]

    def like(self, x: Tensor) -> list[Tensor]:
        """On the device of ``x`` and in its precision."""
        return self.on(x, x.dtype)


def _block_mean(size: int, factor: int) -> Tensor:
    """Matrix (ceil(size / factor), size) of block means."""
    block = torch.arange(size) // factor
    member = (block == torch.arange(int(block[-1]) + 1)[:, None]).to(torch.float64)
    return member / member.sum(dim=1, keepdim=True)
