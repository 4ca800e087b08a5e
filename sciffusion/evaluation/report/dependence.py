"""Figures of how cells and variables hang together."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from sciffusion.evaluation.report.figures import INK, Drawing, figure, powers
from sciffusion.evaluation.report.spectral import squared
from sciffusion.evaluation.report.systems import known_systems, style

__all__ = ["increments", "intermittency", "variables"]


def increments(one: xr.Dataset) -> list[Drawing]:
    """Structure function above, autocorrelation below, per axis."""
    return [_increments(one.isel(axis=axis)) for axis in _axes(one)]


def _increments(one: xr.Dataset) -> Drawing:
    canvas, (upper, lower) = figure(4.6, 4.6, (1.0, 1.0))
    _curves(upper, one, "structure_function")
    _curves(lower, one, "autocorrelation")
    name, units = str(one["axis"].item()), str(one["units"].item())
    upper.set(title=f"Cells some distance apart along {name}", yscale="log")
    upper.set_ylabel(f"difference² ({squared(units)})" if units else "difference²")
    powers(upper.yaxis)
    lower.axhline(0, color=INK, lw=0.8)
    lower.set_ylabel("autocorrelation")
    _distances(lower, one)
    upper.legend()
    return Drawing(canvas, f"Structure function and autocorrelation along {name}")


def intermittency(one: xr.Dataset) -> list[Drawing]:
    """Flatness of increments above, joint extremes below, per axis."""
    return [_intermittency(one.isel(axis=axis)) for axis in _axes(one)]


def _intermittency(one: xr.Dataset) -> Drawing:
    canvas, (upper, lower) = figure(4.6, 4.6, (1.0, 1.0))
    _curves(upper, one, "flatness")
    _curves(lower, one, "joint_extremes")
    name = str(one["axis"].item())
    upper.axhline(3, color=INK, lw=0.8, ls="--")
    upper.set(title=f"Jumps and joint extremes along {name}", ylabel="flatness")
    lower.set(ylabel="joint extremes", ylim=(0, None))
    _distances(lower, one)
    upper.legend()
    return Drawing(canvas, f"Flatness of increments and joint extremes along {name}")


def _axes(one: xr.Dataset) -> list[int]:
    known = one["structure_function_truth"].notnull().sum("lag") > 1
    return [int(axis) for axis in np.flatnonzero(known.values)]


def _curves(axes: Axes, one: xr.Dataset, name: str) -> None:
    distance = one["lag_distance"]
    for system in known_systems(one, f"{name}_members")[::-1]:
        axes.plot(distance, one[f"{name}_members"].sel(system=system), label=system, **style(one, system))
    axes.plot(distance, one[f"{name}_truth"], color=INK, lw=1.2, label="truth")
    ends = one[f"{name}_truth_interval"]
    axes.fill_between(distance, *ends.transpose("bound", ...), color=INK, alpha=0.13, lw=0)


def _distances(axes: Axes, one: xr.Dataset) -> None:
    units = str(one["lag_units"].item())
    axes.set(xscale="log", xlabel=f"distance ({'degrees' if units.startswith('degree') else units})")
    powers(axes.xaxis)


def variables(one: xr.Dataset) -> list[Drawing]:
    """Correlation with every other variable, and extremes that happen together."""
    others = [str(name) for name in one["other_variable"].values if name != one["variable"].item()]
    canvas, (upper, lower) = figure(4.6, 4.2, (1.0, 1.0))
    names = (("variables_correlation", "correlation"), ("variables_joint_extremes", "joint extremes"))
    for axes, (name, words) in zip((upper, lower), names, strict=True):
        here, place = one.sel(other_variable=others), np.arange(len(others))
        systems = known_systems(here, f"{name}_members") or [str(one["system"].values[0])]
        truth = here[f"{name}_truth"]
        truth = truth.isel(system=0) if "system" in truth.dims else truth
        axes.plot(place, truth, "_", color=INK, ms=22, mew=1.6, label="truth")
        for index, system in enumerate(systems):
            shift = 0.12 * (index - (len(systems) - 1) / 2)
            look = {**style(one, system, 6), "ls": ""}
            axes.plot(place + shift, here[f"{name}_members"].sel(system=system), label=system, **look)
            ends = here[f"{name}_members_interval"].sel(system=system).transpose("bound", ...)
            axes.vlines(place + shift, *ends, color=look["color"], lw=1.2)
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_ylabel(words)
    upper.set_title(f"{one['variable'].item()} with other variables")
    lower.set_xticks(np.arange(len(others)), others)
    lower.set_xlim(-0.6, len(others) - 0.4)
    upper.margins(y=0.4)
    upper.set_ylim(min(-0.1, upper.get_ylim()[0]), max(0.1, upper.get_ylim()[1]))
    lower.set_ylim(0, max(0.1, lower.get_ylim()[1]))
    upper.legend(loc="upper right", ncols=2)
    return [Drawing(canvas, "Correlation and joint extremes with other variables")]
