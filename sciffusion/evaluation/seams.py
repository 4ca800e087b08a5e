"""Seams: are steps at regular borders, such as those of tiles, larger than elsewhere?

The step at a border is the difference across it less the mean of those one cell before and behind, averaged over
segments of four cells along the border: gradients cancel, detail averages out, a seam stays. For every case and border:
squared steps of the members less those of the truth. Each border is set against four near ones, and every comb of
equidistant borders against the others; Student's t over the cases, corrected for the number of combs. Members
exchangeable with the truth have no excess on average at any border, so coasts, mountains and coarse cells are no seams.
Nor is too much noise, or too much of everything, where the truth is smooth in some rows: a seam stands out both in the
units of the field and in those of the steps that are there anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

from sciffusion.evaluation.bootstrap import persistence
from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["Seam", "Seams", "comb"]

LEAST_PERIOD = 4
LEAST_CASES = 3
NEAR = (-3, -2, 2, 3)
SEGMENT = 4  # cells along a border
SURE = 0.01  # among combs that are less likely by chance, the one that stands out most is reported


class Seam(NamedTuple):
    """The comb that stands out most: ``period`` and ``offset`` in cells, ``ratio`` of its squared differences to what
    they should be, and ``p``, the chance of such a comb where there is no seam.
    """

    period: int
    offset: int
    ratio: float
    p: float


@dataclass(frozen=True)
class Seams:
    """By case, sums of squared steps at every border of each axis, (border,); borders at open ends are left out."""

    periodic: tuple[bool, ...]

    def measure(self, pair: Pair) -> Sums:
        """Sums of one case."""
        valid = pair.complete
        sums = {}
        for axis, wraps in enumerate(self.periodic):
            if valid.shape[axis] < 4 * LEAST_PERIOD:
                continue
            sums[f"seam_truth_{axis}"] = _squared_steps(pair.truth, valid, axis, wraps)
            parts = [_squared_steps(member, valid, axis, wraps) for member in pair.members]
            sums[f"seam_members_{axis}"] = np.mean(parts, axis=0)
        return Sums(by_case=sums)


def _squared_steps(field: np.ndarray, valid: np.ndarray, axis: int, wraps: bool) -> np.ndarray:
    """Sum over segments of the squared mean step, (border,); segments with a masked cell count nothing."""
    rows = np.moveaxis(np.where(valid, field, np.nan).astype(np.float64), axis, 0)
    rows = rows.reshape(len(rows), -1)
    if wraps:
        rows = np.concatenate([rows[-1:], rows, rows[:2]])
    difference = np.diff(rows, axis=0)
    step = difference[1:-1] - (difference[:-2] + difference[2:]) / 2
    count = step.shape[1] // SEGMENT * SEGMENT
    mean = step[:, :count].reshape(len(step), -1, SEGMENT).mean(axis=2)
    return np.asarray(np.nansum(mean**2, axis=1))


def comb(members: np.ndarray, truth: np.ndarray, wraps: bool) -> Seam | None:
    """The most conspicuous comb of borders, from sums of squared differences (case, border).

    None with fewer than three cases, or where a border has no step at all.
    """
    cases, n = members.shape
    total, real = members.sum(axis=0), truth.sum(axis=0)
    if cases < LEAST_CASES or not (np.minimum(total, real) > 0).all():
        return None
    first = 1 if wraps else 2  # the cell behind the first border
    usual, excess = (total + real) / (2 * cases), members - truth
    contrasts = [_contrast(excess / usual, wraps), _contrast(excess / usual.mean(), wraps)]
    log_ratio = _contrast(np.log(total / real)[None], wraps)
    length, cells = persistence(contrasts[0]), n if wraps else n + 3
    periods = range(LEAST_PERIOD, cells // 2 + 1)
    found = [seam for period in periods for seam in _combs(contrasts, log_ratio, period, first, length)]
    tests = max(len(found), 1)
    found = [seam._replace(p=min(1.0, seam.p * tests)) for seam in found]
    sure = [seam for seam in found if seam.p < SURE]
    if sure:
        return max(sure, key=lambda seam: np.log(seam.ratio) * np.sqrt(n // seam.period))
    return min(found, key=lambda seam: seam.p, default=None)


def _contrast(excess: np.ndarray, wraps: bool) -> np.ndarray:
    """Each border (case, border) less the mean of its four nearest."""
    n = excess.shape[1]
    index = np.arange(n)[:, None] + np.array(NEAR)
    inside = np.ones(index.shape, bool) if wraps else (index >= 0) & (index < n)
    near = np.where(inside, excess[:, index % n], 0).sum(axis=2) / inside.sum(axis=1)
    return np.asarray(excess - near)


def _combs(
    contrasts: Sequence[np.ndarray], log_ratio: np.ndarray, period: int, first: int, length: float
) -> list[Seam]:
    """The comb of every offset against all other borders, by the one of ``contrasts`` in which it stands out least."""
    ratio = np.exp(_of_comb(log_ratio, period, first)[0])
    p = np.max([_chance(_of_comb(contrast, period, first), length) for contrast in contrasts], axis=0)
    return [Seam(period, offset, float(ratio[offset]), float(p[offset])) for offset in range(period)]


def _chance(excess: np.ndarray, length: float) -> np.ndarray:
    """Student's t over cases, (case, offset), ``length`` of which hang together: chance of such a mean above 0."""
    cases = len(excess)
    error = excess.std(axis=0, ddof=1) * np.sqrt(length / cases)
    t = np.divide(excess.mean(axis=0), error, out=np.zeros(excess.shape[1]), where=error > 0)
    return np.asarray(special.stdtr(max(cases / length - 1, 1), -t))


def _of_comb(values: np.ndarray, period: int, first: int) -> np.ndarray:
    """Mean of ``values`` (case, border) on the comb of every offset, less the mean elsewhere, (case, offset)."""
    cases, n = values.shape
    size = np.bincount((np.arange(n) + first) % period, minlength=period)
    total = np.pad(values, ((0, 0), (first, -(n + first) % period))).reshape(cases, -1, period).sum(axis=1)
    return np.asarray(total / np.maximum(size, 1) - (values.sum(axis=1, keepdims=True) - total) / (n - size))
