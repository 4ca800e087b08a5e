"""Power against the truth's: which scales are wrong, whether detail is blurred away, whether patterns are missing."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from sciffusion.evaluation.verdict.chance import degrees, scale_degrees, two_sided, two_sided_of_interval
from sciffusion.evaluation.verdict.finding import Finding, Statement
from sciffusion.evaluation.verdict.words import interval_words, number, scale_words

__all__ = ["blur", "pattern", "spectral_tolerance", "spectrum"]

SPECTRAL = 0.10  # relative departure of power that is tolerated where the truth is known better
BLURRED = 0.7  # power ratio at the finest scale below which detail is missing
UNRELATED = 0.1  # departure of the correlation of neighbours that is worth a sentence


def spectral_tolerance(one: xr.Dataset) -> xr.DataArray:
    """Departure of the power ratio that is tolerated: 10 %, or two standard errors of the truth where that is more."""
    tolerance: xr.DataArray = (2 * one["truth_standard_error"]).clip(min=SPECTRAL)
    return tolerance.fillna(SPECTRAL)


def _ratio(one: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Power ratio, its chance, and where it is known, (band, scale)."""
    ratio = one["spectral_ratio"].isel(system=0).transpose("band", "scale").values
    error = one["spectral_ratio_error"].isel(system=0).transpose("band", "scale").values
    known = np.isfinite(ratio) & (ratio > 0)
    log = np.log(np.where(known, ratio, 1))
    p = np.where(known, two_sided(log, error, scale_degrees(one)), np.nan)
    return ratio, np.minimum(p * max(known.sum(), 1), 1), known


def spectrum(one: xr.Dataset) -> Iterator[Finding]:
    """Half-octave bins whose power departs from the truth's."""
    ratio, p, known = _ratio(one)
    wrong = known & (np.abs(ratio - 1) > spectral_tolerance(one).transpose("band", "scale").values)
    good, total = int((known & ~wrong).sum()), int(known.sum())
    words = f"in {good} of {total} half-octave bins (to 10 % or 2 standard errors)"
    rest = "" if good == total else "; the others are within chance"
    fine = Statement(f"Member spectra agree with the truth {words}{rest}.", True if good == total else None)
    sure = wrong & (p < 0.05)
    where = _where_wrong(one, ratio, sure) if sure.any() else ""
    fault = Statement(f"Member spectra agree with the truth {words} only; {where}.", False, "spectrum")
    least = p[sure] if sure.any() else p[np.isfinite(p)]
    yield Finding(float(least.min()) if least.size else np.nan, bool(sure.any()), fault, fine)


def _where_wrong(one: xr.Dataset, ratio: np.ndarray, wrong: np.ndarray) -> str:
    """Where the power is too little and too much, and how far that goes."""
    parts = []
    for below, what in ((True, "too little power"), (False, "too much power")):
        bins = wrong & ((ratio < 1) == below)
        if bins.any():
            worst = ratio[bins].min() if below else ratio[bins].max()
            reach = f"down to {worst:.2f}" if below else f"up to {worst:.2f}" if worst < 100 else "over 100"
            parts.append(f"{what} at {scale_words(one, bins.any(axis=0))} (ratio {reach})")
    return ", ".join(parts)


def blur(one: xr.Dataset) -> Iterator[Finding]:
    """Power that falls off towards the finest scales: a smoothed ensemble has right large scales and no detail."""
    ratio, p, known = _ratio(one)
    if known.shape[1] < 4 or not known[:, -3:].all():
        return
    finest, octave = ratio[:, -1].mean(), ratio[:, -3].mean()
    falling = finest < BLURRED and np.log(finest) < 1.5 * np.log(min(octave, 1))
    gone = np.asarray((ratio < 1 - SPECTRAL).all(axis=0))
    fine = gone & (np.cumprod(gone[::-1])[::-1] > 0)
    where = scale_words(one, fine) if fine.any() else "the finest scale"
    text = f"Blurred: detail is missing at {where}; of the finest scale's power {finest * 100:.0f} % are left."
    yield Finding(float(p[:, -1].min()), bool(falling), Statement(text, False, "blur"))


def pattern(one: xr.Dataset) -> Iterator[Finding]:
    """Correlation of neighbouring departures from the ensemble mean, of members against the truth."""
    members, truth, difference = (
        float(one[f"departure_correlation_{kind}"].isel(system=0)) for kind in ("members", "truth", "difference")
    )
    if not np.isfinite(difference):
        return
    bounds = one["departure_correlation_difference_interval"].isel(system=0).values
    own = interval_words(one["departure_correlation_members_interval"].isel(system=0).values)
    kind, fault = (
        ("No spatial pattern of their own", "no spatial correlation")
        if members < truth / 2
        else ("Too rough", "too rough")
        if difference < 0
        else ("Too smooth", "too smooth")
    )
    text = f"{kind}: neighbouring departures from the ensemble mean correlate by {number(members)}{own} in the members, by {number(truth)} in the truth."  # noqa: E501
    notable = abs(difference) > UNRELATED
    yield Finding(two_sided_of_interval(difference, bounds, degrees(one)), notable, Statement(text, False, fault))
