"""Correlation of every two variables in what the ensemble leaves open, and extremes of both at once."""

from functools import partial
from itertools import product

import numpy as np
import xarray as xr

from sciffusion.evaluation.results import BOUNDS, Metric, Results
from sciffusion.evaluation.samples import NAMES
from sciffusion.evaluation.tally import Tally

__all__ = ["tables"]

RELATIONS: dict[str, tuple[str, Metric]] = {
    "variables_correlation": (
        "correlation of two variables' departures from the ensemble mean at the same place",
        lambda s: s["product"] / np.sqrt(s["square"] * s["other_square"]),
    ),
    "variables_joint_extremes": (
        "chance that the other variable is above its 99 % quantile if this one is",
        lambda s: s["both_high"] / s["high"],
    ),
}


def tables(results: Results) -> list[xr.Dataset]:
    """(system, variable, other variable) of members and of the truth, whose departures are from that system's mean."""
    ds = xr.Dataset(coords={**results.coords, "other_variable": list(results.fields), "bound": BOUNDS})
    dims, size = ("system", "variable", "other_variable"), len(results.fields)
    itself = np.eye(size, dtype=bool)
    for (name, (text, metric)), who in product(RELATIONS.items(), ("members", "truth")):
        read = partial(_sums, who)
        values = results.table(partial(results.of_all, metric, read), (size,))
        ends = results.table(partial(results.of_cases, metric, read), (size, 2))
        attrs = {"long_name": f"{text}; {who}", "units": "1"}
        ds[f"{name}_{who}"] = (dims, np.where(itself, np.nan, values), attrs)
        attrs["long_name"] = f"95 % interval of {name}_{who}, by resampling cases"
        ds[f"{name}_{who}_interval"] = ((*dims, "bound"), np.where(itself[..., None], np.nan, ends), attrs)
    return [ds]


def _sums(who: str, tally: Tally) -> dict[str, np.ndarray]:
    return {part: tally.stacked(f"relation_{part}_{who}") for part in NAMES}
