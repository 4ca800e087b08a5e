"""Sentences: what the numbers say about an ensemble, how sure that is, and plainly so when it is no good.

A departure is named when its interval excludes the ideal and it is large enough to matter (``NOTABLE``). Without an
interval the sentence gives the number and says that nothing is known about its error.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.special import stdtrit

__all__ = [
    "Statement",
    "corrected_quantile",
    "interval_words",
    "number",
    "spectral_tolerance",
    "statements",
    "verdicts",
]

NOTABLE = 0.05  # relative departure of spread/skill that is worth a sentence
BIASED = 0.10  # bias, in units of the RMSE, that is worth a sentence
EXACT = 1e-5  # coarse consistency, in sd of the coarse field, that counts as exact
SPECTRAL = 0.10  # relative departure of power that is tolerated where the truth is known better
WHOLE = 0.99  # coverage of the domain from which single scales are judged
TAIL = 0.25  # departure of the frequency of extremes that is worth a sentence


@dataclass(frozen=True)
class Statement:
    """One sentence; ``good`` is None where it neither praises nor blames."""

    text: str
    good: bool | None


def statements(scores: xr.Dataset) -> dict[str, list[Statement]]:
    """What to say by variable: skill against baselines, spread, bias, spectra, tails, coarse consistency."""
    makers = (_skill, _spread, _scales, _bias, _spectra, _tails, _coarse)
    variables = [str(name) for name in scores["variable"].values]
    return {name: [one for make in makers for one in make(scores.sel(variable=name))] for name in variables}


def verdicts(scores: xr.Dataset) -> dict[str, list[str]]:
    """The sentences alone."""
    return {name: [one.text for one in found] for name, found in statements(scores).items()}


def number(value: float, digits: int = 3) -> str:
    """A number with three significant digits; a dash for NaN."""
    if not np.isfinite(value):
        return "–"
    if 10**digits <= abs(value) < 1e5:
        return f"{value:.0f}"
    plain = value == 0 or 1e-3 <= abs(value) < 10**digits
    return f"{value:#.{digits}g}".rstrip(".") if plain else f"{value:.{digits - 1}e}"


def interval_words(bounds: np.ndarray) -> str:
    """[lower, upper], or nothing when the interval was withheld."""
    return f" [{number(bounds[0])}, {number(bounds[1])}]" if np.isfinite(bounds).all() else ""


def corrected_quantile(tests: int, degrees: float = np.inf) -> float:
    """How many standard errors a departure must have to be more than chance, if ``tests`` numbers are looked at.

    Two-sided 5 % divided by their number (Bonferroni), of Student's t with ``degrees`` of freedom.
    """
    return float(stdtrit(min(degrees, 1e6), 1 - 0.025 / max(tests, 1)))


def spectral_tolerance(one: xr.Dataset) -> xr.DataArray:
    """Departure of the power ratio that is tolerated: 10 %, or two standard errors of the truth where that is more."""
    tolerance: xr.DataArray = (2 * one["truth_standard_error"]).clip(min=SPECTRAL)
    return tolerance.fillna(SPECTRAL)


def _ours(one: xr.Dataset, name: str) -> xr.DataArray:
    return one[name].isel(system=0)


def _skill(one: xr.Dataset) -> Iterator[Statement]:
    for baseline in one["baseline"].values:
        ratio = float(one["crps_ratio"].sel(baseline=baseline))
        low, high = one["crps_ratio_interval"].sel(baseline=baseline).values
        if not np.isfinite(ratio):
            continue
        by = f"{abs(1 - ratio) * 100:.1f} %{_per_cent(low, high)}"
        if np.isfinite(low) and low <= 1 <= high:
            bounds = interval_words(np.array([low, high]))
            yield Statement(f"Does NOT reliably beat {baseline}: CRPS ratio {number(ratio)}{bounds}.", False)
        elif ratio < 1:
            doubt = "" if np.isfinite(low) else " (no interval: how sure this is, is not known)"
            yield Statement(f"Beats {baseline}: CRPS lower by {by}{doubt}.", True)
        else:
            yield Statement(f"Does NOT beat {baseline}: CRPS higher by {by}.", False)


def _per_cent(low: float, high: float) -> str:
    if not np.isfinite([low, high]).all():
        return ""
    ends = sorted(abs(1 - bound) * 100 for bound in (low, high))
    return f" [{ends[0]:.1f}, {ends[1]:.1f}]"


def _spread(one: xr.Dataset) -> Iterator[Statement]:
    value = float(_ours(one, "spread_skill"))
    bounds = _ours(one, "spread_skill_interval").values
    if not np.isfinite(value):
        yield Statement("One member: no statement about spread.", None)
        return
    words = f"spread/skill {value:.2f}{interval_words(bounds)}"
    outside = not np.isfinite(bounds).all() or not bounds[0] <= 1 <= bounds[1]
    if abs(value - 1) <= NOTABLE or not outside:
        yield Statement(f"Spread matches the error: {words}.", True)
        return
    kind = "Under-dispersive (overconfident)" if value < 1 else "Over-dispersive (underconfident)"
    yield Statement(f"{kind}: {words}.", False)


def _wavelengths(one: xr.Dataset, bins: np.ndarray) -> str:
    """The range of wavelengths of the bins chosen."""
    length = float(one["wavelength"][0] * one["scale"][0])
    shortest, longest = length / float(one["scale_high"][bins].max()), length / float(one["scale_low"][bins].min())
    return f"wavelengths of {number(shortest)} to {number(longest)} {one['wavelength'].attrs['units']}"


def _bias(one: xr.Dataset) -> Iterator[Statement]:
    value, rmse = float(_ours(one, "bias")), float(_ours(one, "rmse"))
    bounds = _ours(one, "bias_interval").values
    outside = not np.isfinite(bounds).all() or not bounds[0] <= 0 <= bounds[1]
    if outside and abs(value) > BIASED * rmse:
        side = "high" if value > 0 else "low"
        amount = f"{number(value)} {one['units'].item()}{interval_words(bounds)}"
        yield Statement(f"Biased: the ensemble mean is too {side}, by {amount}.", False)


def _spectra(one: xr.Dataset) -> Iterator[Statement]:
    departure = _ours(one, "spectral_ratio") - 1
    known = departure.notnull()
    wrong = (abs(departure) > spectral_tolerance(one)) & known
    good, total = int((known & ~wrong).sum()), int(known.sum())
    words = f"in {good} of {total} half-octave bins (to 10 % or 2 standard errors)"
    errors = corrected_quantile(total, float(one["independent_cases"]) - 1) * one["truth_standard_error"]
    sure = wrong & (abs(departure) > errors.fillna(0))
    if good == total or not sure.any():
        rest = "" if good == total else "; the others are within chance"
        yield Statement(f"Member spectra agree with the truth {words}{rest}.", True if good == total else None)
        return
    where = _where_wrong(one, 1 + departure, sure, ("too little power", "too much power"))
    yield Statement(f"Member spectra agree with the truth {words} only; {where}.", False)


def _where_wrong(one: xr.Dataset, ratio: xr.DataArray, wrong: xr.DataArray, words: tuple[str, str]) -> str:
    """Where a ratio is below and above 1, and by how much."""
    parts = []
    for below, what in zip((True, False), words, strict=True):
        bins = wrong & ((ratio < 1) == below)
        if bins.any():
            worst = ratio.where(bins)
            reach = (
                f"down to {float(worst.min()):.2f}"
                if below
                else f"up to {float(worst.max()):.2f}"
                if worst.max() < 100
                else "over 100"
            )
            parts.append(f"{what} at {_wavelengths(one, bins.any('band').values)} (ratio {reach})")
    return ", ".join(parts)


def _scales(one: xr.Dataset) -> Iterator[Statement]:
    ratio = _ours(one, "spread_skill_by_scale")
    known = ratio.notnull() & (ratio > 0)
    if not known.any() or float(_ours(one, "coverage")) < WHOLE:
        return  # the edge of a mask spreads large scales over all others, whose error is then not known
    errors = corrected_quantile(int(known.sum())) * one["scale_standard_error"]
    departure = abs(xr.ufuncs.log(ratio.where(known)))
    wrong = departure > np.maximum(np.log1p(SPECTRAL), errors)
    if not wrong.any():
        yield Statement("Spread matches the error at every scale.", True)
        return
    yield Statement(f"By scale: {_where_wrong(one, ratio, wrong, ('too little spread', 'too much spread'))}.", False)


def _tails(one: xr.Dataset) -> Iterator[Statement]:
    for tail in one["tail"].values:
        entry = one.sel(tail=tail)
        ratio, bounds = float(_ours(entry, "exceedance_ratio")), _ours(entry, "exceedance_ratio_interval").values
        large = np.isfinite(ratio) and not 1 - TAIL < ratio < 1 / (1 - TAIL)
        if large and np.isfinite(bounds).all() and not bounds[0] <= 1 <= bounds[1]:
            side, kind = "below" if tail < 0.5 else "above", "light" if ratio < 1 else "heavy"
            value = f"{side} {number(float(entry['threshold']))} {one['units'].item()}".rstrip()
            often = f"{ratio:.2f}{interval_words(bounds)} times as often as in the truth"
            yield Statement(f"Tail too {kind}: values {value} occur {often}.", False)


def _coarse(one: xr.Dataset) -> Iterator[Statement]:
    rms, largest = float(_ours(one, "coarse_rms")), float(_ours(one, "coarse_largest"))
    if not np.isfinite(rms):
        return
    if largest <= EXACT:
        yield Statement(f"Members agree with the coarse input to {largest:.0e} of its sd.", True)
    else:
        sizes = f"{number(rms)} of its sd (rms), {number(largest)} at most"
        yield Statement(f"Members depart from the coarse input by {sizes}.", None)
