"""The numbers that one looks at first: scores with intervals, ratios to baselines, by case and by region."""

from functools import partial

import numpy as np
import xarray as xr

from sciffusion.evaluation import consistency, pointwise
from sciffusion.evaluation.results import BOUNDS, Metric, Results
from sciffusion.evaluation.tally import Tally

__all__ = ["NAMES", "tables"]

NAMES = {
    "crps": "continuous ranked probability score",
    "mae": "mean absolute error of the ensemble mean",
    "rmse": "root mean squared error of the ensemble mean",
    "bias": "mean error of the ensemble mean",
    "spread": "root of the mean ensemble variance",
    "spread_skill": "sqrt((m+1)/m) x spread over RMSE of the mean (1 is calibrated)",
}
DIMENSIONLESS = {"spread_skill"}
EXTREME = {"coarse_largest"}  # the largest of all has no interval by resampling
SERIES = ("crps", "mae", "rmse", "spread_skill")
PAIR = ("system", "variable")


def tables(results: Results) -> list[xr.Dataset]:
    """Scores, ratios, series and coarse consistency."""
    return [_scores(results), _facts(results), _ratios(results), _series(results), _consistency(results)]


def _scores(results: Results) -> xr.Dataset:
    ds = xr.Dataset(coords={**results.coords, "bound": BOUNDS})
    for name, metric in pointwise.METRICS.items():
        units = {"units": "1" if name in DIMENSIONLESS else "as the variable, see units"}
        bounds = results.table(partial(results.interval, metric), (2,))
        ds[name] = (PAIR, results.table(partial(results.value, metric)), {"long_name": NAMES[name], **units})
        ds[f"{name}_interval"] = ((*PAIR, "bound"), bounds, {"long_name": f"95 % interval of {name}", **units})
    return ds


def _facts(results: Results) -> xr.Dataset:
    ds = xr.Dataset(coords=dict(results.coords))
    area = results.panel.domain.weights.sum()
    coverage = results.table(partial(results.value, _weight)) / (area * max(len(results.cases), 1))
    ds["coverage"] = (PAIR, coverage, {"long_name": "share of the area that was scored", "units": "1"})
    spread = results.table(partial(results.value, _truth_sd), systems=results.systems[:1])[0]
    ds["truth_sd"] = (("variable",), spread, {"long_name": "standard deviation of the truth"})
    cells = [_cells(results, field) for field in results.fields]
    ds["cells"] = (("variable",), cells, {"long_name": "number of cells scored, all cases together"})
    ds["interval_method"] = (("variable",), [results.resampling[field].label for field in results.fields])
    ds["members"] = (("system",), [results.panel.members.get(system, 0) for system in results.systems])
    return ds


def _cells(results: Results, field: str) -> int:
    tally = results.tally(results.systems[0], field)
    return 0 if tally is None else int(tally.total["map_count"].sum())


def _weight(s: pointwise.Named) -> np.ndarray:
    return s["weight"]


def _truth_sd(s: pointwise.Named) -> np.ndarray:
    mean = s["truth"] / s["weight"]
    return np.asarray(np.sqrt(np.maximum(s["squared_truth"] / s["weight"] - mean**2, 0)))


def _ratios(results: Results) -> xr.Dataset:
    """CRPS of the ensemble over that of every baseline, resampled in pairs."""
    rest, dims = results.systems[1:], ("baseline", "variable")
    ratio = results.table(partial(_ratio, results), systems=rest)
    bounds = results.table(partial(_ratio_interval, results), (2,), rest)
    text = "CRPS of the ensemble over CRPS of the baseline (below 1: the ensemble is better)"
    return xr.Dataset(
        {
            "crps_ratio": (dims, ratio, {"long_name": text, "units": "1"}),
            "crps_ratio_interval": ((*dims, "bound"), bounds, {"long_name": "95 % interval of crps_ratio, paired"}),
            "crps_skill": (dims, 1 - ratio, {"long_name": "1 - crps_ratio", "units": "1"}),
            "crps_skill_interval": (
                (*dims, "bound"),
                1 - bounds[..., ::-1],
                {"long_name": "95 % interval of crps_skill"},
            ),
        },
        coords={"baseline": rest, "variable": list(results.fields), "bound": BOUNDS},
    )


