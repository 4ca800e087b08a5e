"""Skill against baselines, and bias."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from sciffusion.evaluation.verdict.chance import degrees, two_sided_of_interval
from sciffusion.evaluation.verdict.finding import Finding, Statement
from sciffusion.evaluation.verdict.words import interval_words, number

__all__ = ["bias", "skill"]

BIASED = 0.10  # bias, in units of the RMSE, that is worth a sentence
BIASED_SD = 0.05  # or in units of the truth's standard deviation


def skill(one: xr.Dataset) -> Iterator[Finding]:
    """CRPS against every baseline."""
    for baseline in one["baseline"].values:
        ratio = float(one["crps_ratio"].sel(baseline=baseline))
        bounds = one["crps_ratio_interval"].sel(baseline=baseline).values
        if np.isfinite(ratio):
            yield _against(str(baseline), ratio, bounds, degrees(one))


def _against(baseline: str, ratio: float, bounds: np.ndarray, freedom: float) -> Finding:
    by = f"{abs(1 - ratio) * 100:.1f} %{_per_cent(bounds)}"
    beaten = Statement(f"Beats {baseline}: CRPS lower by {by}.", True)
    lost = Statement(f"Does NOT beat {baseline}: CRPS higher by {by}.", False, "skill")
    doubtful = f"Does NOT reliably beat {baseline}: CRPS ratio {number(ratio)}{interval_words(bounds)}."
    with np.errstate(divide="ignore", invalid="ignore"):
        p = two_sided_of_interval(float(np.log(ratio)), np.log(bounds), freedom)
    return Finding(p, True, beaten if ratio < 1 else lost, Statement(doubtful, False, "skill"))


def _per_cent(bounds: np.ndarray) -> str:
    if not np.isfinite(bounds).all():
        return ""
    ends = sorted(abs(1 - bound) * 100 for bound in bounds)
    return f" [{ends[0]:.1f}, {ends[1]:.1f}]"


def bias(one: xr.Dataset) -> Iterator[Finding]:
    """The mean error of the ensemble mean."""
    value, rmse = (float(one[name].isel(system=0)) for name in ("bias", "rmse"))
    bounds = one["bias_interval"].isel(system=0).values
    notable = abs(value) > BIASED * rmse or abs(value) > BIASED_SD * float(one["truth_sd"])
    side, amount = "high" if value > 0 else "low", f"{number(value)} {one['units'].item()}{interval_words(bounds)}"
    text = f"Biased: the ensemble mean is too {side}, by {amount}."
    yield Finding(two_sided_of_interval(value, bounds, degrees(one)), notable, Statement(text, False, "bias"))
