"""Fair CRPS of members that come in blocks, each held once, where all of them together do not fit.

With A and B of `crps`, A is exact, and the mean over blocks k of B_k / (m_k (m_k - 1)) is an unbiased estimate of
B / (m (m - 1)) from the pairs within blocks alone. Both are U-statistics of h = |x - x'| / 2, and the second is the
conditional mean of the first given the sorted members, so by Hoeffding's decomposition the first has the extra variance

    2 delta (sum_k 1 / (m_k (m_k - 1)) / K^2 - 1 / (m (m - 1))),      delta = var h - 2 var E[h | x]      (1)

for K blocks, which the blocks estimate themselves.
"""

from dataclasses import dataclass

import numpy as np

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.backend import NUMPY, Array, Backend
from sciffusion.evaluation.crps import cell_blocks, pair_mean, sorted_sums
from sciffusion.evaluation.spool import Members, columns

__all__ = ["StreamedCRPS"]

ROWS = 6  # sums over members of |d| and of 1; over blocks of b = B / (m (m - 1)), of 1, of delta, of 1 / (m (m - 1))


@dataclass
class StreamedCRPS:
    """State: ``ROWS`` sums per cell, which add up over blocks of members in any order."""

    sums: np.ndarray | None = None  # (ROWS, *grid)

    def update(self, members: Members, truth: np.ndarray, backend: Backend = NUMPY) -> None:
        """Add a block (member, *grid); where it has one member only, that counts for A alone."""
        y, new = truth.reshape(-1), np.empty((ROWS, truth.size))
        for cells in cell_blocks(y.size, len(members), backend):
            rows = backend.rows_sorted(backend.array(columns(members, cells)) - backend.array(y[cells]))
            new[:, cells] = [backend.host(row) for row in _block(rows, backend)]
        self.sums = new.reshape(ROWS, *truth.shape) + (0 if self.sums is None else self.sums)

    def merge(self, other: "StreamedCRPS") -> "StreamedCRPS":
        """The state of both sets of members."""
        states = [state.sums for state in (self, other) if state.sums is not None]
        return StreamedCRPS(np.sum(states, axis=0) if states else None)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Score (*grid), and its standard error against the score of all pairs, the root of (1)."""
        if self.sums is None:
            raise SciffusionError("no member was given", "update the state with members first")
        error, m, pairs, blocks, delta, inverse = self.sums
        with np.errstate(invalid="ignore", divide="ignore"):
            extra = 2 * delta / blocks * (inverse / blocks**2 - 1 / (m * (m - 1)))
            return np.asarray(error / m - pairs / blocks), np.sqrt(np.maximum(extra, 0))


def _block(rows: Array, backend: Backend) -> tuple[Array, ...]:
    """The sums of a block (cell, member) of sorted deviations."""
    xp = backend.xp
    error, spread, m = sorted_sums(rows, backend)
    b = pair_mean(spread, m)
    seen = xp.isfinite(b)
    delta, inverse = _delta(backend.double(rows), backend), pair_mean(0 * m + 1.0, m)
    kept = (xp.where(xp.isfinite(value) & seen, value, 0.0) for value in (b, 0 * m + 1.0, delta, inverse))
    return error, m, *kept


def _delta(x: Array, backend: Backend) -> Array:
    """Delta of (1) for h = |x - x'| / 2, from sorted rows (cell, member); not finite where a member is missing.

    With g_i the mean of h over the partners of member i, the variance of g over members is, for r = (m - 2) / (m - 1),
    r^2 var E[h | x] + r delta / (m - 1) in the mean. Five members are needed; fewer give the bound var h.
    """
    m = x.shape[1]
    if m < 2:
        return 0 * x[:, 0]
    x = x - x.mean(axis=1)[:, None]
    rank, prefix = backend.numbers(m), backend.xp.cumsum(x, 1)
    g = ((2 * rank - m) * x - 2 * prefix + prefix[:, -1:]) / (2 * (m - 1))
    mean = g.mean(axis=1)
    whole = (x**2).sum(axis=1) / (2 * (m - 1)) - mean**2  # E h^2 is half the variance of x
    if m < 5:
        return whole
    r, partial = (m - 2) / (m - 1), ((g - mean[:, None]) ** 2).sum(axis=1) / (m - 1)
    return (whole - 2 * partial / r**2) / (1 - 2 / (r * (m - 1)))
