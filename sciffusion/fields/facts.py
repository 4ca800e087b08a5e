"""What a few samples tell about a field: range, skewness, zeros, gaps, and whether opposite edges are neighbours."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

__all__ = ["FieldFacts", "facts_of", "wraps_like_its_interior"]


@dataclass(frozen=True)
class FieldFacts:
    """Facts of one field, from samples (sample, *window).

    ``zeros``: share of values that are zero or next to it; ``typical``: mean of the others, in the field's units;
    ``permanent`` and ``occasional``: share of cells that are NaN always and sometimes.
    """

    units: str
    standard_name: str
    mean: float
    sd: float
    minimum: float
    maximum: float
    skewness: float
    zeros: float
    typical: float
    permanent: float
    occasional: float

    @property
    def skewed_with_zeros(self) -> bool:
        """Never negative, with many zeros and a long tail: precipitation, concentrations."""
        return self.minimum >= -1e-6 * self.sd and self.zeros >= 0.02 and self.skewness > 1.5

    @property
    def constant(self) -> bool:
        """The same everywhere in the samples."""
        return not self.sd > 1e-12 * max(1.0, abs(self.mean))


def facts_of(array: xr.DataArray, samples: np.ndarray) -> FieldFacts:
    """Facts of ``array`` from ``samples`` (sample, *window), float64."""
    missing = np.isnan(samples)
    always = missing.all(axis=0)
    x = samples[~missing]
    if not x.size:
        x = np.zeros(1)
    mean, sd = float(x.mean()), float(x.std())
    small = x <= 1e-3 * max(mean, 0.0)
    return FieldFacts(
        units=str(array.attrs.get("units", "")),
        standard_name=str(array.attrs.get("standard_name", "")),
        mean=mean,
        sd=sd,
        minimum=float(x.min()),
        maximum=float(x.max()),
        skewness=float(np.mean(((x - mean) / sd) ** 3)) if sd > 0 else 0.0,
        zeros=float(small.mean()),
        typical=float(np.mean(x[~small])) if not small.all() else 1.0,
        permanent=float(always.mean()),
        occasional=float((missing.any(axis=0) & ~always).mean()),
    )


def wraps_like_its_interior(samples: np.ndarray, axis: int) -> bool:
    """Whether the last and the first slice along ``axis`` differ as neighbours inside do.

    Only a field that is smooth along the axis can tell: neighbours must be closer than slices half the domain apart,
    and the ends must be as close as neighbours are (for a domain without a wrap they are as far apart as any two).
    """
    x = np.moveaxis(samples, axis, 0)
    if x.shape[0] < 8:
        return False
    inside, across = _mean_square(x[1:] - x[:-1]), _mean_square(x[0] - x[-1])
    apart = _mean_square(x[: x.shape[0] // 2] - x[x.shape[0] // 2 : 2 * (x.shape[0] // 2)])
    return bool(inside < 0.5 * apart and 0.3 * inside < across < 2.0 * inside)


def _mean_square(difference: np.ndarray) -> float:
    finite = difference[np.isfinite(difference)]
    return float(np.mean(finite**2)) if finite.size else np.nan
