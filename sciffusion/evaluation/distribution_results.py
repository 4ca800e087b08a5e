"""Ranks, spread against error, densities, quantiles: how values are distributed."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import xarray as xr

from sciffusion.evaluation.bootstrap import bounds
from sciffusion.evaluation.calibration import SPREAD_SUMS, curves
from sciffusion.evaluation.distributions import LEVELS, WIDER, Distribution, kolmogorov_smirnov, wasserstein
from sciffusion.evaluation.panel import Marks
from sciffusion.evaluation.ranks import flatness
from sciffusion.evaluation.results import BOUNDS, Metric, Read, Results
from sciffusion.evaluation.tally import Tally

__all__ = ["tables"]

PAIR = ("system", "variable")
SPREAD_BINS = 12
RANK_TESTS = ("flat", "slope", "curvature")
CLASSES = 80
RANKS = "rank_histogram_ranks"
Of = Callable[[Metric, Read, str, str], np.ndarray | None]  # Results.of_all or Results.of_cases


def tables(results: Results) -> list[xr.Dataset]:
    """Rank histogram, spread bins, quantiles, distances and densities."""
    return [
        _ranks(results),
        _binned(results),
        _quantiles(results),
        _distances(results),
        _densities(results),
    ]


def _ranks(results: Results) -> xr.Dataset:
    tallies = [t for (sample, _, _), t in results.panel.tallies.items() if sample == results.sample]
    bins = max(len(next(iter(t.by_case.values()))[RANKS]) for t in tallies)
    ds = xr.Dataset(coords={**results.coords, "rank": np.arange(bins)})
    text = "share of the truth in each rank over that of a flat histogram"
    values = results.table(partial(_histogram, results), (bins,))
    ds["rank_histogram"] = ((*PAIR, "rank"), values, {"long_name": text, "units": "1"})
    ends = results.table(partial(_histogram_interval, results), (bins, 2))
    ds["rank_histogram_interval"] = ((*PAIR, "rank", "bound"), ends, {"long_name": "95 % interval of rank_histogram"})
    chance = results.table(partial(_flatness, results), (len(RANK_TESTS),))
    text = "chance of such a departure from a flat histogram: any, a slope (bias), a curvature (spread)"
    ds["rank_chance"] = ((*PAIR, "rank_test"), chance, {"long_name": text, "units": "1"})
    return ds.assign_coords(bound=BOUNDS, rank_test=list(RANK_TESTS))


def _histogram(results: Results, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    if tally is None:
        return None
    return _relative(tally.stacked(RANKS).sum(axis=(0, 2)))


def _relative(counts: np.ndarray) -> np.ndarray:
    """Counts (..., rank) over those of a flat histogram."""
    return np.asarray(counts / counts.mean(axis=-1, keepdims=True))


def _drawn_ranks(results: Results, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    drawn = None if tally is None else results.resampling[field].drawn(tally.stacked(RANKS))
    return None if drawn is None else _relative(drawn)


def _histogram_interval(results: Results, system: str, field: str) -> np.ndarray | None:
    drawn = _drawn_ranks(results, system, field)
    return None if drawn is None else bounds(drawn)


def _flatness(results: Results, system: str, field: str) -> np.ndarray | None:
    tally, drawn = results.tally(system, field), _drawn_ranks(results, system, field)
    if tally is None or drawn is None:
        return None
    chance = flatness(_relative(tally.stacked(RANKS).sum(axis=(0, 2))), drawn)
    return np.array([chance[name] for name in RANK_TESTS])


def _binned(results: Results) -> xr.Dataset:
    curves = results.table(partial(_curve, results), (2, SPREAD_BINS))
    spread, error = "sqrt((m+1)/m) x ensemble spread, in bins of equal area", "RMSE of the mean in the same bins"
    ds = xr.Dataset(coords=dict(results.coords))
    ds["spread_in_bin"] = ((*PAIR, "spread_bin"), curves[:, :, 0], {"long_name": spread})
    ds["rmse_in_bin"] = ((*PAIR, "spread_bin"), curves[:, :, 1], {"long_name": error})
    ends = results.table(partial(results.of_cases, _classes, _spread_sums), (SPREAD_BINS, 2, 2))
    for i, name in enumerate(("spread_in_bin", "rmse_in_bin")):
        text = f"95 % interval of {name}, by resampling cases"
        ds[f"{name}_interval"] = ((*PAIR, "spread_bin", "bound"), ends[..., i, :], {"long_name": text})
    return ds.assign_coords(bound=BOUNDS)


def _curve(results: Results, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    return None if tally is None else _classes({n: s.sum(axis=0) for n, s in _spread_sums(tally).items()}).T


def _spread_sums(tally: Tally) -> dict[str, np.ndarray]:
    return {name: tally.stacked(name) for name in SPREAD_SUMS}


def _classes(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    return curves(sums, SPREAD_BINS)


def _distribution(results: Results, field: str) -> Distribution:
    marks = results.panel.marks.get(field, Marks(0.0, 1.0, ()))
    return Distribution(results.panel.domain.weights, marks.centre, marks.scale)


def _quantiles(results: Results) -> xr.Dataset:
    ds = xr.Dataset(coords={**results.coords, "level": LEVELS, "bound": BOUNDS})
    members, truth = (
        results.table(partial(_quantiles_of, results, kind), (len(LEVELS),)) for kind in ("members", "truth")
    )
    ds["quantile_members"] = ((*PAIR, "level"), members, {"long_name": "area-weighted quantiles of all members"})
    ds["quantile_truth"] = (("variable", "level"), truth[0], {"long_name": "area-weighted quantiles of the truth"})
    ends = results.table(partial(_shifted, results, "quantile_difference"), (len(LEVELS), 2))
    ds["quantile_difference"] = ((*PAIR, "level"), members - truth, {"long_name": "members minus truth"})
    words = {"long_name": "95 % interval of quantile_difference, by resampling cases"}
    ds["quantile_difference_interval"] = ((*PAIR, "level", "bound"), ends, words)
    return ds


def _quantiles_of(results: Results, kind: str, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    return None if tally is None else _distribution(results, field).quantiles(tally.total[f"values_{kind}"])


def _distances(results: Results) -> xr.Dataset:
    ds = xr.Dataset(coords={**results.coords, "bound": BOUNDS})
    for name, text in (("wasserstein", "Wasserstein-1"), ("kolmogorov_smirnov", "Kolmogorov-Smirnov")):
        values = results.table(partial(_value, results, name))
        ds[name] = (PAIR, values, {"long_name": f"{text} distance between the distributions of members and truth"})
        ends = results.table(partial(_shifted, results, name), (2,))
        words = {"long_name": f"95 % interval of {name}, by resampling cases"}
        ds[f"{name}_interval"] = ((*PAIR, "bound"), ends, words)
    return ds


Between = Callable[[Distribution, np.ndarray, np.ndarray], np.ndarray]  # of counts (bin,) of members and of the truth
COMPARED: dict[str, Between] = {
    "quantile_difference": lambda form, members, truth: form.quantiles(members) - form.quantiles(truth),
    "wasserstein": lambda form, members, truth: wasserstein(members, truth, form.edges_of(len(members))),
    "kolmogorov_smirnov": lambda form, members, truth: kolmogorov_smirnov(members, truth),
}


def _value(results: Results, name: str, system: str, field: str) -> np.ndarray | None:
    tally = results.tally(system, field)
    if tally is None:
        return None
    return COMPARED[name](_distribution(results, field), tally.total["values_members"], tally.total["values_truth"])


def _shifted(results: Results, name: str, system: str, field: str) -> np.ndarray | None:
    """The interval in wider bins, moved by what they change in the value itself."""
    metric = partial(_each, COMPARED[name], _distribution(results, field))
    ends, wide = (of(metric, _wide, system, field) for of in (results.of_cases, results.of_all))
    fine = _value(results, name, system, field)
    return None if ends is None or wide is None or fine is None else ends + (fine - wide)[..., None]


def _each(between: Between, form: Distribution, s: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of counts (bin,) or (resample, bin)."""
    if s["members"].ndim == 1:
        return between(form, s["members"], s["truth"])
    return np.stack([between(form, *pair) for pair in zip(s["members"], s["truth"], strict=True)])


