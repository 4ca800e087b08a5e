"""What a score is: a measure of one case, and a result from the sums of many."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from sciffusion.evaluation.backend import NUMPY, Array, Backend
from sciffusion.evaluation.crps import cell_blocks
from sciffusion.evaluation.spool import Members, Spool, columns
from sciffusion.evaluation.tally import Sums

__all__ = ["Pair", "Score", "ensemble_moments"]


@dataclass(frozen=True)
class Pair:
    """One case of one variable: ``members`` (member, *grid), ``truth`` (*grid), both in the same units.

    ``valid`` (*grid) marks the cells to score: the truth and at least one member of every compared system are there.
    ``seed`` makes random ties reproducible, whatever the order of the cases. ``members`` may be a `Spool`: iterate over
    them, or take blocks of cells with ``columns``.
    """

    members: Members
    truth: np.ndarray
    valid: np.ndarray
    seed: int = 0
    backend: Backend = NUMPY

    @classmethod
    def of(
        cls,
        members: Members,
        truth: np.ndarray,
        valid: np.ndarray | None = None,
        seed: int = 0,
        backend: Backend = NUMPY,
    ) -> "Pair":
        """Drop members that are missing altogether, and mark the cells where truth and a member are both present."""
        present, seen = np.zeros(len(members), dtype=bool), np.zeros(truth.shape, dtype=bool)
        for i, member in enumerate(members):
            here = np.isfinite(member)
            present[i] = here.any()
            seen |= here
        if not present.all():
            members = members.only(present) if isinstance(members, Spool) else members[present]
        seen &= np.isfinite(truth)
        return cls(members, truth, seen if valid is None else seen & valid, seed, backend)

    @cached_property
    def complete(self) -> np.ndarray:
        """Valid cells that no member lacks (*grid): those that transforms of whole fields can use."""
        everywhere = self.valid.copy()
        for member in self.members:
            everywhere &= np.isfinite(member)
        return everywhere

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Error of the mean, unbiased variance (NaN under two members) and number of members, per cell (*grid)."""
        return ensemble_moments(self.members, self.truth, self.backend)


class Score(Protocol):
    """A score has no state of its own: measuring gives sums, a tally adds them up, the result reads them."""

    def measure(self, pair: Pair) -> Sums:
        """Sums of one case."""


def ensemble_moments(members: Members | Array, truth: Array, backend: Backend = NUMPY) -> tuple[Array, Array, Array]:
    """Error of the mean, unbiased variance (NaN under two members) and number of members, per cell, float64 (*grid).

    The truth is subtracted first and the mean before squaring, so that neither a large mean nor a large error costs
    digits; cells are taken in blocks.
    """
    y = truth.reshape(-1)
    moments = backend.blank(truth, 3, len(y))
    for cells in cell_blocks(len(y), len(members), backend):
        x = backend.array(columns(members, cells))
        moments[:, cells] = backend.back(backend.xp.stack(_moments(x, backend.array(y[cells]), backend)), truth)
    error, variance, count = moments.reshape(3, *truth.shape)
    return error, variance, count


def _moments(x: Array, y: Array, backend: Backend) -> tuple[Array, Array, Array]:
    xp = backend.xp
    d = backend.double(x) - backend.double(y)
    here = xp.isfinite(d)
    complete = bool(here.all())
    count = here.sum(axis=0, dtype=backend.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (d if complete else xp.where(here, d, 0.0)).sum(axis=0) / count
        d -= mean
        variance = ((d if complete else xp.where(here, d, 0.0)) ** 2).sum(axis=0) / (count - 1)
        return mean, xp.where(count > 1, variance, float("nan")), count
