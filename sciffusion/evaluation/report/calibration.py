"""Figures of spread against error."""

from itertools import pairwise

import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from sciffusion.evaluation.report.figures import INK, Drawing, figure, powers
from sciffusion.evaluation.report.systems import has, known_systems, own_colour, style, unit, wave_units

__all__ = ["coverage", "rank_histogram", "scales", "spread_skill"]


def rank_histogram(one: xr.Dataset) -> list[Drawing]:
    """Bars of the ensemble, 1 where flat."""
    canvas, (axes,) = figure()
    flat = one["rank_histogram"].isel(system=0).dropna("rank").values
    axes.bar(np.arange(len(flat)), flat, width=0.92, color=own_colour(one))
    if has(one, "rank_histogram_interval"):
        low, high = one["rank_histogram_interval"].isel(system=0).values[: len(flat)].T
        axes.vlines(np.arange(len(flat)), low, high, color=INK, lw=1.2)
    axes.axhline(1, color=INK, lw=0.9, ls="--")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set(title=f"Rank histogram{_chance(one)}", xlabel="members below the truth", ylabel="frequency / flat")
    return [Drawing(canvas, "Rank histogram of the ensemble")]


def _chance(one: xr.Dataset) -> str:
    """The p-value of a flat histogram; nothing where it is withheld."""
    if not has(one, "rank_chance"):
        return ""
    p = float(one["rank_chance"].isel(system=0).sel(rank_test="flat"))
    return f" (flat: p {'< 0.001' if p < 1e-3 else f'= {p:.2g}'})"


def spread_skill(one: xr.Dataset) -> list[Drawing]:
    """RMSE of the mean against spread, in bins."""
    canvas, (axes,) = figure()
    limit = 0.0
    for system in known_systems(one, "spread_in_bin")[::-1]:
        x, y = (one[name].sel(system=system) for name in ("spread_in_bin", "rmse_in_bin"))
        axes.plot(x, y, label=system, **style(one, system, 4))
        limit = max(limit, float(x.max()), float(y.max()))
    axes.plot([0, limit], [0, limit], color=INK, lw=0.9, ls="--", label="calibrated")
    axes.set(title="Spread and error", xlabel=f"ensemble spread{unit(one)}", ylabel=f"RMSE of the mean{unit(one)}")
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.legend()
    return [Drawing(canvas, "Error of the ensemble mean against ensemble spread")]


def scales(one: xr.Dataset) -> list[Drawing]:
    """Spread over error, and coherence of mean and truth, by scale."""
    canvas, (upper, lower) = figure(4.6, 4.6, (1.0, 1.0))
    for band, line in zip(one["band"].values, ("-", "--", ":", "-."), strict=False):
        here = one.sel(band=band).isel(system=0)
        known = here["spectral_ratio"].notnull().values
        for axes, name in ((upper, "spread_skill_by_scale"), (lower, "coherence")):
            axes.plot(here["scale"][known], here[name][known], line, color=own_colour(one), label=str(band))
    upper.axhline(1, color=INK, lw=0.8)
    upper.set(title="Spread and predictability by scale", ylabel="spread / error")
    upper.set_ylim(0, max(2.0, upper.get_ylim()[1]))
    lower.set(ylabel="coherence", xlabel=f"wavenumber ({wave_units(one)})", xscale="log")
    lower.set_ylim(min(0.0, lower.get_ylim()[0]), 1.05)
    powers(lower.xaxis)
    if one.sizes["band"] > 1:
        lower.legend()
    return [Drawing(canvas, "Spread over error, and coherence of ensemble mean and truth, by scale")]


def coverage(one: xr.Dataset) -> list[Drawing]:
    """How often the truth lies below and above all members, by intensity."""
    canvas, (axes,) = figure()
    expected = float(one["expected_beyond"].isel(system=0))
    low = one["intensity_low"].values
    edges = [f"< {low[1]:g}", *(f"{value:g} to {after:g}" for value, after in pairwise(low[1:]))]
    for name, line in (("below", "--"), ("above", "-")):
        share = one[f"truth_{name}_members"].isel(system=0) / expected
        axes.plot(share.values, line, marker="o", ms=3.5, color=own_colour(one), label=f"truth {name} all members")
    axes.axhline(1, color=INK, lw=0.9)
    axes.set_xticks(np.arange(len(low)), [*edges, f"> {low[-1]:g}"], fontsize=8)
    axes.set(title="Misses by intensity", xlabel="intensity (sd from the mean)", ylabel="frequency / expected")
    axes.set_ylim(0, None)
    axes.legend()
    return [Drawing(canvas, "How often the truth lies beyond all members, by intensity")]
