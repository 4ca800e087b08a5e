"""Figures of forecast probabilities of rare events."""

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from sciffusion.evaluation.report.figures import INK, Drawing, figure
from sciffusion.evaluation.report.systems import known_systems, style
from sciffusion.evaluation.verdict.words import number

__all__ = ["fractions", "reliability", "roc"]


def reliability(one: xr.Dataset) -> list[Drawing]:
    """How often the event happened, against its probability in the ensemble."""
    return [_reliability(one.sel(event=event), _event(one, float(event))) for event in _happened(one)]


def _reliability(one: xr.Dataset, words: str) -> Drawing:
    canvas, (axes,) = figure()
    for system in known_systems(one, "observed_frequency")[::-1]:
        here = one.sel(system=system).dropna("level_of_forecast", subset=["observed_frequency"])
        axes.plot(here["forecast_probability"], here["observed_frequency"], label=system, **style(one, system))
    _square(axes)
    axes.set(title=f"Reliability, {words}", xlabel="probability in the ensemble", ylabel="observed frequency")
    axes.legend(loc="upper left")
    return Drawing(canvas, f"Observed frequency against forecast probability, {words}")


def roc(one: xr.Dataset) -> list[Drawing]:
    """Hits against false alarms."""
    return [_roc(one.sel(event=event), _event(one, float(event))) for event in _happened(one)]


def _roc(one: xr.Dataset, words: str) -> Drawing:
    canvas, (axes,) = figure()
    for system in known_systems(one, "hit_rate")[::-1]:
        here = one.sel(system=system).dropna("level_of_forecast", subset=["hit_rate"])
        label = f"{system} (area {float(here['roc_area']):.2f})"
        hits, alarms = ([*here[name].values, 0.0] for name in ("hit_rate", "false_alarm_rate"))
        axes.plot(alarms, hits, label=label, **style(one, system))
    _square(axes)
    axes.set(title=f"ROC, {words}", xlabel="false alarm rate", ylabel="hit rate")
    axes.legend(loc="lower right")
    return Drawing(canvas, f"Hit rate against false alarm rate, {words}")


def fractions(one: xr.Dataset) -> list[Drawing]:
    """Fractions skill score against the size of the window."""
    return [_fractions(one.sel(event=event), _event(one, float(event))) for event in _happened(one)]


def _fractions(one: xr.Dataset, words: str) -> Drawing:
    canvas, (axes,) = figure()
    for system in known_systems(one, "fractions_skill")[::-1]:
        axes.plot(one["window"], one["fractions_skill"].sel(system=system), label=system, **style(one, system))
    axes.set_xscale("log")
    axes.set_xticks(one["window"].values, [str(size) for size in one["window"].values])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(title=f"Fractions skill, {words}", xlabel="window (cells along each axis)", ylabel="FSS")
    axes.legend()
    return Drawing(canvas, f"Fractions skill score against window size, {words}")


def _happened(one: xr.Dataset) -> list[float]:
    known = one["roc_area"].isel(system=0).notnull()
    return [float(event) for event in one["event"].values[known.values]]


def _event(one: xr.Dataset, quantile: float) -> str:
    threshold = float(one["threshold"].sel(tail=quantile))
    sign = "<" if quantile < 0.5 else ">"
    return f"{sign} {number(threshold)} {one['units'].item()}".rstrip()


def _square(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=INK, lw=0.9, ls="--")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
