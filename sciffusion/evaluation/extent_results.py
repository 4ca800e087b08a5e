"""Range of the values, negative values where there must be none, and masks that differ."""

from collections.abc import Callable
from functools import partial

import numpy as np
import xarray as xr

from sciffusion.evaluation.results import Results
from sciffusion.evaluation.tally import Tally

__all__ = ["tables"]

Read = Callable[[Tally], np.ndarray]
SHARES = {
    "negative_share_members": (
        "negative",
        "share of the area with negative members, if the truth is never negative",
    ),
    "filled_share": ("filled", "share of the area where members have a value and the truth has none"),
    "missing_share": ("missing", "share of the area where the truth has a value and members have none"),
}
EXTREMES = {
    "lowest_members": ("minus_lowest_members", -1, "lowest value of all members"),
    "lowest_truth": ("minus_lowest_truth", -1, "lowest value of the truth"),
    "highest_members": ("highest_members", 1, "highest value of all members"),
    "highest_truth": ("highest_truth", 1, "highest value of the truth"),
}


def tables(results: Results) -> list[xr.Dataset]:
    """One number per system and variable each."""
    ds = xr.Dataset(coords=dict(results.coords))
    for name, (part, text) in SHARES.items():
        values = results.table(partial(_read, results, partial(_share, part)))
        ds[name] = (("system", "variable"), values, {"long_name": text, "units": "1"})
    for name, (part, sign, text) in EXTREMES.items():
        values = results.table(partial(_read, results, partial(_extreme, part, sign)))
        ds[name] = (("system", "variable"), values, {"long_name": text})
    return [ds]


def _read(results: Results, read: Read, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    return None if tally is None else read(tally)


def _share(part: str, tally: Tally) -> np.ndarray:
    if part == "negative" and tally.total["extent_negative_truth"] > 0:
        return np.asarray(np.nan)
    return np.asarray(tally.total[f"extent_{part}"] / max(float(tally.total["extent_area"]), 1e-300))


def _extreme(part: str, sign: int, tally: Tally) -> np.ndarray:
    return np.asarray(sign * tally.maximum[part])
