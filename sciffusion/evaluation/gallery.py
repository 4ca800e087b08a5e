"""The fields of one case, for the eye: truth, coarse input, ensemble mean, three members, spread; and mean maps."""

import numpy as np
import xarray as xr

from sciffusion.evaluation.domain import length_unit
from sciffusion.evaluation.layout import Case, Field
from sciffusion.evaluation.panel import Panel
from sciffusion.evaluation.score import ensemble_moments

__all__ = ["gallery"]

SHOWN = 3


def gallery(panel: Panel, fields: list[Field], case: Case, sample: str) -> xr.Dataset:
    """Maps of ``case`` (named ``<field>/<picture>``) and of the scores averaged over all cases of ``sample``."""
    grid = panel.domain.grid
    ours = next(iter(panel.systems))
    arrays: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for one in fields:
        pictures = _case_maps(panel, one, case, ours) | _mean_maps(panel, one, sample, ours)
        arrays.update({f"{one.label}/{name}": (grid.dims, value) for name, value in pictures.items()})
        given = panel.coarse.source.read(one, case) if panel.coarse else None
        if given is not None:
            arrays[f"{one.label}/coarse"] = (tuple(f"coarse_{dim}" for dim in grid.dims), given[0])
    coords = {}
    for axis, dim in enumerate(grid.dims):
        factor, unit = length_unit(grid, axis)
        coords[dim] = (dim, factor * grid.positions(axis), {"units": unit})
    return xr.Dataset(arrays, coords=coords, attrs={"case": case.label})


def _case_maps(panel: Panel, one: Field, case: Case, ours: str) -> dict[str, np.ndarray]:
    source, truth = panel.systems[ours], panel.truth.read(one, case)
    members = source.read(one, case) if panel.budget is None else source.members(one, case, panel.budget // 2)
    if truth is None or members is None:
        return {}
    error, variance, _ = ensemble_moments(members, truth[0])
    pictures = {"truth": truth[0], "mean": error + truth[0], "spread": np.sqrt(variance)}
    return pictures | {f"member {i}": member for i, member in enumerate(members[:SHOWN])}


def _mean_maps(panel: Panel, one: Field, sample: str, ours: str) -> dict[str, np.ndarray]:
    tally = panel.tallies.get((sample, ours, one.label))
    if tally is None:
        return {}
    with np.errstate(invalid="ignore", divide="ignore"):
        names = {"mean CRPS": "crps", "mean error": "error"}
        return {name: tally.total[f"map_{key}"] / tally.total["map_count"] for name, key in names.items()}
