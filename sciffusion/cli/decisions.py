"""What ``sciffusion init`` decides from what it finds; each decision one function of plain numbers, with its reason.

The numbers behind them: the ERA5 week (15 training times, a few million parameters, 1400 to 2200 steps, dropout 0.3
with augmentation by the symmetries of the dynamics), and common practice for larger data sets.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sciffusion.fields.facts import FieldFacts

__all__ = ["calendar", "crop", "gap", "network", "odd_along", "split", "training", "transform"]

# Largest training window per rank: cells that a UNet of the sizes below trains on within a few GiB.
LARGEST = {1: 65_536, 2: 512 * 512, 3: 64**3}
SIDE = {1: 16_384, 2: 256, 3: 48}
CELLS_PER_BATCH = 2**20
STATISTICS_CELLS = 10**8

_EAST = re.compile(
    r"(u|u_?\d+m?|\d+m?_?u(_component_of_wind)?|ua|uas|uo|ugos|u_?(wind|velocity|component)\w*|vx|velocity_x)"
)
_NORTH = re.compile(
    r"(v|v_?\d+m?|\d+m?_?v(_component_of_wind)?|va|vas|vgos|v_?(wind|velocity|component)\w*|vy|velocity_y)"
)
_UP = re.compile(r"(w|wo|wa|vz|velocity_z|w_?(wind|velocity)\w*)")
_ODD = re.compile(
    r"(vo|vor|vort\w*|relative_vorticity|zeta|pv|potential_vorticity|avo|psi|streamfunction|stream_function)"
)


def transform(fact: FieldFacts) -> tuple[dict[str, Any], str]:
    """Transform of a variable and why: log1p for long tails above many zeros, sqrt for shorter ones."""
    if not fact.skewed_with_zeros:
        return {}, ""
    name = "log1p" if fact.skewness > 3 else "sqrt"
    why = f"{fact.zeros:.0%} zeros, skewness {fact.skewness:.1f}; scale: typical value where it is not zero"
    return {"transform": name, "scale": float(f"{fact.typical:.1g}")}, why


def odd_along(name: str, standard_name: str, axes: Mapping[str, str], sphere: bool) -> list[str]:
    """Grid dims along which mirroring changes the sign of a variable; ``axes`` maps east, north, up to dims.

    On the sphere only the mirror image at the equator is a symmetry of the dynamics, so only it is recorded.
    """
    lower = name.lower()
    parts = {
        "east": bool(_EAST.fullmatch(lower)) or bool(re.search(r"\beastward_|(^|_)x_(wind|velocity)", standard_name)),
        "north": bool(_NORTH.fullmatch(lower))
        or bool(re.search(r"\bnorthward_|(^|_)y_(wind|velocity)", standard_name)),
        "up": bool(_UP.fullmatch(lower)) and "up" in axes,
    }
    turning = "vorticity" in standard_name or (not any(parts.values()) and bool(_ODD.fullmatch(lower)))
    if sphere:
        return [axes["north"]] if (parts["north"] or turning) and "north" in axes else []
    if turning:
        return [axes[side] for side in ("north", "east") if side in axes]
    return [axes[side] for side, there in parts.items() if there and side in axes]


def crop(shape: Sequence[int], dims: Sequence[str]) -> dict[str, int]:
    """Training window per dim where the grid is too large to train on whole; {} where it is not."""
    rank = len(shape)
    if math.prod(shape) <= LARGEST[rank]:
        return {}
    return {dim: SIDE[rank] for dim, size in zip(dims, shape, strict=True) if size > SIDE[rank]}


def network(window: Sequence[int], cases: int) -> tuple[dict[str, Any], str]:
    """Size of the UNet from the training window and the number of training cases, and why."""
    rank, cells = len(window), math.prod(window)
    patch = 2 if cells > {1: 8192, 2: 128 * 128, 3: 32**3}[rank] and min(window) >= 32 else 1
    smallest = min(window) // patch
    levels = int(np.clip(math.floor(math.log2(max(2, smallest / 8))) + 1, 1, 4))
    settings = {
        "channels": {1: 64, 2: 64, 3: 32}[rank],
        "multipliers": [1, 2, 4, 4][:levels],
        "blocks": 2,
        "patch": patch,
        "dropout": 0.3 if cases < 50 else 0.2 if cases < 500 else 0.1,
    }
    return settings, f"for windows of {' x '.join(map(str, window))} and {cases} training cases"


def training(shape: Sequence[int], window: Sequence[int], cases: int, augmented: bool) -> dict[str, int]:
    """Steps, batch size and validation interval: more steps for more cases, few enough not to overfit a handful.

    Statistics of large grids are measured on fewer cases than the default, enough for cells by the million.
    """
    batch = min(CELLS_PER_BATCH // math.prod(window), 32, 2 * cases if augmented else cases)
    steps = int(np.clip(100 * cases, 2000, 20_000))
    settings = {"steps": steps, "batch_size": 2 ** int(math.log2(max(2, batch))), "validate_every": steps // 10}
    affordable = max(8, STATISTICS_CELLS // math.prod(shape))
    return settings | ({"statistics_cases": affordable} if affordable < min(cases, 256) else {})


def split(count: int, gap: int) -> tuple[list[tuple[int, int]], str]:
    """First and last positions of training, validation and test, in that order, with ``gap`` cases left out between."""
    if count == 1:
        return [(0, 0)], "one case: nothing is held out, scores will be IN-SAMPLE"
    if count < 8:
        held = [(count - 2, count - 2), (count - 1, count - 1)] if count > 2 else [(0, 0), (1, 1)]
        return ([(0, count - 3), *held] if count > 2 else held), f"only {count} cases, the last for testing"
    test, validation = max(1, round(0.25 * count)), max(1, round(0.1 * count))
    gap = min(gap, max(0, (count - test - validation - 1) // 4))
    first = count - test
    last = first - gap - validation - gap - 1
    ranges = [(0, last), (last + 1 + gap, first - gap - 1), (first, count - 1)]
    left = f"; {gap} left out at each border" if gap else ""
    return ranges, f"{last + 1} train, {validation} validate, {test} test{left}"


def gap(count: int, step_hours: float) -> int:
    """Cases left out between the splits, so that neighbours in time are not on both sides: 2 %, at most 15 days."""
    longest = 15 * 24 / step_hours if step_hours > 0 else count
    return max(1, min(count // 50, math.ceil(longest)))


def calendar(step_hours: float, span_days: float, longitudes: bool) -> list[str]:
    """Clocks that the data can resolve: time of day below daily steps, day of year beyond two months."""
    features = []
    if 0 < step_hours < 20:
        features.append("local_solar_time" if longitudes else "time_of_day")
    if span_days > 60:
        features.append("day_of_year")
    return features
