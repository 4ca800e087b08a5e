"""From scores to sentences: every rule on every variable, corrected together for how much was looked at."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciffusion.evaluation.verdict.coarse import coarse
from sciffusion.evaluation.verdict.finding import Finding, Rule, Statement
from sciffusion.evaluation.verdict.origin import duplicates, memorised, seams, shuffled, unrelated
from sciffusion.evaluation.verdict.skill import bias, skill
from sciffusion.evaluation.verdict.spectrum import blur, pattern, spectrum
from sciffusion.evaluation.verdict.spread import spread, spread_by_scale
from sciffusion.evaluation.verdict.tails import extremes, tails

__all__ = ["LEVEL", "RULES", "faults", "findings", "statements", "verdicts"]

LEVEL = 0.01  # chance that anything at all is named in a perfect ensemble
DOUBT = " (no interval: how sure this is, is not known)"
RULES: tuple[Rule, ...] = (
    *(skill, spread, spread_by_scale, bias, spectrum, blur, pattern, tails, extremes),
    *(unrelated, shuffled, duplicates, memorised, seams, coarse),
)


def findings(scores: xr.Dataset) -> dict[str, list[Finding]]:
    """What the rules found, by variable."""
    each = {str(name): scores.isel(variable=i) for i, name in enumerate(scores["variable"].values)}
    return {name: [found for rule in RULES for found in rule(one)] for name, one in each.items()}


def statements(scores: xr.Dataset) -> dict[str, list[Statement]]:
    """What to say by variable, in the order of ``RULES``."""
    found = findings(scores)
    limit = holm([one.p for several in found.values() for one in several], LEVEL)
    said = {name: [_said(one, limit) for one in several] for name, several in found.items()}
    return {name: [one for one in several if one is not None] for name, several in said.items()}


def verdicts(scores: xr.Dataset) -> dict[str, list[str]]:
    """The sentences alone."""
    return {name: [one.text for one in found] for name, found in statements(scores).items()}


def faults(scores: xr.Dataset) -> dict[str, list[str]]:
    """Names of the faults that are blamed, by variable."""
    return {name: [one.fault for one in found if one.good is False] for name, found in statements(scores).items()}


def holm(chances: Sequence[float], level: float) -> float:
    """The largest chance that still counts: Holm (1979), families of NaN left out; 0 if none does."""
    ordered = np.sort([p for p in chances if np.isfinite(p)])
    passed = ordered <= level / (len(ordered) - np.arange(len(ordered)))
    count = len(ordered) if passed.all() else int(passed.argmin())
    return float(ordered[count - 1]) if count else -1.0


def _said(one: Finding, limit: float) -> Statement | None:
    if not one.notable:
        return one.otherwise
    if np.isfinite(one.p):
        return one.sure if one.p <= limit else one.otherwise
    stem = one.sure.text.removesuffix(".")
    return Statement(f"{stem}{DOUBT}.", True if one.sure.good else None, one.sure.fault)
