"""The chance of a departure, from the standard error or the interval of a number."""

import numpy as np
import xarray as xr
from scipy.special import stdtr, stdtrit

from sciffusion.evaluation.bootstrap import LEAST_BLOCKS

__all__ = ["corrected_quantile", "degrees", "scale_degrees", "two_sided", "two_sided_of_interval"]

QUANTILE = 1.959964  # of a 95 % interval


def corrected_quantile(tests: int, degrees: float = np.inf) -> float:
    """How many standard errors a departure must have to be more than chance, if ``tests`` numbers are looked at.

    Two-sided 5 % divided by their number (Bonferroni), of Student's t with ``degrees`` of freedom.
    """
    return float(stdtrit(min(degrees, 1e6), 1 - 0.025 / max(tests, 1)))


def two_sided(departure: np.ndarray, error: np.ndarray, freedom: float) -> np.ndarray:
    """Chance of a departure of any sign, of Student's t with ``freedom`` degrees; NaN where the error is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(departure) / error
    return np.asarray(2 * stdtr(min(max(freedom, 1.0), 1e6), -t))


def two_sided_of_interval(departure: float, bounds: np.ndarray, freedom: float) -> float:
    """Chance of a departure whose 95 % interval has these ``bounds`` (2,), on a scale where both are symmetric."""
    if not np.isfinite(bounds).all():
        return float("nan")
    error = np.asarray((bounds[1] - bounds[0]) / (2 * QUANTILE))
    if error == 0:
        return float(departure == 0)
    return float(two_sided(np.asarray(departure), error, freedom))


def scale_degrees(one: xr.Dataset) -> float:
    """Degrees of freedom of the errors of spectral ratios: cases less one, infinite where the modes were counted."""
    cases = float(one["independent_cases"])
    return cases - 1 if cases >= LEAST_BLOCKS else np.inf


def degrees(one: xr.Dataset) -> float:
    """Degrees of freedom of the resampled intervals of one variable: blocks less one."""
    return max(float(one["blocks"]) - 1, 1.0)
