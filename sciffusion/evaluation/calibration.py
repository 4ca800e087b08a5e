"""Does a cell with twice the spread err twice as much? Spread against skill in bins of the spread.

Bins are 16 to an octave of the spread, the same for every data set, so that tallies merge; the result gathers
them into a few of equal area (Leutbecher & Palmer 2008, doi:10.1016/j.jcp.2007.02.014, section 4).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.cells import Cells
from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["SPREAD_SUMS", "BinnedSpread", "curves", "spread_sums"]

PER_OCTAVE = 16
OCTAVES = (-10, 6)  # bins from 2^-10 to 2^6 of the scale; smaller and larger spreads fall in the outermost bins
BINS = (OCTAVES[1] - OCTAVES[0]) * PER_OCTAVE
NAMES = ("area", "variance", "squared_error")
SPREAD_SUMS = tuple(f"spread_bin_{name}" for name in NAMES)


@dataclass(frozen=True)
class BinnedSpread:
    """Sums of area, corrected variance and squared error of the mean, per bin of the spread over ``scale``."""

    weights: np.ndarray
    scale: float = 1.0

    def measure(self, pair: Pair) -> Sums:
        """Sums (bin,) of one case."""
        error, variance, count = (np.where(pair.valid, moment, np.nan).reshape(-1) for moment in pair.moments)
        weights = self.weights.reshape(-1)
        index, values = _binned(error, variance, count, self.scale)
        use = index >= 0
        sums = {
            f"spread_bin_{n}": np.bincount(index[use], (v * weights)[use], minlength=BINS) for n, v in values.items()
        }
        return Sums(by_case=sums)


def spread_sums(cells: Cells, scale: float) -> dict[str, np.ndarray]:
    """The same sums (*kept, bin) of a block of cells."""
    index, values = _binned(*cells.moments, scale)
    return {f"spread_bin_{name}": cells.counts(index, BINS, value) for name, value in values.items()}


def curves(sums: Mapping[str, np.ndarray], bins: int) -> np.ndarray:
    """Spread and RMSE of the mean (..., class, 2) in ``bins`` classes of nearly equal area, rising; NaN for empty ones.

    ``sums`` are (..., bin). The classes are those of the sums at hand.
    """
    area = sums["spread_bin_area"]
    whole = area.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = np.nan_to_num((np.cumsum(area, axis=-1) - area / 2) / whole)
        group = np.minimum((middle * bins).astype(int), bins - 1)
        belongs = group[..., None] == np.arange(bins)
        gathered = {name: (sums[f"spread_bin_{name}"][..., None] * belongs).sum(axis=-2) for name in NAMES}
        means = [gathered[name] / gathered["area"] for name in ("variance", "squared_error")]
        return np.asarray(np.sqrt(np.stack(means, axis=-1)))


def _binned(
    error: np.ndarray, variance: np.ndarray, count: np.ndarray, scale: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Bin of every cell, -1 where there is no spread or no error, and what is summed there."""
    with np.errstate(invalid="ignore", divide="ignore"):
        corrected = variance * (count + 1) / count
        octave = 0.5 * np.log2(corrected) - np.log2(scale) - OCTAVES[0]
    use = np.isfinite(corrected) & np.isfinite(error)
    index = np.clip(np.floor(np.where(use, octave, 0) * PER_OCTAVE), 0, BINS - 1).astype(int)
    values = dict(zip(NAMES, (np.ones_like(error), corrected, error**2), strict=True))
    return np.where(use, index, -1), values
