"""Arrays of numpy or of torch behind one small set of operations, so that a kernel is written once.

Both give the same numbers: deviations are formed in the precision of the data, sums are float64. Kernels use what the
two libraries spell alike (``abs``, ``where``, ``isnan``, ``sum(axis=)``) and this table where they differ. Data may be
numpy arrays, or tensors that lie on the device already; the answer is of the same kind.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np

from sciffusion.errors import SciffusionError

__all__ = ["NUMPY", "Array", "Backend", "BackendName", "Numpy", "Torch", "backend_of"]

Array = Any  # numpy.ndarray or torch.Tensor
BackendName = Literal["numpy", "torch"]


class Backend(Protocol):
    """``xp`` is the library, ``float64`` its type, ``values`` how many values of members are worked on at a time.

    ``waits``: to look at a value is to wait for the device, so kernels do not look where another way costs less.
    """

    @property
    def xp(self) -> Any:
        """Numpy or torch."""

    @property
    def float64(self) -> Any:
        """The library's float64."""

    @property
    def values(self) -> int:
        """Values of all members together in a block of cells."""

    @property
    def waits(self) -> bool:
        """Whether work is queued on a device."""

    def array(self, values: Array) -> Array:
        """``values`` on the device, without a copy where that is possible."""

    def double(self, array: Array) -> Array:
        """``array`` in float64."""

    def numbers(self, count: int) -> Array:
        """1.0, 2.0, ... up to ``count``, in float64."""

    def whole(self, array: Array) -> Array:
        """``array`` cut to int32."""

    def host(self, array: Array) -> np.ndarray:
        """``array`` as numpy."""

    def home(self, like: Array) -> "Backend":
        """The backend that works where ``like`` lies: this one for tensors, else numpy."""

    def blank(self, like: Array, *shape: int, kind: type = float) -> Array:
        """Room for an answer of float64 or int32: a tensor on the device if ``like`` is a tensor, else numpy."""

    def back(self, array: Array, like: Array) -> Array:
        """``array`` as it goes into that room."""

    def binned(self, rows: Array, index: np.ndarray, size: int) -> Array:
        """Sums (row, size) of ``rows`` (row, column) over the columns of each ``index`` (column,)."""

    def rows_sorted(self, columns: Array) -> Array:
        """``columns`` (member, cell) to (cell, member), every row sorted upwards, NaN last."""

    def count(self, mask: Array) -> Array:
        """How many members of ``mask`` (member, cell) are true, in every cell."""