def _wide(tally: Tally) -> dict[str, np.ndarray]:
    return {who: tally.stacked(f"wide_values_{who}") for who in ("members", "truth")}


def _densities(results: Results) -> xr.Dataset:
    """In classes of the wider bins, the same for all systems."""
    ds = xr.Dataset(coords={**results.coords, "bound": BOUNDS})
    values = results.table(partial(_density, results, results.of_all), (2, CLASSES))
    ends = results.table(partial(_density, results, results.of_cases), (2, CLASSES, 2))
    for name, dims, own in (
        ("members", PAIR, (slice(None), slice(None), 0)),
        ("truth", PAIR[1:], (0, slice(None), 1)),
    ):
        ds[f"density_{name}"] = ((*dims, "class"), values[own], {"long_name": f"probability density of the {name}"})
        words = {"long_name": f"95 % interval of density_{name}, by resampling cases"}
        ds[f"density_{name}_interval"] = ((*dims, "class", "bound"), ends[own], words)
    edges = results.table(partial(_class_edges, results), (2, CLASSES), results.systems[:1])[0]
    return ds.assign({f"class_{end}": (("variable", "class"), edges[:, i]) for i, end in enumerate(("low", "high"))})


def _density(results: Results, of: Of, system: str, field: str) -> np.ndarray | None:
    """Of members and truth, (2, class) or (2, class, bound)."""
    if results.tally(system, field) is None:
        return None
    form, classes = _distribution(results, field), _value_classes(results, field)
    return of(lambda s: form.density(np.stack([s["members"], s["truth"]], -2), classes), _wide, system, field)


def _value_classes(results: Results, field: str) -> np.ndarray:
    """Indices of the edges of wider bins, (class + 1,): they hold the values of every system."""
    found = [tally.total for name in results.systems if (tally := results.tally(name, field)) is not None]
    counts = np.sum([total["values_members"] + total["values_truth"] for total in found], axis=0)
    return _distribution(results, field).classes(counts.reshape(-1, WIDER).sum(axis=1), CLASSES)


def _class_edges(results: Results, system: str, field: str) -> np.ndarray | None:
    """Lower and upper edges, (2, class)."""
    if results.tally(system, field) is None:
        return None
    edges = _distribution(results, field).edges[WIDER * _value_classes(results, field)]
    return np.stack([edges[:-1], edges[1:]])
