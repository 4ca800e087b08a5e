"""Structure functions, autocorrelation, flatness and joint extremes by distance."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import xarray as xr

from sciffusion.evaluation.domain import length_unit
from sciffusion.evaluation.increments import NAMES, lags_of
from sciffusion.evaluation.results import Results

__all__ = ["tables"]

Named = Mapping[str, np.ndarray]
TEXTS = {
    "structure_function": "mean squared difference of cells a lag apart",
    "autocorrelation": "correlation of cells a lag apart",
    "flatness": "fourth moment of increments over the square of the second (3: Gaussian)",
    "joint_extremes": "chance that a cell a lag from one above its 99 % quantile is above it as well",
}


def tables(results: Results) -> list[xr.Dataset]:
    """One table (system, variable, axis, lag) per statistic of members, (variable, axis, lag) of the truth."""
    grid = results.panel.domain.grid
    lags = lags_of(grid.shape)
    distance = np.array(
        [np.multiply(lags, grid.spacing[axis] * length_unit(grid, axis)[0]) for axis in range(grid.rank)]
    )
    units = [length_unit(grid, axis)[1] for axis in range(grid.rank)]
    coords = {**results.coords, "axis": list(grid.dims), "lag": ("lag", lags, {"units": "cells"})}
    ds = xr.Dataset(coords=coords)
    ds["lag_distance"] = (("axis", "lag"), distance, {"long_name": "distance along the axis, in lag_units"})
    ds["lag_units"] = (("axis",), list(units))
    for name, text in TEXTS.items():
        members = results.table(partial(_of, results, name, "members"), (grid.rank, len(lags)))
        truth = results.table(partial(_of, results, name, "truth"), (grid.rank, len(lags)), results.systems[:1])[0]
        ds[f"{name}_members"] = (("system", "variable", "axis", "lag"), members, {"long_name": f"{text}; members"})
        ds[f"{name}_truth"] = (("variable", "axis", "lag"), truth, {"long_name": f"{text}; truth"})
    return [ds]


def _of(results: Results, name: str, who: str, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    if tally is None or f"lag_weight_{who}" not in tally.total:
        return None
    s = {part: tally.total[f"lag_{part}_{who}"] for part in NAMES}
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(FORMULAS[name](s))


def _correlation(s: Named) -> np.ndarray:
    mean = {part: s[part] / s["weight"] for part in NAMES}
    variances = [mean[f"{part}_square"] - mean[part] ** 2 for part in ("first", "second")]
    return np.asarray((mean["product"] - mean["first"] * mean["second"]) / np.sqrt(variances[0] * variances[1]))


FORMULAS: dict[str, Callable[[Named], np.ndarray]] = {
    "structure_function": lambda s: s["square"] / s["weight"],
    "autocorrelation": _correlation,
    "flatness": lambda s: s["fourth"] * s["weight"] / s["square"] ** 2,
    "joint_extremes": lambda s: s["both_high"] / s["high"],
}
