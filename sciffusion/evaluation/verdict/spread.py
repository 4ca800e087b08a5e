"""Spread against error: over all cells, and scale by scale."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from sciffusion.evaluation.verdict.chance import degrees, scale_degrees, two_sided, two_sided_of_interval
from sciffusion.evaluation.verdict.finding import Finding, Statement
from sciffusion.evaluation.verdict.words import interval_words, scale_words

__all__ = ["WHOLE", "spread", "spread_by_scale"]

NOTABLE = 0.05  # relative departure of spread/skill that is worth a sentence
WHOLE = 0.99  # coverage of the domain from which single scales are judged
KINDS = {True: "Under-dispersive (overconfident)", False: "Over-dispersive (underconfident)"}
FAULTS = {True: "under-dispersive", False: "over-dispersive"}


def spread(one: xr.Dataset) -> Iterator[Finding]:
    """Spread/skill of all cells together."""
    value = float(one["spread_skill"].isel(system=0))
    bounds = one["spread_skill_interval"].isel(system=0).values
    if not np.isfinite(value):
        nothing = Statement("One member: no statement about spread.", None)
        yield Finding(np.nan, False, nothing, nothing)
        return
    words = f"spread/skill {value:.2f}{interval_words(bounds)}"
    with np.errstate(divide="ignore", invalid="ignore"):
        p = two_sided_of_interval(float(np.log(value)), np.log(bounds), degrees(one))
    fault = Statement(f"{KINDS[value < 1]}: {words}.", False, FAULTS[value < 1])
    notable = abs(value - 1) > NOTABLE
    unsure = Statement(f"Spread may differ from the error: {words}; within chance for all that was looked at.", None)
    yield Finding(p, notable, fault, unsure if notable else Statement(f"Spread matches the error: {words}.", True))


def spread_by_scale(one: xr.Dataset) -> Iterator[Finding]:
    """Spread/skill in half-octave bins; the edge of a mask spreads large scales over all others, so none with one."""
    ratio = one["spread_skill_by_scale"].isel(system=0).transpose("band", "scale").values
    known = np.isfinite(ratio) & (ratio > 0)
    if not known.any() or float(one["coverage"].isel(system=0)) < WHOLE:
        return
    error = one["spread_skill_by_scale_error"].isel(system=0).transpose("band", "scale").values
    log = np.log(np.where(known, ratio, 1))
    p = np.where(known, two_sided(log, error, scale_degrees(one)), np.nan)
    good = Statement("Spread matches the error at every scale.", True)
    wrong = {below: known & ((log < 0) == below) & (np.abs(log) > np.log1p(NOTABLE)) for below in (True, False)}
    p = np.minimum(p * known.sum(), 1)
    either = False
    for below, bins in wrong.items():
        chosen = bins & (p < 0.05)
        either |= bool(chosen.any())
        if chosen.any():
            text = f"{KINDS[below].split(' ')[0]} at {_where(one, chosen, log, error)}."
            yield Finding(float(p[chosen].min()), True, Statement(text, False, f"{FAULTS[below]} by scale"))
    if not either:
        yield Finding(np.nanmin(p) if np.isfinite(p).any() else np.nan, False, good, good)


def _where(one: xr.Dataset, chosen: np.ndarray, log: np.ndarray, error: np.ndarray) -> str:
    """Scales, bands where there are several, and the mean ratio with its interval, weighted by certainty."""
    weight = np.where(chosen & (error > 0), error, np.inf) ** -2.0
    mean, half = (log * weight).sum() / weight.sum(), 1.96 / np.sqrt(weight.sum())
    value, bounds = np.exp(mean), np.exp([mean - half, mean + half])
    bands = [str(name) for name in one["band"].values[chosen.any(axis=1)]]
    place = f" ({', '.join(bands)})" if len(one["band"]) > len(bands) else ""
    return (
        f"{scale_words(one, np.asarray(chosen.any(axis=0)))}{place}: spread/skill {value:.2f}{interval_words(bounds)}"
    )
