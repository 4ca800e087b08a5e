"""Figures of how values are distributed."""

import numpy as np
import xarray as xr
from matplotlib.ticker import NullLocator
from scipy.special import ndtri

from sciffusion.evaluation.report.figures import INK, Drawing, figure, powers
from sciffusion.evaluation.report.systems import known_systems, style, unit
from sciffusion.evaluation.verdict.words import number

__all__ = ["cell_returns", "densities", "quantiles", "returns", "tails"]


def densities(one: xr.Dataset) -> list[Drawing]:
    """Probability densities on a logarithmic axis."""
    canvas, (axes,) = figure()
    axes.set_yscale("log")
    middle = (one["class_low"] + one["class_high"]) / 2
    for system in known_systems(one, "density_members")[::-1]:
        density = one["density_members"].sel(system=system)
        axes.plot(middle, density.where(density > 0), **{**style(one, system), "marker": ""}, label=system)
    truth = one["density_truth"]
    axes.plot(middle, truth.where(truth > 0), color=INK, lw=1.2, label="truth")
    floor = axes.get_ylim()[0]
    ends = one["density_truth_interval"].transpose("bound", ...).values
    axes.fill_between(middle, *np.maximum(ends, floor), color=INK, alpha=0.13, lw=0)
    axes.set(title="Distribution of values", xlabel=f"value{unit(one)}", ylabel="probability density")
    powers(axes.yaxis)
    axes.legend()
    return [Drawing(canvas, "Probability density of truth and members, logarithmic")]


def quantiles(one: xr.Dataset) -> list[Drawing]:
    """Quantiles of members minus those of the truth, 0.01 to 99.99 %, on a normal-probability axis."""
    canvas, (axes,) = figure()
    place = ndtri(one["level"].values)
    for system in known_systems(one, "quantile_members")[::-1]:
        looks, here = style(one, system), one.sel(system=system)
        axes.plot(place, here["quantile_difference"], label=system, **looks)
        axes.vlines(place, *here["quantile_difference_interval"].values.T, color=looks["color"], lw=1.0, alpha=0.7)
    axes.axhline(0, color=INK, lw=0.9)
    shown = [0.0001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999]
    axes.set_xticks(ndtri(shown), [f"{100 * level:g}" for level in shown])
    axes.set(title="Quantiles against the truth", xlabel="quantile (%)", ylabel=f"members − truth{unit(one)}")
    axes.legend()
    return [Drawing(canvas, "Quantiles of the members minus quantiles of the truth")]


def tails(one: xr.Dataset) -> list[Drawing]:
    """How often values beyond extreme thresholds occur, members over truth, with intervals."""
    canvas, (axes,) = figure()
    one = one.isel(tail=one["exceedance_ratio"].notnull().any("system").values)  # nothing is below 0 in rain
    place = np.arange(one.sizes["tail"])
    systems = known_systems(one, "exceedance_ratio")
    for index, system in enumerate(systems):
        ratio, bounds = (one[name].sel(system=system) for name in ("exceedance_ratio", "exceedance_ratio_interval"))
        shift = place + 0.13 * (index - (len(systems) - 1) / 2)
        look = {**style(one, system, 5), "ls": ""}
        axes.plot(shift, ratio, label=system, **look)
        axes.vlines(shift, bounds.isel(bound=0), bounds.isel(bound=1), color=look["color"], lw=1.4)
    axes.axhline(1, color=INK, lw=0.9)
    signs = ["<" if tail < 0.5 else ">" for tail in one["tail"].values]
    words = [f"{sign} {number(float(value))}" for sign, value in zip(signs, one["threshold"].values, strict=True)]
    axes.set_xticks(place, words)
    axes.set(title="Frequency of extremes", xlabel=f"value{unit(one)}", ylabel="members / truth", ylim=(0, None))
    axes.legend()
    return [Drawing(canvas, "Frequency of values beyond extreme thresholds, members over truth")]


def returns(one: xr.Dataset) -> list[Drawing]:
    """Return levels of the highest and of the lowest value."""
    return _both(one, "return_level", "return_period", "{} value of the domain")


def cell_returns(one: xr.Dataset) -> list[Drawing]:
    """The same of single cells, over years, averaged over the domain."""
    return _both(one, "cell_return_level", "cell_return_period", "{} value of a cell")


def _both(one: xr.Dataset, score: str, along: str, words: str) -> list[Drawing]:
    varied = one[f"{score}_truth"].std(along) > 0  # dry days are all the same
    names = one["extreme"].values[varied.values][::-1]
    return [_returns(one.sel(extreme=name), score, along, words.format(name)) for name in names]


def _returns(one: xr.Dataset, score: str, along: str, name: str) -> Drawing:
    canvas, (axes,) = figure()
    period, bounds = one[along], one[f"{score}_truth_interval"]
    axes.fill_between(period, bounds.isel(bound=0), bounds.isel(bound=1), color=INK, alpha=0.13, lw=0)
    for system in known_systems(one, f"{score}_members")[::-1]:
        axes.plot(period, one[f"{score}_members"].sel(system=system), label=system, **style(one, system))
    axes.plot(period, one[f"{score}_truth"], color=INK, lw=1.2, label="truth")
    axes.set(title=f"Return levels, {name}", xlabel=f"return period ({period.units})", ylabel=f"value{unit(one)}")
    axes.set_xscale("log")
    axes.set_xticks(period.values, [str(value) for value in period.values])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend()
    return Drawing(canvas, f"Return levels of the {name}")
