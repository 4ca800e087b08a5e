"""Correlation of every two variables in what the ensemble leaves open, and extremes of both at once."""

from functools import partial

import numpy as np
import xarray as xr

from sciffusion.evaluation.results import Results

__all__ = ["tables"]

TEXTS = {
    "variables_correlation": "correlation of two variables' departures from the ensemble mean at the same place",
    "variables_joint_extremes": "chance that the other variable is above its 99 % quantile if this one is",
}


def tables(results: Results) -> list[xr.Dataset]:
    """(system, variable, other variable) of members and of the truth, whose departures are from that system's mean."""
    ds = xr.Dataset(coords={**results.coords, "other_variable": list(results.fields)})
    for name, text in TEXTS.items():
        for who in ("members", "truth"):
            values = results.table(partial(_of, results, name, who), (len(results.fields),))
            attrs = {"long_name": f"{text}; {who}", "units": "1"}
            ds[f"{name}_{who}"] = (("system", "variable", "other_variable"), values, attrs)
    return [ds]


def _of(results: Results, name: str, who: str, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    if tally is None or f"relation_product_{who}" not in tally.total:
        return None
    product, square, other, high, both = (
        tally.total[f"relation_{part}_{who}"] for part in ("product", "square", "other_square", "high", "both_high")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        found = product / np.sqrt(square * other) if name == "variables_correlation" else both / high
    found[results.fields.index(field)] = np.nan
    return np.asarray(found)
