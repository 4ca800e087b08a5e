"""Energy and variogram scores by case, pooled CRPS by size of block, and their ratios to the baselines."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import xarray as xr

from sciffusion.evaluation.multivariate import POOLS
from sciffusion.evaluation.results import BOUNDS, Read, Results
from sciffusion.evaluation.tally import Tally

__all__ = ["tables"]

PAIR = ("system", "variable")
TEXTS = {
    "energy_score": "fair energy score of whole fields, per square root of the area",
    "variogram_score": "fair variogram score of order 1/2 at lags of 1, 2 and 4 cells",
}


def tables(results: Results) -> list[xr.Dataset]:
    """Scores that see correlations in space."""
    return [_whole_fields(results), _pooled(results), _intervals(results)]


def _intervals(results: Results) -> xr.Dataset:
    """Of all of them, by resampling cases; whole fields have no regions to resample."""
    ds = xr.Dataset(coords={"bound": BOUNDS, "variable": list(results.fields)})
    reads: dict[str, tuple[Read, tuple[str, ...]]] = {name: (partial(_counted, name), ()) for name in TEXTS}
    for name, (read, own) in (reads | {"pooled_crps": (_pools, ("pool",))}).items():
        shape = (*(len(POOLS) for _ in own), 2)
        plain = results.table(partial(results.of_cases, _mean_of, read), shape)
        ratio = results.table(partial(results.paired, _mean_of, read), shape, results.systems[1:])
        text = f"95 % interval of {name}"
        ds[f"{name}_interval"] = ((*PAIR, *own, "bound"), plain, {"long_name": text})
        ds[f"{name}_ratio_interval"] = (("baseline", "variable", *own, "bound"), ratio, {"long_name": f"{text}_ratio"})
    labels = [results.resampling[field].cases_label for field in results.fields]
    ds["case_interval_method"] = (("variable",), labels, {"long_name": "how intervals of whole fields came about"})
    return ds


def _counted(name: str, tally: Tally) -> dict[str, np.ndarray]:
    value = tally.stacked(name)
    return {"score": np.nan_to_num(value), "weight": 1.0 * np.isfinite(value)}


def _pools(tally: Tally) -> dict[str, np.ndarray]:
    return {"score": tally.stacked("pooled_crps"), "weight": tally.stacked("pooled_weight")}


def _mean_of(s: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(s["score"] / s["weight"])


def _whole_fields(results: Results) -> xr.Dataset:
    ds = xr.Dataset(coords={**results.coords, "case": results.cases, "baseline": results.systems[1:]})
    for name, text in TEXTS.items():
        by_case = results.table(partial(_by_case, results, name), (len(results.cases),))
        mean = _mean(by_case)
        ds[f"{name}_by_case"] = ((*PAIR, "case"), by_case, {"long_name": f"{text}, case by case"})
        ds[name] = (PAIR, mean, {"long_name": text})
        ds[f"{name}_ratio"] = (("baseline", "variable"), _ratio(mean), {"long_name": f"{name}: ensemble over baseline"})
    return ds


def _pooled(results: Results) -> xr.Dataset:
    ds = xr.Dataset(coords={**results.coords, "pool": list(POOLS), "baseline": results.systems[1:]})
    values = results.table(partial(_pool, results), (len(POOLS),))
    text = "CRPS after averaging over blocks of pool cells along each axis"
    ds["pooled_crps"] = ((*PAIR, "pool"), values, {"long_name": text})
    ratio = {"long_name": "pooled CRPS: ensemble over baseline", "units": "1"}
    ds["pooled_crps_ratio"] = (("baseline", "variable", "pool"), _ratio(values), ratio)
    return ds


def _by_case(results: Results, name: str, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    if tally is None:
        return None
    found = dict(zip(tally.cases, tally.stacked(name), strict=True))
    return np.array([found.get(case, np.nan) for case in results.cases])


def _pool(results: Results, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    if tally is None:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(tally.stacked("pooled_crps").sum(axis=0) / tally.stacked("pooled_weight").sum(axis=0))


def _mean(by_case: np.ndarray) -> np.ndarray:
    count = np.isfinite(by_case).sum(axis=-1)
    return np.where(count > 0, np.nansum(by_case, axis=-1) / np.maximum(count, 1), np.nan)


def _ratio(values: np.ndarray) -> np.ndarray:
    """The ensemble, which is first, over every baseline."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(values[:1] / values[1:])
