"""A block of cells as measures of single cells see it, and how a measure's values become weighted sums."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np

from sciffusion.evaluation.backend import NUMPY, Backend
from sciffusion.evaluation.score import ensemble_moments

__all__ = ["Cells", "Named"]

Named = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Cells:
    """``members`` (member, cell), ``truth`` and ``weights`` (cell,) of a block of ``shape``, whose axes ``reduced`` are
    summed over. ``index`` (cell,) has a number for every cell by its labels, whatever the blocks, for random ties.
    """

    members: np.ndarray
    truth: np.ndarray
    weights: np.ndarray
    shape: tuple[int, ...]
    reduced: tuple[int, ...]
    index: np.ndarray
    backend: Backend = NUMPY
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Error of the mean, unbiased variance and number of members, per cell (cell,), NaN where the truth is."""
        return ensemble_moments(self.members, self.truth, self.backend)

    @property
    def kept(self) -> tuple[int, ...]:
        """Sizes of the axes that are not summed over."""
        return tuple(n for axis, n in enumerate(self.shape) if axis not in self.reduced)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Weighted sums (*kept, *extra) of ``values`` (*extra, cell); NaN counts nothing."""
        use = np.isfinite(values)
        weighted = np.where(use, values, 0.0) * self.weights
        extra = values.shape[:-1]
        axes = tuple(len(extra) + axis for axis in self.reduced)
        sums = weighted.reshape(*extra, *self.shape).sum(axis=axes)
        return np.asarray(np.moveaxis(sums, range(len(extra)), range(-len(extra), 0)))

    def mean_of(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Sums of ``values`` (*extra, cell) and of the weights where they are there: the parts of a weighted mean."""
        return {"score": self.total(values), "weight": self.total(1.0 * np.isfinite(values))}

    def counts(self, category: np.ndarray, size: int, values: np.ndarray | None = None) -> np.ndarray:
        """Weighted counts (*kept, size) by category, of ``values`` where given; category -1 counts nothing."""
        weights = self.weights if values is None else np.where(np.isfinite(values), values, 0.0) * self.weights
        use = category >= 0
        column = self._position[use] * size + category[use]
        return np.bincount(column, weights[use], minlength=prod(self.kept) * size).reshape(*self.kept, size)

    def of(self, members: np.ndarray, truth: np.ndarray) -> "Cells":
        """The same cells with other values."""
        return replace(self, members=members, truth=truth)

    @cached_property
    def _position(self) -> np.ndarray:
        """Index among the kept positions, of every cell."""
        place = np.arange(prod(self.kept)).reshape([1 if i in self.reduced else n for i, n in enumerate(self.shape)])
        return np.broadcast_to(place, self.shape).reshape(-1)
