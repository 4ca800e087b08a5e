"""Linear operators on gridded tensors and their adjoints.

An operator ``C`` maps (..., *in_shape) to (..., *out_shape); leading axes (batch, channel) are carried along.
"""

from collections.abc import Callable, Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

from sciffusion.operators.constants import Constants

__all__ = [
    "BlockMean",
    "LinearOperator",
    "Map",
    "Mask",
    "Mean",
    "Points",
    "Separable",
    "Stations",
    "apply_along_axes",
    "stack",
]

Map = Callable[[Tensor], Tensor]


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
        self._cast = Constants(self.matrices)
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
        self._flat = Constants([(self.indices * strides).sum(dim=1)])
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
        self._points, self._weights = Points(corners.reshape(-1, len(in_shape)), in_shape), Constants([weights])
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
        self._weights = Constants([weights.double() / weights.double().sum()])
        super().__init__(self._mean, self._spread, weights.shape, [1])

    def _mean(self, x: Tensor) -> Tensor:
        return (x * self._weights.like(x)[0]).flatten(-len(self.in_shape)).sum(-1, keepdim=True)

    def _spread(self, y: Tensor) -> Tensor:
        return y.reshape(*y.shape, *[1] * (len(self.in_shape) - 1)) * self._weights.like(y)[0]


class Mask(LinearOperator):
    """Zero outside ``valid``, a Bool tensor of the grid's shape; its own adjoint."""

    def __init__(self, valid: Tensor) -> None:
        self._valid = Constants([valid.bool()])
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


def _corners(positions: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The 2^rank cells around each position, (point, corner, axis), and their weights (point, corner)."""
    low = positions.floor()
    share = (positions - low)[:, None]
    upper = torch.tensor(list(product((0, 1), repeat=len(size))))
    weights = torch.where(upper == 1, share, 1 - share).prod(-1)
    return (low[:, None].long() + upper) % size, weights


def _block_mean(size: int, factor: int) -> Tensor:
    """Matrix (ceil(size / factor), size) of block means."""
    block = torch.arange(size) // factor
    member = (block == torch.arange(int(block[-1]) + 1)[:, None]).to(torch.float64)
    return member / member.sum(dim=1, keepdim=True)
