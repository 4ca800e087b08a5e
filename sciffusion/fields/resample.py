"""Linear maps between product grids, one small matrix per axis.

A field x on cells (i, j, ...) is mapped to sum_ij A_ai B_bj ... x_ij...: coarse-graining, interpolation and their
adjoints all have this form, cost a few multiplications per cell, and can be cut to any window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

__all__ = ["SeparableMap"]


@dataclass(frozen=True, eq=False)
class SeparableMap:
    """The map of ``matrices``: per grid axis a sparse (out, in), float64.

    ``order`` of the axes, by default by growth; a window keeps that of the whole, and so every bit of its values.
    """

    matrices: tuple[csr_array, ...]
    order: tuple[int, ...] | None = None

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Grid shape of what goes in."""
        return tuple(int(matrix.shape[1]) for matrix in self.matrices)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Grid shape of what comes out."""
        return tuple(int(matrix.shape[0]) for matrix in self.matrices)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Map ``x`` (..., *in_shape) to (..., *out_shape), in its own float type. NaN reaches what it touches."""
        if x.shape[x.ndim - len(self.matrices) :] != self.in_shape:
            raise ValueError(f"a field of grid shape {self.in_shape} is expected, not {x.shape}")
        x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)
        for axis in self._order:
            x = _along(self.matrices[axis], x, axis - len(self.matrices))
        return x

    def masked(self, x: np.ndarray, valid: np.ndarray | None = None, floor: float = 0.0) -> np.ndarray:
        """Mean over what exists, C(m x) / C(m); NaN where no more than ``floor`` of an output cell exists.

        ``valid`` Bool, broadcastable to ``x``; by default where ``x`` is not NaN. Meant for maps of weights >= 0.
        """
        x = x if x.dtype.kind == "f" else x.astype(np.float64)
        mask = ~np.isnan(x) if valid is None else np.broadcast_to(valid & ~np.isnan(x), x.shape)
        if mask.all():
            return self(x)
        share = self(mask.astype(x.dtype))
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self(np.where(mask, x, 0)) / share
        return np.where(share > floor + 1e-6, mean, np.nan).astype(x.dtype, copy=False)

    @cached_property
    def adjoint(self) -> "SeparableMap":
        """The transposed map: <C x, y> = <x, C^T y> with plain sums."""
        return SeparableMap(tuple(matrix.T.tocsr() for matrix in self.matrices))

    def after(self, first: "SeparableMap") -> "SeparableMap":
        """The composition: apply ``first``, then this map."""
        pairs = zip(self.matrices, first.matrices, strict=True)
        return SeparableMap(tuple((second @ matrix).tocsr() for second, matrix in pairs))

    def window(self, out_slices: Sequence[slice]) -> tuple["SeparableMap", tuple[slice, ...]]:
        """The map onto a window of the output, and the slices of the input that it needs.

        An input that wraps around the end of a periodic axis is needed whole.
        """
        cut = [matrix[part] for matrix, part in zip(self.matrices, out_slices, strict=True)]
        needed = [_span(matrix) for matrix in cut]
        narrow = (matrix[:, part].tocsr() for matrix, part in zip(cut, needed, strict=True))
        return SeparableMap(tuple(narrow), tuple(self._order)), tuple(needed)

    def dense(self) -> tuple[np.ndarray, ...]:
        """The matrices as float64 arrays (out, in)."""
        return tuple(matrix.toarray() for matrix in self.matrices)

    def tensors(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        """The matrices as dense tensors (out, in), for ``operators.Separable``."""
        return tuple(torch.from_numpy(matrix).to(dtype) for matrix in self.dense())

    @cached_property
    def _order(self) -> list[int]:
        """Axes by growth, so that the array in between stays small."""
        if self.order is not None:
            return list(self.order)
        growth = [out / max(1, size) for out, size in zip(self.out_shape, self.in_shape, strict=True)]
        return sorted(range(len(growth)), key=growth.__getitem__)


def _along(matrix: csr_array, x: np.ndarray, axis: int) -> np.ndarray:
    """Multiply along one axis (counted from the end)."""
    front = np.moveaxis(x, axis, 0)
    flat = np.ascontiguousarray(front).reshape(front.shape[0], -1)
    mapped = matrix.astype(x.dtype) @ flat
    return np.ascontiguousarray(np.moveaxis(mapped.reshape(-1, *front.shape[1:]), 0, axis))


def _span(matrix: csr_array) -> slice:
    columns = matrix.indices
    return slice(int(columns.min()), int(columns.max()) + 1) if len(columns) else slice(0, 0)
