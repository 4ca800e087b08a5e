"""Tables of dependence and of origin: neighbours, seams, copies, extremes, timing, distance to the training data."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import xarray as xr

from sciffusion.evaluation import neighbours
from sciffusion.evaluation.bootstrap import persistence
from sciffusion.evaluation.copies import chance_of_twins
from sciffusion.evaluation.coverage import CLASSES
from sciffusion.evaluation.prerank import EXTREMES, chance_of_few, chance_of_mean
from sciffusion.evaluation.results import BOUNDS, Results
from sciffusion.evaluation.seams import Seam, comb
from sciffusion.evaluation.tally import Tally
from sciffusion.evaluation.timing import Timing, timing

__all__ = ["tables"]

PAIR = ("system", "variable")
Entries = Mapping[str, tuple["Read", str, tuple[str, ...]]]  # how to read it, what it is, its extra dims
Read = Callable[[Tally, str, str], np.ndarray | float | None]  # of a tally, its system and its field


def tables(results: Results) -> list[xr.Dataset]:
    """All of them."""
    return [
        _neighbours(results),
        _coverage(results),
        _seams(results),
        _copies(results),
        _extremes(results),
        _timing(results),
    ]


def _dataset(results: Results, entries: Entries, **coords: object) -> xr.Dataset:
    """One variable per entry (read, description, extra dims), dimensionless where the description says no more."""
    sizes = {dim: len(values) for dim, values in coords.items() if isinstance(values, list | tuple)}
    arrays = {}
    for name, (read, text, dims) in entries.items():
        values = results.table(partial(_cell, results, read), tuple(sizes[dim] for dim in dims))
        arrays[name] = ((*PAIR, *dims), values, {"long_name": text})
    return xr.Dataset(arrays, coords={**results.coords, **coords})


def _cell(results: Results, read: Read, system: str, field: str) -> np.ndarray | float | None:
    tally = results.tally(system, field)
    return None if tally is None else read(tally, system, field)


def _neighbours(results: Results) -> xr.Dataset:
    ds = xr.Dataset(coords={**results.coords, "bound": BOUNDS})
    for name, (metric, text) in neighbours.METRICS.items():
        attrs = {"long_name": text, "units": "1"}
        ds[name] = (PAIR, results.table(partial(results.value, metric)), attrs)
        bounds = results.table(partial(results.interval, metric), (2,))
        ds[f"{name}_interval"] = ((*PAIR, "bound"), bounds, {"long_name": f"95 % interval of {name}", "units": "1"})
    ds["blocks"] = (("variable",), [_blocks(results, field) for field in results.fields])
    ds["blocks"].attrs["long_name"] = "independent blocks that the intervals are resampled from, 0 when withheld"
    return ds


def _blocks(results: Results, field: str) -> int:
    plan, sums = results.resampling[field], results.sums(results.systems[0], field)
    if plan.counts is None or sums is None:
        return 0
    used = int((sums["crps_weight"].sum(axis=0) > 0).sum())
    return len(sums["crps_weight"]) // results.lengths[field] if plan.over_cases else used


def _coverage(results: Results) -> xr.Dataset:
    def read(part: str, tally: Tally, *_: str) -> np.ndarray:
        area, value = (tally.stacked(f"coverage_{name}").sum(axis=0) for name in ("area", part))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(value / area)

    entries: Entries = {
        f"truth_{part}_members": (
            partial(read, part),
            f"share of the truth {part} all members",
            ("intensity",),
        )
        for part in ("below", "above")
    }
    ds = _dataset(results, entries, intensity=list(range(len(CLASSES) - 1)))
    members = np.array([results.panel.members.get(system, 0) for system in results.systems], dtype=np.float64)
    ds["expected_beyond"] = (("system",), 1 / (members + 1), {"long_name": "what either share is if members are right"})
    ds["intensity_low"] = (("intensity",), [np.nan, *CLASSES[1:-1]])
    ds["intensity_low"].attrs["long_name"] = (
        "lower edge of the class of the mean of members and truth, in sd from the mean"
    )
    return ds


def _seams(results: Results) -> xr.Dataset:
    grid = results.panel.domain.grid

    found: dict[tuple[str, str], list[Seam | None]] = {}

    def read(part: str, tally: Tally, system: str, field: str) -> np.ndarray:
        if (system, field) not in found:
            found[system, field] = [_seam(results, tally, axis) for axis in range(grid.rank)]
        return np.array([_of_seam(part, seam) for seam in found[system, field]])

    texts = {
        "period": "cells between the borders that stand out most",
        "offset": "cells before the first of them",
        "ratio": "squared steps of members there over those of the truth, relative to other borders",
        "p": "chance of borders that stand out so much where there is no seam",
    }
    entries = {f"seam_{part}": (partial(read, part), text, ("axis",)) for part, text in texts.items()}
    return _dataset(results, entries, axis=list(grid.dims))


def _seam(results: Results, tally: Tally, axis: int) -> Seam | None:
    if f"seam_truth_{axis}" not in next(iter(tally.by_case.values())):
        return None
    members, truth = (tally.stacked(f"seam_{kind}_{axis}") for kind in ("members", "truth"))
    return comb(members, truth, results.panel.domain.grid.periodic[axis])


def _of_seam(part: str, seam: Seam | None) -> float:
    return float("nan") if seam is None else float(getattr(seam, part))


def _copies(results: Results) -> xr.Dataset:
    entries: dict[str, tuple[Read, str, tuple[str, ...]]] = {
        "twins": (_mean_of("twins"), "members that have a twin, mean over cases", ()),
        "twins_p": (_chance_of_twins, "chance of such twins if members are independent", ()),
    }
    tallies = [t for key, t in results.panel.tallies.items() if key[0] == results.sample]
    if any("training_truth" in next(iter(t.by_case.values()), {}) for t in tallies):
        entries |= {
            "training_distance_members": (
                _mean_of("training_members"),
                "mean distance of members to the nearest training field, as the variable",
                (),
            ),
            "training_distance_truth": (
                _mean_of("training_truth"),
                "mean distance of the truth to the nearest training field, as the variable",
                (),
            ),
            "training_close": (
                _mean_of("training_close"),
                "share of members less than half as far from the training data as the farthest of the case",
                (),
            ),
            "training_p": (
                _chance_of_memory,
                "chance of so many members near the training data if they are exchangeable with the truth",
                (),
            ),
        }
    return _dataset(results, entries)


def _mean_of(name: str) -> Read:
    def read(tally: Tally, *_: str) -> np.ndarray | None:
        return tally.stacked(name).mean(axis=0) if name in next(iter(tally.by_case.values())) else None

    return read


def _chance_of_twins(tally: Tally, *_: str) -> float:
    found, pairs, degrees = (tally.stacked(name) for name in ("twins", "pairs", "degrees"))
    chances = [chance_of_twins(p, d) for p, d in zip(pairs, degrees, strict=True)]
    least = min((c for c, twins in zip(chances, found, strict=True) if twins), default=1.0)
    return min(1.0, least * max(int((pairs > 0).sum()), 1))


def _chance_of_memory(tally: Tally, *_: str) -> float | None:
    """The truth is among those near the training data as often as any member is: too seldom by chance?"""
    if "training_close" not in next(iter(tally.by_case.values())):
        return None
    close, ours, sizes = (tally.stacked(f"training_{name}") for name in ("close", "truth_close", "size"))
    return chance_of_few(int(ours.sum()), (close * sizes + ours) / (sizes + 1))


def _chance_of_position(tally: Tally, *_: str) -> np.ndarray:
    positions = tally.stacked("extreme_position")
    cases = [len(positions) / persistence(one[:, None]) for one in positions.T]
    return np.array([chance_of_mean(float(m), n) for m, n in zip(positions.mean(axis=0), cases, strict=True)])


def _extremes(results: Results) -> xr.Dataset:
    entries: dict[str, tuple[Read, str, tuple[str, ...]]] = {
        "extreme_truth": (_mean_of("extreme_truth"), "mean over cases of the extreme value of the truth", ("extreme",)),
        "extreme_members": (
            _mean_of("extreme_members"),
            "mean over cases and members of the extreme value of a member",
            ("extreme",),
        ),
        "extreme_position": (
            _mean_of("extreme_position"),
            "mean position of the truth's extreme among the members' (0.5 is right)",
            ("extreme",),
        ),
        "extreme_p": (
            _chance_of_position,
            "chance of such a position",
            ("extreme",),
        ),
    }
    return _dataset(results, entries, extreme=list(EXTREMES))


TIMING = {
    "truth_hits": "share of cases whose truth is nearest to the ensemble mean of the same case",
    "member_hits": "share of cases whose members are nearest to the mean of their fellows of the same case",
    "displacement": "most common number of cases between a truth that misses and the case it is nearest to",
    "displaced_share": "share of the misses that are displaced by that number",
    "correlation": "correlation over cases of the ensemble mean and the truth, in block means",
    "fellow_correlation": "correlation over cases of a member and the mean of its fellows, in block means",
    "p_shuffled": "chance of so few hits of the truth if the cases are in order",
    "p_unrelated": "chance of so small a correlation if the members know of their case",
}


def _timing(results: Results) -> xr.Dataset:
    found: dict[tuple[str, str], Timing | None] = {}

    def read(part: str, tally: Tally, system: str, field: str) -> float | None:
        if (system, field) not in found:
            found[system, field] = _compared(results, tally, system, field)
        one = found[system, field]
        if one is None:
            return None
        return _displacement(one, part) if part.startswith("displace") else float(getattr(one, part))

    return _dataset(results, {f"timing_{part}": (partial(read, part), text, ()) for part, text in TIMING.items()})


def _compared(results: Results, tally: Tally, system: str, field: str) -> Timing | None:
    order = [case for case in results.cases if case in tally.by_case]
    truth, mean, members = (tally.stacked(f"sketch_{kind}", order) for kind in ("truth", "mean", "members"))
    return timing(truth, mean, members, results.panel.members.get(system, 0), results.lengths[field])


def _displacement(found: Timing, part: str) -> float:
    """The commonest displacement of the misses, or its share of them."""
    steps = found.belongs - np.arange(len(found.belongs))
    steps = steps[steps != 0]
    if not len(steps):
        return float("nan")
    values, counts = np.unique(steps, return_counts=True)
    return float(values[counts.argmax()] if part == "displacement" else counts.max() / len(steps))
