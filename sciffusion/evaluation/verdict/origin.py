"""Where members come from: their own case or another, each other, the training data, tiles that do not match."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from sciffusion.evaluation.verdict.finding import Finding, Statement
from sciffusion.evaluation.verdict.words import number

__all__ = ["duplicates", "memorised", "seams", "shuffled", "unrelated"]

UNRELATED = 0.2  # correlation over cases under which an ensemble says nothing of its case
MISSED = 0.1  # share of cases whose truth fits another case, beyond what members miss, that is worth a sentence
CLOSE = 0.02  # share of members less than half as far from the training data as the truth that is worth a sentence
STEP = 1.1  # squared steps at borders over those elsewhere


def _value(one: xr.Dataset, name: str) -> float:
    return float(one[name].isel(system=0)) if name in one else float("nan")


def unrelated(one: xr.Dataset) -> Iterator[Finding]:
    """Members that know nothing of their case."""
    with_truth, with_fellows = _value(one, "timing_correlation"), _value(one, "timing_fellow_correlation")
    if not np.isfinite(with_truth):
        return
    text = f"Ignores its condition: over cases, the ensemble mean and the truth correlate by {with_truth:.2f}, members of one case by {with_fellows:.2f}; no better than climatology."  # noqa: E501
    notable = max(with_truth, with_fellows) < UNRELATED
    yield Finding(_value(one, "timing_p_unrelated"), notable, Statement(text, False, "ignores its condition"))


def shuffled(one: xr.Dataset) -> Iterator[Finding]:
    """Members that belong to another case."""
    hits, usual = _value(one, "timing_truth_hits"), _value(one, "timing_member_hits")
    if not np.isfinite(hits):
        return
    step, share = _value(one, "timing_displacement"), _value(one, "timing_displaced_share")
    where = f", mostly {abs(step):.0f} case(s) {'later' if step > 0 else 'earlier'}" if share > 0.5 else ""
    text = f"Cases are shuffled: for {(1 - hits) * 100:.0f} % of them the truth is nearer to the members of another case{where}; among members that happens to {(1 - usual) * 100:.0f} %."  # noqa: E501
    notable = usual - hits > MISSED
    yield Finding(_value(one, "timing_p_shuffled"), notable, Statement(text, False, "shuffled cases"))


def duplicates(one: xr.Dataset) -> Iterator[Finding]:
    """Members that are the same field."""
    twins = _value(one, "twins")
    text = f"Duplicated members: {number(twins, 2)} members per case are copies of another, so the ensemble is smaller than it says."  # noqa: E501
    yield Finding(_value(one, "twins_p"), twins > 0, Statement(text, False, "duplicated members"))


def memorised(one: xr.Dataset) -> Iterator[Finding]:
    """Members nearer to the training data than held-out truth is."""
    members, truth = _value(one, "training_distance_members"), _value(one, "training_distance_truth")
    if not np.isfinite(members):
        return
    close = _value(one, "training_close")
    far = members / truth if truth else np.nan
    text = f"Memorised: {close * 100:.0f} % of the members are less than half as far from the nearest training field as the held-out truth is (on average {far:.2f} times as far)."  # noqa: E501
    good = Statement("Members are no nearer to the training fields than the truth is.", True)
    yield Finding(_value(one, "training_p"), close > CLOSE, Statement(text, False, "memorised"), good)


def seams(one: xr.Dataset) -> Iterator[Finding]:
    """Steps at regular borders."""
    parts = (one[f"seam_{part}"].isel(system=0).values for part in ("ratio", "period", "p"))
    for dim, ratio, period, p in zip(one["axis"].values, *parts, strict=True):
        if np.isfinite(ratio):
            text = f"Seams every {period:.0f} cells along {dim}: squared steps there are {ratio:.2f} times what they are elsewhere."  # noqa: E501
            yield Finding(float(p), bool(ratio > STEP), Statement(text, False, "seams"))
