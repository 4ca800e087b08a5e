"""Return levels: how high the highest value of a field gets once in so many cases, and how low the lowest.

A generalised extreme value distribution is fitted to the highest values of the cases (of minus the lowest), for the
truth and for all members together, which have the truth's if they are exchangeable with it.
"""

import warnings
from functools import partial

import numpy as np
import xarray as xr

from sciffusion.evaluation.measures.extremes import return_levels_gev
from sciffusion.evaluation.prerank import EXTREMES
from sciffusion.evaluation.results import BOUNDS, Results

__all__ = ["PERIODS", "tables"]

PERIODS = (2, 5, 10, 20, 50, 100)  # cases
LEAST_CASES = 20
SIGNS = (-1.0, 1.0)


def tables(results: Results) -> list[xr.Dataset]:
    """Levels (system, variable, extreme, period) of members, those of the truth with a 95 % interval."""
    if len(results.cases) < LEAST_CASES:
        return []
    coords = {**results.coords, "extreme": list(EXTREMES), "return_period": list(PERIODS), "bound": BOUNDS}
    ds = xr.Dataset(coords=coords)
    shape = (len(EXTREMES), len(PERIODS))
    members = results.table(partial(_members, results), shape)
    truth = results.table(partial(_truth, results), (*shape, 3), results.systems[:1])[0]
    text = "extreme value of the domain that is passed once in so many cases"
    dims = ("variable", "extreme", "return_period")
    ds["return_level_members"] = (("system", *dims), members, {"long_name": f"{text}; members"})
    ds["return_level_truth"] = (dims, truth[..., 0], {"long_name": f"{text}; truth"})
    ds["return_level_truth_interval"] = (
        (*dims, "bound"),
        truth[..., 1:],
        {"long_name": "95 % interval of the truth's"},
    )
    ds["return_period"].attrs.update(units="cases")
    return [ds]


def _members(results: Results, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    if tally is None:
        return None
    each = tally.stacked("extreme_each")
    return np.stack([sign * _levels(sign * each[:, i].reshape(-1))[0] for i, sign in enumerate(SIGNS)])


def _truth(results: Results, system: str, field: str) -> np.ndarray | None:
    """Level, lower and upper bound (extreme, period, 3)."""
    tally = results.tally(system, field)
    if tally is None:
        return None
    truth = tally.stacked("extreme_truth")
    found = []
    for i, sign in enumerate(SIGNS):
        level, interval = _levels(sign * truth[:, i])
        ends = np.sort(sign * interval, axis=-1)
        found.append(np.concatenate([sign * level[:, None], ends], axis=-1))
    return np.stack(found)


def _levels(maxima: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels (period,) and their interval (period, 2)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a fit that fails, which is NaN
        found = return_levels_gev(xr.DataArray(maxima, dims="case"), PERIODS, "case")
    return np.asarray(found["level"].values), np.asarray(found["interval"].values)
