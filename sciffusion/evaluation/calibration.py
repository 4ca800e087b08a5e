"""Does a cell with twice the spread err twice as much? Spread against skill in bins of the spread.

Bins are 32 to an octave of the spread, the same for every data set, so that tallies merge; the result gathers
them into a few of equal area (Leutbecher & Palmer 2008, doi:10.1016/j.jcp.2007.02.014, section 4).
"""

from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums, Tally

__all__ = ["BinnedSpread"]

OCTAVES = 60  # spreads from 2^-60 to 2^60 units; smaller and larger ones fall in the outermost bins
PER_OCTAVE = 32


@dataclass(frozen=True)
class BinnedSpread:
    """Sums of area, corrected variance and squared error of the mean, per bin of the spread."""

    weights: np.ndarray

    def measure(self, pair: Pair) -> Sums:
        """Sums (bin,) of one case, kept in total."""
        error, variance, count = pair.moments
        use = pair.valid & np.isfinite(variance)
        corrected = variance[use] * (count[use] + 1) / count[use]
        index = _bin(corrected)
        size = 2 * OCTAVES * PER_OCTAVE
        values = {"area": np.ones_like(corrected), "variance": corrected, "squared_error": error[use] ** 2}
        total = {f"spread_{n}": np.bincount(index, v * self.weights[use], minlength=size) for n, v in values.items()}
        return Sums(total=total)

    @staticmethod
    def curve(tally: Tally, bins: int = 12) -> tuple[np.ndarray, np.ndarray]:
        """Spread and RMSE of the mean (bin,) in ``bins`` classes of nearly equal area, rising; NaN for empty ones."""
        area = tally.total["spread_area"]
        if not area.sum() > 0:
            return np.full(bins, np.nan), np.full(bins, np.nan)
        middle = (np.cumsum(area) - area / 2) / area.sum()
        group = np.minimum((middle * bins).astype(int), bins - 1)
        sums = {
            n: np.bincount(group, tally.total[f"spread_{n}"], minlength=bins)
            for n in ("area", "variance", "squared_error")
        }
        with np.errstate(invalid="ignore"):
            return np.sqrt(sums["variance"] / sums["area"]), np.sqrt(sums["squared_error"] / sums["area"])


def _bin(variance: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        octave = 0.5 * np.log2(variance)
    last = 2 * OCTAVES * PER_OCTAVE - 1
    return np.asarray(np.clip(np.floor(octave * PER_OCTAVE) + OCTAVES * PER_OCTAVE, 0, last).astype(int))
