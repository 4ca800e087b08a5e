"""Figures of power spectra."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from sciffusion.evaluation.report.figures import INK, Drawing, figure, powers
from sciffusion.evaluation.report.systems import known_systems, member_name, own_colour, style, wave_units
from sciffusion.evaluation.spectra import unresolved
from sciffusion.evaluation.verdict import spectral_tolerance

__all__ = ["spectra", "squared"]

LONG = 35  # characters of a label that the axis is too short for
MOST_POINTS = 300  # of a curve; more are thinned evenly in the logarithm
_ABOVE: dict[str, Any] = {
    "xycoords": ("data", "axes fraction"),
    "textcoords": "offset points",
    "ha": "center",
    "va": "bottom",
    "color": INK,
    "fontsize": 8.5,
    "annotation_clip": False,
}


def spectra(one: xr.Dataset) -> list[Drawing]:
    """One figure for every band of latitude, or of the whole domain."""
    return [_spectrum(one, str(band)) for band in one["band"].values]


def _spectrum(one: xr.Dataset, band: str) -> Drawing:
    """Power of truth, members and mean above, and the ratio to the truth in half-octave bins below."""
    canvas, (upper, lower) = figure(4.6, 4.9, (1.5, 1.0), top=0.68)
    here = one.sel(band=band)
    inside = _thinned(here["wavenumber"].values)
    k, factor = here["wavenumber"][inside], here["to_density"][inside]
    for system in known_systems(one, "power_members")[::-1]:
        power = here["power_members"].sel(system=system)[inside] * factor
        upper.loglog(k, power, **{**style(one, system), "marker": ""}, label=member_name(one, system))
    mean = here["power_mean"].isel(system=0)[inside] * factor
    upper.loglog(k, mean, color=own_colour(one), ls=":", label="ensemble mean")
    truth = here["power_truth"].isel(system=0)[inside] * factor
    upper.loglog(k, truth, color=INK, lw=1.2, label="truth")
    cut = unresolved((truth / factor).values, k.values)
    upper.set_ylim(float(truth[(truth > 0) & ~cut].min()) / 30, None)
    for axes in (upper, lower) if cut.any() else ():
        axes.axvspan(float(k[cut][0]), float(k[-1]), color=INK, alpha=0.07, lw=0, label="no power in the truth")
    upper.legend(loc="lower left")
    upper.set_title(f"Power spectrum, {band}", pad=35)
    units = str(one["units"].item())
    words = f"power density ({squared(units)} / wavenumber)" if units else "power density"
    upper.set_ylabel(words, fontsize=9.5 if len(words) < LONG else 7.5)
    powers(upper.yaxis)
    _wavelengths(upper, here)
    _ratio(lower, here)
    lower.set(xlabel=f"wavenumber ({wave_units(one)})", ylabel="power / truth", xscale="log", ylim=(0, 2))
    powers(lower.xaxis)
    return Drawing(canvas, f"Power spectra of truth, members and mean in {band}, with their ratio to the truth")


def squared(units: str) -> str:
    """The square of a unit in words."""
    return f"{units}²" if units.isalpha() else f"({units})²"


def _thinned(wavenumber: np.ndarray) -> np.ndarray:
    """Indices of positive wavenumbers, at most ``MOST_POINTS`` of them."""
    positive = np.flatnonzero(wavenumber > 0)
    if len(positive) <= MOST_POINTS:
        return positive
    wanted = np.geomspace(wavenumber[positive[0]], wavenumber[positive[-1]], MOST_POINTS)
    return np.unique(positive[np.searchsorted(wavenumber[positive], wanted).clip(max=len(positive) - 1)])


def _wavelengths(axes: Axes, here: xr.Dataset) -> None:
    """A second axis above, in wavelengths."""
    length = float(here["wavelength"][0] * here["scale"][0])
    low, high = axes.get_xlim()
    first, last = np.log10(length / high), np.log10(length / low)
    steps = (1, 2, 5) if last - first < 2 else (1,)
    shown = [c * 10.0**n for n in range(int(np.floor(first)), int(np.ceil(last)) + 1) for c in steps]
    for value in (value for value in shown if length / high <= value <= length / low):
        axes.annotate(f"{value:g}", (length / value, 1), (0, 9), **_ABOVE)
        axes.annotate("", (length / value, 1), (0, 6), **_ABOVE, arrowprops={"arrowstyle": "-", "color": INK})
    words = f"wavelength ({here['wavelength'].attrs['units']})"
    axes.annotate(words, (0.5, 1), (0, 21), **{**_ABOVE, "xycoords": "axes fraction"})


def _ratio(axes: Axes, here: xr.Dataset) -> None:
    known = here["spectral_ratio"].isel(system=0).notnull().values
    scale, tolerance = here["scale"][known], spectral_tolerance(here)[known]
    axes.fill_between(scale, 1 - tolerance, 1 + tolerance, color=INK, alpha=0.13, lw=0)
    for system in [str(name) for name in here["system"].values][::-1]:
        axes.plot(scale, here["spectral_ratio"].sel(system=system)[known], **style(here, system, 3))
    axes.plot(scale, here["mean_spectral_ratio"].isel(system=0)[known], ":", color=own_colour(here))
    axes.axhline(1, color=INK, lw=0.8)
