"""Numbers and maps of whole years: climate indices, and return levels of yearly extremes cell by cell.

Yearly extremes get a generalised extreme value distribution by L-moments in every cell; members of all years are fitted
together. Intervals resample years, members and truth alike; under ten years they are withheld.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from sciffusion.evaluation.bootstrap import LEAST_BLOCKS, Resampling, bounds
from sciffusion.evaluation.climate import EXTREMES, TRUTH, Climate, Yearly
from sciffusion.evaluation.measures.extremes import gev_levels
from sciffusion.evaluation.measures.indices import INDICES
from sciffusion.evaluation.results import BOUNDS

__all__ = ["MAPPED_PERIOD", "PERIODS", "climate_maps", "climate_table"]

PERIODS = (2, 5, 10, 20, 50)  # years
MAPPED_PERIOD = 20
RESAMPLES = 200  # of the years, at ``CELLS`` cells, for return levels
CELLS = 512
PAIR = ("system", "variable")
Maps = dict[str, np.ndarray]


def climate_table(climate: Climate, systems: Sequence[str], fields: Sequence[str]) -> xr.Dataset:
    """Indices (system, variable, climate_index) and levels (system, variable, extreme, cell_return_period), area means.

    Empty where there are no whole years; the attribute ``climate_left_out`` says what there is not, and why,
    ``climate_excerpt`` of which cells and members the numbers are.
    """
    ds = xr.Dataset(attrs={"climate_left_out": "; ".join(climate.reasons), "climate_excerpt": climate.excerpt})
    if not climate.fields:
        return ds
    ds = ds.assign_coords(
        system=list(systems),
        variable=list(fields),
        bound=BOUNDS,
        climate_index=list(INDICES),
        extreme=list(EXTREMES),
        cell_return_period=("cell_return_period", list(PERIODS), {"units": "years"}),
    )
    ds["climate_index"].attrs["long_name"] = "; ".join(
        f"{index.title}: {index.text}" for name, index in INDICES.items()
    )
    units = [[_units(climate, field, name) for name in INDICES] for field in fields]
    ds["climate_index_units"] = (("variable", "climate_index"), units)
    years = [climate.fields[field].years if field in climate.fields else 0 for field in fields]
    ds["years"] = (("variable",), years, {"long_name": "whole years of daily data"})
    labels = [_label(count) for count in years]
    ds["year_interval_method"] = (("variable",), labels, {"long_name": "how intervals of yearly values came about"})
    for name, own, function in (
        ("climate_index", ("climate_index",), _indices),
        ("cell_return_level", ("extreme", "cell_return_period"), _levels),
    ):
        shape = tuple(ds.sizes[dim] for dim in own)
        members = np.stack([_row(climate, function, system, fields, shape) for system in systems])
        truth = _row(climate, function, TRUTH, fields, shape)
        for who, dims, found in (("members", PAIR, members), ("truth", PAIR[1:], truth)):
            text = TEXTS[name]
            ds[f"{name}_{who}"] = ((*dims, *own), found[..., 0], {"long_name": f"{text}; {who}"})
            words = {"long_name": f"95 % interval of {name}_{who}, by resampling years"}
            ds[f"{name}_{who}_interval"] = ((*dims, *own, "bound"), found[..., 1:], words)
    return ds


TEXTS = {
    "climate_index": "index of daily data, mean over cells and years",
    "cell_return_level": "yearly extreme of a cell that is passed once in so many years, mean over cells",
}


def _units(climate: Climate, field: str, index: str) -> str:
    return climate.fields[field].units.get(index, "") if field in climate.fields else ""


def _label(years: int) -> str:
    if years < LEAST_BLOCKS:
        return f"withheld: {years} whole year(s), {LEAST_BLOCKS} are needed"
    return f"{years} years resampled; those of return levels are centred, since resampling loses extremes"


def _row(
    climate: Climate,
    function: Callable[[Yearly, str], np.ndarray],
    system: str,
    fields: Sequence[str],
    shape: tuple[int, ...],
) -> np.ndarray:
    """(variable, *shape, 3): value, lower and upper bound; NaN where the system has none."""
    found = np.full((len(fields), *shape, 3), np.nan)
    for i, name in enumerate(fields):
        if name in climate.fields and system in climate.fields[name].values:
            found[i] = function(climate.fields[name], system)
    return found


def _indices(yearly: Yearly, system: str) -> np.ndarray:
    """(climate_index, 3)."""
    own = yearly.values[system]
    found = np.full((len(INDICES), 3), np.nan)
    for i, name in enumerate(INDICES):
        if name in own:
            sums = _area_sums(own[name].mean(axis=0), yearly.weights)
            ends = Resampling.plan(yearly.years, None, 1).of_cases(_mean, sums)
            found[i] = [
                _mean({key: value.sum() for key, value in sums.items()}),
                *(ends if ends is not None else [np.nan] * 2),
            ]
    return found


def _area_sums(values: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Of values (year, *cells): sums (year,) over the cells that have one."""
    rows, area = values.reshape(len(values), -1), weights.reshape(-1)
    return {"score": np.nan_to_num(rows) @ area, "weight": np.isfinite(rows) @ area}


