"""The rank histogram (Talagrand diagram): where the truth falls among the sorted members.

Ties are broken at random (Hamill 2001, doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2), else a variable with many
equal values, such as precipitation, shows a spike that is no fault. A cell with fewer members is spread over the bins
of the full ensemble, which keeps the histogram of a perfect ensemble flat.
"""

from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.backend import NUMPY, Array, Backend
from sciffusion.evaluation.crps import cell_blocks
from sciffusion.evaluation.spool import Members, columns

__all__ = ["MOST_BINS", "flatness", "rank_bins", "rank_counts", "scrambled", "uniform"]

MOST_BINS = 101  # that the ranks of larger ensembles share


def rank_bins(
    members: Members | Array,
    truth: Array,
    bins: int,
    seed: int = 0,
    index: np.ndarray | None = None,
    backend: Backend = NUMPY,
) -> Array:
    """Bin of the truth (cell,) among the members (member, ...), 0 to bins - 1; -1 where truth or members are missing.

    With ``b`` members below and ``e`` equal among ``m``, the bin is that of (b + U{0..e} + U[0, 1)) / (m + 1), which is
    uniform in [0, 1) for members exchangeable with the truth. Cells draw by their ``index`` alone: the same in any
    block and order, and on any device.
    """
    home, place = backend.home(truth), np.arange(len(truth)) if index is None else index
    below, equal, count = rank_counts(members, truth, backend)
    rank = _bins(below, equal, count, bins, len(members), _Draws(seed, place, home))
    rank[home.xp.isnan(truth) | (count == 0)] = -1
    return rank


def rank_counts(members: Members | Array, truth: Array, backend: Backend = NUMPY) -> tuple[Array, Array, Array]:
    """How many members are below the truth (cell,), equal to it, and present, in every cell."""
    found = backend.blank(truth, 3, len(truth), kind=int)
    for cells in cell_blocks(len(truth), len(members), backend):
        x, y = backend.array(columns(members, cells)), backend.array(truth[cells])
        found[:, cells] = backend.back(backend.xp.stack(_counts(x, y, backend)), truth)
    below, equal, count = found
    return below, equal, count


def _counts(x: Array, y: Array, backend: Backend) -> tuple[Array, Array, Array]:
    """How many members (member, cell) are below, equal and present in every cell."""
    below, most = backend.count(x < y), backend.count(x <= y)
    # a NaN anywhere shows in the sum, at a third of the cost
    complete = not backend.waits and bool(backend.xp.isfinite(x.sum()))
    count = backend.count(~backend.xp.isnan(x)) if not complete else backend.xp.full_like(below, len(x))
    return below, most - below, count


@dataclass(frozen=True)
class _Draws:
    """Random numbers of cells, made on the host so that every device has the same."""

    seed: int
    place: np.ndarray
    backend: Backend

    def of(self, stream: int, where: Array | None = None) -> Array:
        """Numbers in [0, 1) of all cells, or of those ``where`` true."""
        place = self.place if where is None else self.place[self.backend.host(where)]
        return self.backend.array(uniform(2 * self.seed + stream, place))


def _bins(below: Array, equal: Array, count: Array, bins: int, members: int, draws: _Draws) -> Array:
    backend = draws.backend
    tied = equal > 0
    if bool(tied.any()):
        below[tied] += backend.whole(draws.of(0, tied) * (equal[tied] + 1))
    if bins == members + 1 and bool((count == members).all()):
        return backend.whole(below)
    position = (below + draws.of(1)) / (count + 1)
    return backend.whole(position * bins).clip(max=bins - 1)


def flatness(histogram: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    """p-values of a rank histogram (bin,) under the hypothesis that it is flat, by its resamples (resample, bin).

    ``slope`` and ``curvature`` are the contrasts of Jolliffe & Primo (2008, doi:10.1175/2007MWR2219.1), linear and
    quadratic in the rank, which see bias and dispersion; ``flat`` takes the sum of all squared departures. Counts of
    neighbouring cells and times depend on each other, so their sizes under the hypothesis are those of the resamples
    around their mean, not of a chi-squared distribution.
    """
    x = np.linspace(-1, 1, len(histogram))
    contrasts = {"slope": x, "curvature": x**2 - (x**2).mean()}
    centred = drawn - drawn.mean(axis=0)
    found = {name: _exceeded(abs(histogram @ c), np.abs(centred @ c)) for name, c in contrasts.items()}
    return found | {"flat": _exceeded(((histogram - 1) ** 2).sum(), (centred**2).sum(axis=1))}


def _exceeded(value: float, null: np.ndarray) -> float:
    return float((1 + (null >= value).sum()) / (1 + len(null)))


def uniform(seed: int, index: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) that depend on ``seed`` and ``index`` alone."""
    start = np.uint64((seed * 0xD1342543DE82EF95) % 2**64)
    with np.errstate(over="ignore"):
        word = scrambled(index.astype(np.uint64) + start)
    return np.asarray((word >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def scrambled(index: np.ndarray) -> np.ndarray:
    """Well-mixed 64-bit words of 64-bit numbers: SplitMix64 (Steele et al. 2014, doi:10.1145/2714064.2660195)."""
    with np.errstate(over="ignore"):
        word = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(word ^ (word >> np.uint64(31)))
