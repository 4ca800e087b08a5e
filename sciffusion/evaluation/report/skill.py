"""Figures of scores along time and region, and by size of block."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from sciffusion.evaluation.report.figures import INK, Drawing, figure, powers
from sciffusion.evaluation.report.systems import known_systems, style, unit

__all__ = ["by_case", "by_region", "errors_by_case", "pooled"]

WIDE = 4  # ratio of the largest to the smallest value from which an axis is logarithmic
MOST_MARKS = 60  # points of a line up to which every one has a marker
MOST_POINTS = 120  # of a line; more cases are averaged in runs


def by_case(one: xr.Dataset) -> list[Drawing]:
    """CRPS of every system, case by case."""
    canvas, (axes,) = figure()
    _series(axes, one, "crps_by_case")
    axes.set(title=_title(one, "CRPS"), ylabel=f"CRPS{unit(one)}")
    _case_labels(axes, one)
    axes.legend()
    return [Drawing(canvas, "CRPS of every system, case by case")]


def errors_by_case(one: xr.Dataset) -> list[Drawing]:
    """Errors of the ensemble mean, case by case."""
    canvas, (upper, lower) = figure(4.6, 4.2, (1.0, 1.0))
    for axes, name, words in ((upper, "rmse_by_case", "RMSE"), (lower, "mae_by_case", "MAE")):
        _series(axes, one, name)
        axes.set_ylabel(f"{words}{unit(one)}")
    upper.set_title(_title(one, "Errors of the mean"))
    _case_labels(lower, one)
    lower.legend()
    return [Drawing(canvas, "RMSE and MAE of the mean of every system, case by case")]


def _run(one: xr.Dataset) -> int:
    """How many consecutive cases make a point of a line."""
    return -(-one.sizes["case"] // MOST_POINTS)


def _title(one: xr.Dataset, words: str) -> str:
    return f"{words}, case by case" if _run(one) == 1 else f"{words}, means of {_run(one)} cases"


def _series(axes: Axes, one: xr.Dataset, name: str) -> None:
    """A line per system; on a logarithmic axis where they are far apart."""
    lines = one[name].drop_vars("case").coarsen(case=_run(one), boundary="pad").mean()
    place = _run(one) * np.arange(lines.sizes["case"]) + (_run(one) - 1) / 2  # the middle of each run
    for system in known_systems(one, name)[::-1]:
        look = style(one, system)
        if len(place) > MOST_MARKS:
            look["marker"] = ""
        axes.plot(place, lines.sel(system=system), label=system, **look)
    values = lines.values[lines.values > 0]
    if len(values) and values.max() > WIDE * values.min():
        axes.set_yscale("log")
        powers(axes.yaxis)
    else:
        axes.set_ylim(0, None)


def _case_labels(axes: Axes, one: xr.Dataset) -> None:
    """First, middle and last case by name."""
    labels = [str(label).split("=")[-1] for label in one["case"].values]
    ticks = np.unique([0, (len(labels) - 1) // 2, len(labels) - 1])
    axes.set_xticks(ticks, [labels[i][:16].removesuffix("T00:00").replace("T", "\n") for i in ticks])
    room = max(0.12 * len(labels), 0.5)
    axes.set_xlim(-room, len(labels) - 1 + room)


def by_region(one: xr.Dataset) -> list[Drawing]:
    """CRPS over that of the baselines in every region, sorted; without baselines the CRPS itself."""
    canvas, (axes,) = figure()
    values, names = one["crps_by_region"], [str(system) for system in one["system"].values]
    for system in names[1:]:
        ratio = np.sort((values.isel(system=0) / values.sel(system=system)).dropna("region").values)
        share = 100 * (np.arange(len(ratio)) + 0.5) / max(len(ratio), 1)
        axes.plot(share, ratio, label=f"over {system}", **style(one, system, 3))
    if len(names) > 1:
        axes.axhline(1, color=INK, lw=0.8)
        axes.set(title="CRPS ratio by region", xlabel="regions, sorted (%)", ylabel="CRPS ratio")
    else:
        own = np.sort(values.isel(system=0).dropna("region").values)
        axes.plot(own, label=names[0], **style(one, names[0], 3))
        axes.set(title="CRPS by region", xlabel="regions, sorted", ylabel=f"CRPS{unit(one)}", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend()
    return [Drawing(canvas, "CRPS relative to the baselines in every region")]


def pooled(one: xr.Dataset) -> list[Drawing]:
    """CRPS of block means against the size of the block."""
    canvas, (axes,) = figure()
    sizes = [1, *(int(size) for size in one["pool"].values)]
    for system in known_systems(one, "pooled_crps")[::-1]:
        here = one.sel(system=system)
        axes.plot(sizes, [float(here["crps"]), *here["pooled_crps"].values], label=system, **style(one, system))
    axes.set(title="CRPS of block means", xlabel="block size (cells along each axis)", ylabel=f"CRPS{unit(one)}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, None)
    axes.legend()
    return [Drawing(canvas, "CRPS after averaging over blocks of cells")]