@dataclass(frozen=True)
class Numpy:
    """Blocks that fit the second-level cache."""

    xp: Any = np
    float64: Any = np.float64
    values: int = 1 << 18
    waits: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes: modules cannot be sent."""
        return backend_of, ("numpy",)

    def array(self, values: Array) -> Array:
        """The same."""
        return np.asarray(values)

    def double(self, array: Array) -> Array:
        """``array`` in float64."""
        return np.asarray(array, dtype=np.float64)

    def whole(self, array: Array) -> Array:
        """``array`` cut to int32."""
        return np.asarray(array).astype(np.int32)

    def numbers(self, count: int) -> Array:
        """1.0, 2.0, ..."""
        return np.arange(1.0, count + 1)

    def host(self, array: Array) -> np.ndarray:
        """The same."""
        return np.asarray(array)

    def home(self, like: Array) -> Backend:
        """Always numpy."""
        return self

    def blank(self, like: Array, *shape: int, kind: type = float) -> Array:
        """An empty array."""
        return np.empty(shape, np.int32 if kind is int else kind)

    def back(self, array: Array, like: Array) -> Array:
        """The same."""
        return array

    def binned(self, rows: Array, index: np.ndarray, size: int) -> Array:
        """Row by row."""
        return np.stack([np.bincount(index, row, minlength=size) for row in rows])

    def rows_sorted(self, columns: Array) -> Array:
        """Transposed and sorted in place."""
        rows = np.ascontiguousarray(columns.T)
        rows.sort(axis=1)
        return rows

    def count(self, mask: Array) -> Array:
        """Bytes are added up, 255 members at a time, which is many times faster than a sum of integers."""
        parts = (mask[i : i + 255].view(np.uint8) for i in range(0, len(mask), 255))
        return sum(np.add.reduce(part, axis=0, dtype=np.uint8).astype(np.int32) for part in parts)


@dataclass(frozen=True)
class Torch:
    """The GPU where there is one; on the CPU tensors share their memory with numpy."""

    xp: Any
    float64: Any
    device: Any
    values: int

    @property
    def waits(self) -> bool:
        """On a GPU."""
        return bool(self.device.type != "cpu")

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes: modules cannot be sent."""
        return backend_of, ("torch", str(self.device))

    def array(self, values: Array) -> Array:
        """A tensor on the device."""
        if isinstance(values, self.xp.Tensor):
            return values.to(self.device)
        plain = values.flags.writeable and values.dtype.isnative and all(step >= 0 for step in values.strides)
        values = values if plain else np.array(values, dtype=values.dtype.newbyteorder("="))
        return self.xp.from_numpy(values).to(self.device)

    def double(self, array: Array) -> Array:
        """``array`` in float64."""
        return array.to(self.float64)

    def whole(self, array: Array) -> Array:
        """``array`` cut to int32."""
        return array.to(self.xp.int32)

    def numbers(self, count: int) -> Array:
        """1.0, 2.0, ..., made on the device."""
        return self.xp.arange(1, count + 1, dtype=self.float64, device=self.device)

    def host(self, array: Array) -> np.ndarray:
        """``array`` as numpy."""
        return np.asarray(array.cpu().numpy())

    def home(self, like: Array) -> Backend:
        """Itself for tensors, numpy for arrays."""
        return self if isinstance(like, self.xp.Tensor) else NUMPY

    def blank(self, like: Array, *shape: int, kind: type = float) -> Array:
        """An empty tensor or array."""
        if isinstance(like, self.xp.Tensor):
            return self.xp.empty(shape, dtype=self.xp.int32 if kind is int else self.float64, device=self.device)
        return NUMPY.blank(like, *shape, kind=kind)

    def back(self, array: Array, like: Array) -> Array:
        """A tensor or array."""
        return array if isinstance(like, self.xp.Tensor) else self.host(array)

    def binned(self, rows: Array, index: np.ndarray, size: int) -> Array:
        """By atomic additions on the GPU, whose order is not fixed: sums may differ in their last digit."""
        if self.device.type == "cpu":
            return self.xp.from_numpy(NUMPY.binned(rows.numpy(), index, size))
        place = self.array(index).expand(len(rows), -1)
        return rows.new_zeros(len(rows), size).scatter_add_(1, place, rows)

    def rows_sorted(self, columns: Array) -> Array:
        """Sorted by the device; on the CPU by numpy, whose vectorised sort is many times faster."""
        rows = columns.T.contiguous()
        if self.device.type == "cpu":
            rows.numpy().sort(axis=1)
            return rows
        return self.xp.sort(rows, dim=1).values

    def count(self, mask: Array) -> Array:
        """A sum."""
        return mask.sum(axis=0, dtype=self.xp.int32)


NUMPY = Numpy()


@cache
def backend_of(name: BackendName, device: str | None = None) -> Backend:
    """The backend called ``name``; ``device`` is torch's, by default the GPU where there is one."""
    if name == "numpy":
        if device not in (None, "cpu"):
            raise SciffusionError(f"numpy does not compute on {device!r}", "add backend torch, or leave the device out")
        return NUMPY
    if name != "torch":
        raise SciffusionError(f"no backend is called {name!r}", "use numpy or torch")
    import torch

    try:
        place = torch.empty(0, device=device or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as error:
        what = str(error).splitlines()[0]
        raise SciffusionError(f"torch cannot use the device {device!r}: {what}", "see `sciffusion doctor`") from None
    return Torch(torch, torch.float64, place, 1 << 18 if place.type == "cpu" else 1 << 21)
