"""Numbers, intervals and scales in words."""

import numpy as np
import xarray as xr

__all__ = ["apart", "interval_words", "number", "scale_words"]


def number(value: float, digits: int = 3) -> str:
    """A number with three significant digits; a dash for NaN."""
    if not np.isfinite(value):
        return "–"
    if 10**digits <= abs(value) < 1e5:
        return f"{value:.0f}"
    plain = value == 0 or 1e-3 <= abs(value) < 10**digits
    return f"{value:#.{digits}g}".rstrip(".") if plain else f"{value:.{digits - 1}e}"


def apart(first: float, second: float) -> tuple[str, str]:
    """Two numbers with as many digits, up to six, as tell them apart."""
    for digits in range(3, 7):
        words = number(first, digits), number(second, digits)
        if words[0] != words[1]:
            break
    return words


def interval_words(bounds: np.ndarray) -> str:
    """[lower, upper], or nothing when the interval was withheld."""
    return f" [{number(bounds[0])}, {number(bounds[1])}]" if np.isfinite(bounds).all() else ""


def scale_words(one: xr.Dataset, bins: np.ndarray) -> str:
    """The wavelengths of the chosen ``bins`` (scale,): below, above or between; bins without numbers do not count."""
    known = one["spectral_ratio"].isel(system=0).notnull().any("band").values
    one, bins = one.isel(scale=known), bins[known]
    length, units = float(one["wavelength"][0] * one["scale"][0]), one["wavelength"].attrs["units"]
    shortest, longest = length / float(one["scale_high"][bins].max()), length / float(one["scale_low"][bins].min())
    if bins.all():
        return "all wavelengths"
    if bins[-1] and bins[bins.argmax() :].all():
        return f"wavelengths below {number(longest)} {units}"
    if bins[0] and bins[: bins.sum()].all():
        return f"wavelengths above {number(shortest)} {units}"
    return f"wavelengths of {number(shortest)} to {number(longest)} {units}"
