"""A block of cells as measures of single cells see it, and how a measure's values become weighted sums."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from sciffusion.evaluation.backend import NUMPY, Backend
from sciffusion.evaluation.ranks import scrambled
from sciffusion.evaluation.score import Pair, ensemble_moments
from sciffusion.evaluation.spool import Spool

__all__ = ["Cells", "Named"]

Named = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Cells:
    """``members`` (member, cell), ``truth`` and ``weights`` (cell,) of a block of ``shape``, whose axes ``reduced`` are
    summed over. ``index`` (cell,) has a number for every cell by its labels, whatever the blocks, for random ties.
    With ``regions`` (cell,) one number is kept for each of them; ``size`` members make an ensemble that is complete.
    """

    members: np.ndarray
    truth: np.ndarray
    weights: np.ndarray
    shape: tuple[int, ...]
    reduced: tuple[int, ...]
    index: np.ndarray
    backend: Backend = NUMPY
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    regions: np.ndarray | None = None
    size: int = 0

    @classmethod
    def of_pair(cls, pair: Pair, weights: np.ndarray, regions: np.ndarray | None, size: int) -> "Cells":
        """All cells of one case, those that are not valid without truth; members on disk stay there."""
        members: Any = pair.members if isinstance(pair.members, Spool) else pair.members.reshape(len(pair.members), -1)
        truth = np.where(pair.valid, pair.truth, np.nan).reshape(-1)
        index = np.arange(truth.size, dtype=np.uint64) + scrambled(np.array([pair.seed], dtype=np.uint64))
        where = None if regions is None else regions.reshape(-1)
        return cls(
            members, truth, weights.reshape(-1), truth.shape, (0,), index, pair.backend, regions=where, size=size
        )

    @property
    def complete(self) -> int:
        """How many members there are when none is missing."""
        return self.size or len(self.members)

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Error of the mean, unbiased variance and number of members, per cell (cell,), NaN where the truth is."""
        return ensemble_moments(self.members, self.truth, self.backend)

    @property
    def kept(self) -> tuple[int, ...]:
        """Sizes of the axes that are not summed over."""
        if self.regions is not None:
            return (int(self.regions.max()) + 1,)
        return tuple(n for axis, n in enumerate(self.shape) if axis not in self.reduced)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Weighted sums (*kept, *extra) of ``values`` (*extra, cell); NaN counts nothing."""
        use = np.isfinite(values)
        weighted = np.where(use, values, 0.0) * self.weights
        extra = values.shape[:-1]
        if self.regions is not None:
            rows = weighted.reshape(-1, weighted.shape[-1])
            sums = np.stack([np.bincount(self.regions, row, minlength=self.kept[0]) for row in rows], axis=1)
            return sums.reshape(*self.kept, *extra)
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
        if self.regions is not None:
            return self.regions
        place = np.arange(prod(self.kept)).reshape([1 if i in self.reduced else n for i, n in enumerate(self.shape)])
        return np.broadcast_to(place, self.shape).reshape(-1)
