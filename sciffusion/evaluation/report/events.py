"""Figures of forecast probabilities of rare events: the same frame, one curve per system, for every event."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from sciffusion.evaluation.report.figures import INK, Drawing, figure
from sciffusion.evaluation.report.systems import known_systems, style
from sciffusion.evaluation.verdict.words import number

__all__ = ["fractions", "reliability", "roc"]


class Look(NamedTuple):
    """``score`` along ``across`` (a score or a coordinate), with vertical bars for its interval.

    ``frame`` draws what belongs to no system, ``label`` names a system in the legend. ``to_origin``: the curve goes on
    to (0, 0), and has no bars.
    """

    title: str
    words: str
    score: str
    across: str
    labels: tuple[str, str]
    frame: Callable[[Axes, xr.Dataset], None]
    legend: Literal["upper left", "lower right", "best"]
    label: Callable[[xr.Dataset], str] = lambda here: str(here["system"].item())
    to_origin: bool = False


def reliability(one: xr.Dataset) -> list[Drawing]:
    """How often the event happened, against its probability in the ensemble."""
    return _drawn(one, RELIABILITY)


def roc(one: xr.Dataset) -> list[Drawing]:
    """Hits against false alarms."""
    return _drawn(one, ROC)


def fractions(one: xr.Dataset) -> list[Drawing]:
    """Fractions skill score against the size of the window."""
    return _drawn(one, FRACTIONS)


def _drawn(one: xr.Dataset, look: Look) -> list[Drawing]:
    happened = one["roc_area"].isel(system=0).notnull()
    return [_event(one.sel(event=event), look) for event in one["event"].values[happened.values]]


def _event(one: xr.Dataset, look: Look) -> Drawing:
    canvas, (axes,) = figure()
    for system in known_systems(one, look.score)[::-1]:
        here = one.sel(system=system)
        known = here[look.score].notnull().values
        x, y = (here[name].values[known] for name in (look.across, look.score))
        looks, end = style(one, system), [0.0] * look.to_origin
        axes.plot([*x, *end], [*y, *end], label=look.label(here), **looks)
        if not look.to_origin:
            axes.vlines(x, *here[f"{look.score}_interval"].values[known].T, color=looks["color"], lw=1.0, alpha=0.7)
    look.frame(axes, one)
    event = _words(one)
    axes.set(title=f"{look.title}, {event}", xlabel=look.labels[0], ylabel=look.labels[1])
    axes.legend(loc=look.legend)
    return Drawing(canvas, f"{look.words}, {event}")


def _words(one: xr.Dataset) -> str:
    quantile = float(one["event"])
    threshold = float(one["threshold"].sel(tail=quantile))
    sign = "<" if quantile < 0.5 else ">"
    return f"{sign} {number(threshold)} {one['units'].item()}".rstrip()


def _square(axes: Axes, one: xr.Dataset) -> None:
    axes.plot([0, 1], [0, 1], color=INK, lw=0.9, ls="--")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _windows(axes: Axes, one: xr.Dataset) -> None:
    axes.set_xscale("log")
    axes.set_xticks(one["window"].values, [str(size) for size in one["window"].values])
    axes.xaxis.set_minor_locator(NullLocator())


def _with_area(here: xr.Dataset) -> str:
    low, high = here["roc_area_interval"].values
    interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
    return f"{here['system'].item()}: area {float(here['roc_area']):.2f}{interval}"


RELIABILITY = Look(
    "Reliability",
    "Observed frequency against forecast probability",
    "observed_frequency",
    "forecast_probability",
    ("probability in the ensemble", "observed frequency"),
    _square,
    "upper left",
)
ROC = Look(
    "ROC",
    "Hit rate against false alarm rate",
    "hit_rate",
    "false_alarm_rate",
    ("false alarm rate", "hit rate"),
    _square,
    "lower right",
    _with_area,
    to_origin=True,
)
FRACTIONS = Look(
    "Fractions skill",
    "Fractions skill score against window size",
    "fractions_skill",
    "window",
    ("window (cells along each axis)", "FSS"),
    _windows,
    "best",
)
