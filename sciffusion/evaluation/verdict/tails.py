"""Extremes: how often values beyond fixed thresholds occur, and how far the most extreme values go."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from sciffusion.evaluation.verdict.chance import degrees, two_sided_of_interval
from sciffusion.evaluation.verdict.finding import Finding, Statement
from sciffusion.evaluation.verdict.words import apart, interval_words, number

__all__ = ["extremes", "tails"]

TAIL = 0.25  # departure of the frequency of extremes that is worth a sentence
RANK = 0.1  # departure from 0.5 of the mean position of the truth's extreme that is worth a sentence


def tails(one: xr.Dataset) -> Iterator[Finding]:
    """Frequency beyond the thresholds, members over truth."""
    ratios, intervals = (one[f"exceedance_ratio{part}"].isel(system=0).values for part in ("", "_interval"))
    entries = zip(one["tail"].values, one["threshold"].values, ratios, intervals, strict=True)
    for tail, threshold, ratio, bounds in entries:
        if not np.isfinite(ratio) or not np.isfinite(bounds).all():
            continue
        large = not 1 - TAIL < ratio < 1 / (1 - TAIL)
        side, kind = "below" if tail < 0.5 else "above", "light" if ratio < 1 else "heavy"
        value = f"{side} {number(float(threshold))} {one['units'].item()}".rstrip()
        often = f"{ratio:.2f}{interval_words(bounds)} times as often as in the truth"
        text = f"Tail too {kind}: values {value} occur {often}."
        yield Finding(
            _chance(float(ratio), bounds, degrees(one)), bool(large), Statement(text, False, f"tail too {kind}")
        )


def _chance(ratio: float, bounds: np.ndarray, freedom: float) -> float:
    """On a root scale, where a frequency of zero is finite and a count has a constant variance."""
    return two_sided_of_interval(float(np.sqrt(ratio)) - 1, np.sqrt(bounds), freedom) if bounds[1] else 0.0


def extremes(one: xr.Dataset) -> Iterator[Finding]:
    """The highest and the lowest value of every case: the truth's position among the members'."""
    parts = (one[f"extreme_{part}"].isel(system=0).values for part in ("position", "p", "truth", "members"))
    for side, position, p, truth, members in zip(one["extreme"].values, *parts, strict=True):
        if not np.isfinite(position):
            continue
        beyond = (position > 0.5) == (side == "highest")
        what, fault = ("Tail cut", "tail cut") if beyond else ("Extremes too extreme", "tail too heavy")
        units = one["units"].item()
        own, theirs = apart(members, truth)
        sizes = f"{own} in the members, {theirs} {units}".rstrip() + " in the truth"
        text = (
            f"{what}: the {side} value of a case is {sizes} on average; its mean rank is {position:.2f} instead of 0.5."
        )
        yield Finding(float(p), bool(abs(position - 0.5) > RANK), Statement(text, False, fault))