def _paired(results: Results, other: str, field: str) -> dict[str, np.ndarray] | None:
    """CRPS sums of the ensemble (``ours``) and of a baseline (``theirs``)."""
    ours, theirs = results.sums(results.systems[0], field), results.sums(other, field)
    if ours is None or theirs is None:
        return None
    pairs = {"ours": ours, "theirs": theirs}
    return {f"{whose}_{name}": sums[name] for whose, sums in pairs.items() for name in ("crps", "crps_weight")}


def _ratio_of(s: pointwise.Named) -> np.ndarray:
    return np.asarray(s["ours_crps"] / s["ours_crps_weight"] / (s["theirs_crps"] / s["theirs_crps_weight"]))


def _ratio(results: Results, other: str, field: str) -> float | None:
    sums = _paired(results, other, field)
    if sums is None:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(_ratio_of({name: np.asarray(value.sum()) for name, value in sums.items()}))


def _ratio_interval(results: Results, other: str, field: str) -> np.ndarray | None:
    sums = _paired(results, other, field)
    return None if sums is None else results.resampling[field].interval(_ratio_of, sums)


def _series(results: Results) -> xr.Dataset:
    """Scores case by case and region by region."""
    regions = list(results.panel.domain.region_names)
    ds = xr.Dataset(coords={**results.coords, "case": results.cases, "region": regions})
    for name in SERIES:
        metric = pointwise.METRICS[name]
        by_case = results.table(partial(_along_cases, results, metric), (len(results.cases),))
        by_region = results.table(partial(_along_regions, results, metric), (len(regions),))
        ds[f"{name}_by_case"] = ((*PAIR, "case"), by_case, {"long_name": f"{NAMES[name]}, case by case"})
        ds[f"{name}_by_region"] = ((*PAIR, "region"), by_region, {"long_name": f"{NAMES[name]}, by region"})
        ends = results.table(partial(_region_interval, results, metric), (len(regions), 2))
        text = {"long_name": f"95 % interval of {name}_by_region, by resampling cases"}
        ds[f"{name}_by_region_interval"] = ((*PAIR, "region", "bound"), ends, text)
    return ds


def _along(metric: Metric, sums: pointwise.Named, axis: int) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return metric({name: value.sum(axis=axis) for name, value in sums.items()})


def _region_interval(results: Results, metric: Metric, system: str, field: str) -> np.ndarray | None:
    sums = results.sums(system, field)
    return None if sums is None else results.resampling[field].of_cases(metric, sums)


def _along_regions(results: Results, metric: Metric, system: str, field: str) -> np.ndarray | None:
    sums = results.sums(system, field)
    return None if sums is None else _along(metric, sums, 0)


def _along_cases(results: Results, metric: Metric, system: str, field: str) -> np.ndarray | None:
    tally, sums = results.tally(system, field), results.sums(system, field)
    if tally is None or sums is None:
        return None
    found = dict(zip(tally.cases, _along(metric, sums, 1), strict=True))
    return np.array([found.get(case, np.nan) for case in results.cases])


def _consistency(results: Results) -> xr.Dataset:
    ds = xr.Dataset(coords=dict(results.coords))
    for name, (metric, text) in consistency.METRICS.items():
        ds[name] = (PAIR, results.table(partial(_coarse, results, metric)), {"long_name": text, "units": "1"})
        if name in EXTREME:
            continue
        ends = results.table(partial(_coarse_interval, results, metric), (2,))
        ds[f"{name}_interval"] = ((*PAIR, "bound"), ends, {"long_name": f"95 % interval of {name}", "units": "1"})
    return ds.assign_coords(bound=BOUNDS)


def _coarse(results: Results, metric: Metric, system: str, field: str) -> float | None:
    tally = results.tally(system, field)
    sums = {} if tally is None else _coarse_sums(tally)
    if tally is None or not sums:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(metric({**{name: value.sum(axis=0) for name, value in sums.items()}, **tally.maximum}))


def _coarse_interval(results: Results, metric: Metric, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    if tally is None or not _coarse_sums(tally):
        return None
    return results.of_cases(metric, _coarse_sums, system, field)


def _coarse_sums(tally: Tally) -> dict[str, np.ndarray]:
    """Sums (case,); none when there was no coarse input."""
    known = next(iter(tally.by_case.values()), {})
    return {name: tally.stacked(name) for name in consistency.SUMS if name in known}
