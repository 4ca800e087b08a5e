"""The curves of the report: each function draws one figure of one variable and returns it as SVG."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.special import ndtri

from sciffusion.evaluation.report.figures import COLOURS, ENSEMBLE, INK, figure, legend, powers, svg
from sciffusion.evaluation.verdict import spectral_tolerance

__all__ = ["by_case", "by_region", "densities", "quantiles", "rank_histogram", "scales", "spectrum", "spread_skill"]

_ABOVE: dict[str, Any] = {
    "xycoords": ("data", "axes fraction"),
    "textcoords": "offset points",
    "ha": "center",
    "va": "bottom",
    "color": INK,
    "fontsize": 8.5,
    "annotation_clip": False,
}


def by_case(one: xr.Dataset) -> str:
    """CRPS of every system, case by case."""
    canvas, (axes,) = figure()
    for system in _systems(one, "crps_by_case"):
        axes.plot(one["crps_by_case"].sel(system=system), "o-", ms=3.5, color=_colour(one, system), label=system)
    labels = [str(label).split("=")[-1] for label in one["case"].values]
    ticks = np.unique([0, (len(labels) - 1) // 2, len(labels) - 1])
    axes.set_xticks(ticks, [labels[i][:16].replace("T", "\n") for i in ticks])
    axes.set_xlim(-0.08 * len(labels), 1.08 * len(labels) - 1)
    axes.set(title="CRPS case by case", ylabel=f"CRPS{_unit(one)}", ylim=(0, None))
    legend(axes)
    return svg(canvas, "CRPS of every system, case by case")


def by_region(one: xr.Dataset) -> str:
    """CRPS over that of the baselines in every region, sorted; without baselines the CRPS itself."""
    canvas, (axes,) = figure()
    values, names = one["crps_by_region"], [str(system) for system in one["system"].values]
    for system in names[1:]:
        ratio = np.sort((values.isel(system=0) / values.sel(system=system)).dropna("region").values)
        share = 100 * (np.arange(len(ratio)) + 0.5) / max(len(ratio), 1)
        axes.plot(share, ratio, "o-", ms=3, color=_colour(one, system), label=f"over {system}")
    if len(names) > 1:
        axes.axhline(1, color=INK, lw=0.8)
        axes.set(title="CRPS ratio by region", xlabel="regions, sorted (%)", ylabel="CRPS ratio")
    else:
        axes.plot(np.sort(values.isel(system=0).dropna("region").values), "o-", ms=3, color=ENSEMBLE, label=names[0])
        axes.set(title="CRPS by region", xlabel="regions, sorted", ylabel=f"CRPS{_unit(one)}", ylim=(0, None))
    legend(axes)
    return svg(canvas, "CRPS relative to the baselines in every region")


def rank_histogram(one: xr.Dataset) -> str:
    """Bars of the ensemble, 1 where flat."""
    canvas, (axes,) = figure()
    flat = one["rank_histogram"].isel(system=0).dropna("rank").values
    axes.bar(np.arange(len(flat)), flat, width=0.92, color=ENSEMBLE)
    axes.axhline(1, color=INK, lw=0.9, ls="--")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set(title="Rank histogram", xlabel="members below the truth", ylabel="frequency / flat")
    return svg(canvas, "Rank histogram of the ensemble")


def spread_skill(one: xr.Dataset) -> str:
    """RMSE of the mean against spread, in bins."""
    canvas, (axes,) = figure()
    limit = 0.0
    for system in _systems(one, "spread_in_bin"):
        x, y = (one[name].sel(system=system) for name in ("spread_in_bin", "rmse_in_bin"))
        axes.plot(x, y, "o-", ms=4, color=_colour(one, system), label=system)
        limit = max(limit, float(x.max()), float(y.max()))
    axes.plot([0, limit], [0, limit], color=INK, lw=0.9, ls="--", label="calibrated")
    axes.set(title="Spread and error", xlabel=f"ensemble spread{_unit(one)}", ylabel=f"RMSE of the mean{_unit(one)}")
    axes.set(xlim=(0, None), ylim=(0, None))
    legend(axes)
    return svg(canvas, "Error of the ensemble mean against ensemble spread")


def spectrum(one: xr.Dataset, band: str) -> str:
    """Power of truth, members and mean above, and the ratio to the truth in half-octave bins below."""
    canvas, (upper, lower) = figure(4.6, 4.9, (1.5, 1.0), top=0.62)
    here = one.sel(band=band)
    inside = (here["wavenumber"] > 0).values
    k, factor = here["wavenumber"][inside], here["to_density"][inside]
    for system in _systems(one, "power_members")[::-1]:
        power = here["power_members"].sel(system=system)[inside] * factor
        upper.loglog(k, power, color=_colour(one, system), label=_member_name(one, system))
    upper.loglog(k, here["power_mean"].isel(system=0)[inside] * factor, color=ENSEMBLE, ls=":", label="ensemble mean")
    truth = here["power_truth"].isel(system=0)[inside] * factor
    upper.loglog(k, truth, color=INK, lw=1.2, label="truth")
    upper.set_ylim(float(truth[truth > 0].min()) / 30, None)
    legend(upper, loc="lower left")
    upper.set_title(f"Power spectrum, {band}", pad=32)
    upper.set_ylabel("power density")
    powers(upper.yaxis)
    _wavelengths(upper, here)
    _ratio(lower, here)
    lower.set(xlabel=f"wavenumber ({_wave_units(one)})", ylabel="power / truth", xscale="log", ylim=(0, 2))
    powers(lower.xaxis)
    return svg(canvas, f"Power spectra of truth, members and mean in {band}, with their ratio to the truth")


def _wavelengths(axes: Axes, here: xr.Dataset) -> None:
    """A second axis above, in wavelengths."""
    length = float(here["wavelength"][0] * here["scale"][0])
    low, high = axes.get_xlim()
    exponents = range(int(np.ceil(np.log10(length / high))), int(np.floor(np.log10(length / low))) + 1)
    for exponent in exponents:
        axes.annotate(f"{10.0**exponent:g}", (length / 10.0**exponent, 1), (0, 9), **_ABOVE)
        axes.annotate("", (length / 10.0**exponent, 1), (0, 6), **_ABOVE, arrowprops={"arrowstyle": "-", "color": INK})
    words = f"wavelength ({here['wavelength'].attrs['units']})"
    axes.annotate(words, (0.5, 1), (0, 21), **{**_ABOVE, "xycoords": "axes fraction"})


def _ratio(axes: Axes, here: xr.Dataset) -> None:
    known = here["spectral_ratio"].isel(system=0).notnull().values
    scale, tolerance = here["scale"][known], spectral_tolerance(here)[known]
    axes.fill_between(scale, 1 - tolerance, 1 + tolerance, color=INK, alpha=0.13, lw=0)
    for system in [str(name) for name in here["system"].values][::-1]:
        axes.plot(scale, here["spectral_ratio"].sel(system=system)[known], "o-", ms=3, color=_colour(here, system))
    axes.plot(scale, here["mean_spectral_ratio"].isel(system=0)[known], ":", color=ENSEMBLE)
    axes.axhline(1, color=INK, lw=0.8)


def scales(one: xr.Dataset) -> str:
    """Spread over error, and coherence of mean and truth, by scale."""
    canvas, (upper, lower) = figure(4.6, 4.6, (1.0, 1.0))
    for band, style in zip(one["band"].values, ("-", "--", ":", "-."), strict=False):
        here = one.sel(band=band).isel(system=0)
        known = here["spectral_ratio"].notnull().values
        for axes, name in ((upper, "spread_skill_by_scale"), (lower, "coherence")):
            axes.plot(here["scale"][known], here[name][known], style, color=ENSEMBLE, label=str(band))
    upper.axhline(1, color=INK, lw=0.8)
    upper.set(title="Spread and predictability by scale", ylabel="spread / error", ylim=(0, 2))
    lower.set(ylabel="coherence", xlabel=f"wavenumber ({_wave_units(one)})", xscale="log")
    lower.set_ylim(min(0.0, lower.get_ylim()[0]), 1.05)
    powers(lower.xaxis)
    legend(lower)
    return svg(canvas, "Spread over error, and coherence of ensemble mean and truth, by scale")


def densities(one: xr.Dataset) -> str:
    """Probability densities on a logarithmic axis."""
    canvas, (axes,) = figure()
    middle = (one["class_low"] + one["class_high"]) / 2
    for system in _systems(one, "density_members")[::-1]:
        density = one["density_members"].sel(system=system)
        axes.plot(middle, density.where(density > 0), color=_colour(one, system), label=system)
    truth = one["density_truth"]
    axes.plot(middle, truth.where(truth > 0), color=INK, lw=1.2, label="truth")
    axes.set(title="Distribution of values", xlabel=f"value{_unit(one)}", ylabel="probability density", yscale="log")
    powers(axes.yaxis)
    legend(axes)
    return svg(canvas, "Probability density of truth and members, logarithmic")


def quantiles(one: xr.Dataset) -> str:
    """Quantiles of members minus those of the truth, 0.01 to 99.99 %, on a normal-probability axis."""
    canvas, (axes,) = figure()
    place = ndtri(one["level"].values)
    for system in _systems(one, "quantile_members")[::-1]:
        gap = one["quantile_members"].sel(system=system) - one["quantile_truth"]
        axes.plot(place, gap, "o-", ms=3.5, color=_colour(one, system), label=system)
    axes.axhline(0, color=INK, lw=0.9)
    shown = [0.0001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999]
    axes.set_xticks(ndtri(shown), [f"{100 * level:g}" for level in shown])
    axes.set(title="Quantiles against the truth", xlabel="quantile (%)", ylabel=f"members − truth{_unit(one)}")
    legend(axes)
    return svg(canvas, "Quantiles of the members minus quantiles of the truth")


def _colour(one: xr.Dataset, system: str) -> str:
    """Blue for the ensemble, another colour for each baseline."""
    place = [str(name) for name in one["system"].values].index(system)
    return ENSEMBLE if place == 0 else COLOURS[(place - 1) % len(COLOURS)]


def _unit(one: xr.Dataset) -> str:
    text = str(one["units"].item())
    return f" ({text})" if text else ""


def _wave_units(one: xr.Dataset) -> str:
    return str(one["scale"].attrs["units"])


def _systems(one: xr.Dataset, name: str) -> list[str]:
    """Systems that have numbers of this kind."""
    return [str(system) for system in one["system"].values if one[name].sel(system=system).notnull().any()]


def _member_name(one: xr.Dataset, system: str) -> str:
    return f"{system} (members)" if int(one["members"].sel(system=system)) > 1 else system