def _mean(s: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(s["score"] / s["weight"])


def _levels(yearly: Yearly, system: str) -> np.ndarray:
    """(extreme, period, 3); NaN under ten years."""
    if yearly.years < LEAST_BLOCKS:
        return np.full((len(EXTREMES), len(PERIODS), 3), np.nan)
    return np.stack([_level(yearly, system, extreme) for extreme in EXTREMES])


def _level(yearly: Yearly, system: str, extreme: str) -> np.ndarray:
    """(period, 3): area means; the interval is that of evenly spread cells, moved from its mean to the level."""
    values, area = yearly.values[system][extreme], yearly.weights.reshape(-1)
    rows = values.reshape(*values.shape[:2], -1)
    step = max(1, rows.shape[2] // CELLS)
    whole, few = _mean_level(rows, area, extreme), rows[:, :, ::step]
    generator = np.random.default_rng(0)
    picks = generator.integers(yearly.years, size=(RESAMPLES, yearly.years))
    drawn = np.stack([_mean_level(few[:, pick], area[::step], extreme) for pick in picks])
    ends = bounds(drawn) + (whole - drawn.mean(axis=0))[:, None]
    return np.concatenate([whole[:, None], ends], axis=1)


def _mean_level(rows: np.ndarray, area: np.ndarray, extreme: str) -> np.ndarray:
    """(period,) of yearly extremes (member, year, cell)."""
    levels = _cell_levels(rows, PERIODS, extreme)
    known = np.isfinite(levels)
    return np.asarray(np.where(known, levels, 0) @ area / (known @ area))


def _cell_levels(values: np.ndarray, periods: Sequence[float], extreme: str) -> np.ndarray:
    """(period, *cells) of yearly extremes (member, year, *cells)."""
    sign = -1.0 if extreme == "lowest" else 1.0
    return sign * gev_levels(sign * values.reshape(-1, *values.shape[2:]).astype(np.float64), periods)


def climate_maps(climate: Climate, system: str, dims: Sequence[str]) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Maps named ``<field>/climate <what>`` and, of members minus truth, ``<field>/climate error <what>``."""
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    space = tuple(f"climate_{dim}" for dim in dims)
    for label, yearly in climate.fields.items():
        if system not in yearly.values:
            continue
        ours, truth = (_maps(yearly, who) for who in (system, TRUTH))
        for name in ours:
            found[f"{label}/climate {name}"] = (space, truth[name])
            found[f"{label}/climate error {name}"] = (space, ours[name] - truth[name])
    return found


def _maps(yearly: Yearly, system: str) -> Maps:
    """By name: means over years and members, and 20-year levels."""
    own = yearly.values[system]
    maps = {name: own[name].mean(axis=(0, 1)) for name in INDICES if name in own}
    if yearly.years < LEAST_BLOCKS:
        return maps
    signs = ("highest",) if "rx1day" in maps else tuple(EXTREMES)
    return maps | {extreme: _cell_levels(own[extreme], (MAPPED_PERIOD,), extreme)[0] for extreme in signs}
