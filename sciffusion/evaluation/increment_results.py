"""Structure functions, autocorrelation, flatness and joint extremes by distance."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import numpy as np
import xarray as xr

from sciffusion.evaluation.domain import length_unit
from sciffusion.evaluation.increments import NAMES, lags_of
from sciffusion.evaluation.results import BOUNDS, Results
from sciffusion.evaluation.tally import Tally

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
    shape = (grid.rank, len(lags))
    for (name, text), (who, systems) in product(TEXTS.items(), (("members", results.systems), ("truth", None))):
        rows, read = systems or results.systems[:1], partial(_sums, who)
        values = results.table(partial(results.of_all, FORMULAS[name], read), shape, rows)
        ends = results.table(partial(results.of_cases, FORMULAS[name], read), (*shape, 2), rows)
        dims = ("system",) * bool(systems) + ("variable", "axis", "lag")
        whole = slice(None) if systems else 0
        ds[f"{name}_{who}"] = (dims, values[whole], {"long_name": f"{text}; {who}"})
        words = f"95 % interval of {name}_{who}, by resampling cases"
        ds[f"{name}_{who}_interval"] = ((*dims, "bound"), ends[whole], {"long_name": words})
    return [ds.assign_coords(bound=BOUNDS)]


def _sums(who: str, tally: Tally) -> dict[str, np.ndarray]:
    return {part: tally.stacked(f"lag_{part}_{who}") for part in NAMES}


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
