"""From sums to numbers: one Dataset with every score, its interval, and attributes that say how it was computed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from sciffusion.evaluation import consistency, pointwise
from sciffusion.evaluation.bootstrap import Resampling, block_length
from sciffusion.evaluation.calibration import BinnedSpread
from sciffusion.evaluation.distributions import LEVELS, Distribution, kolmogorov_smirnov, wasserstein
from sciffusion.evaluation.panel import Panel
from sciffusion.evaluation.spectral_results import spectral_scores
from sciffusion.evaluation.tally import Tally

__all__ = ["Results"]

Arrays = Mapping[str, np.ndarray]
BOUNDS = ["lower", "upper"]
NAMES = {
    "crps": "continuous ranked probability score",
    "mae": "mean absolute error of the ensemble mean",
    "rmse": "root mean squared error of the ensemble mean",
    "bias": "mean error of the ensemble mean",
    "spread": "root of the mean ensemble variance",
    "spread_skill": "sqrt((m+1)/m) x spread over RMSE of the mean (1 is calibrated)",
}
DIMENSIONLESS = {"spread_skill"}


@dataclass(frozen=True)
class Results:
    """Reads the tallies of one sample of the cases. ``block`` cases hang together; None: estimated from the scores."""

    panel: Panel
    sample: str
    fields: tuple[str, ...]
    block: int | None = None

    @cached_property
    def systems(self) -> list[str]:
        """Names of the systems, the ensemble first."""
        return list(self.panel.systems)

    def tally(self, system: str, field: str) -> Tally | None:
        """Sums of one system and field, None where it was not scored."""
        return self.panel.tallies.get((self.sample, system, field))

    @cached_property
    def cases(self) -> list[str]:
        """Labels of all cases."""
        found = [t.cases for (sample, _, _), t in self.panel.tallies.items() if sample == self.sample]
        return list(dict.fromkeys(case for cases in found for case in cases))

    def dataset(self) -> xr.Dataset:
        """All scores of the sample."""
        parts = [
            self._headline(),
            self._against_baselines(),
            self._series(),
            self._ranks(),
            self._binned(),
            self._distributions(),
        ]
        parts += [self._consistency(), spectral_scores(self)]
        return xr.merge(parts, combine_attrs="drop_conflicts").assign_attrs(self._attributes())

    @cached_property
    def resampling(self) -> dict[str, Resampling]:
        """The blocks of every field's intervals, from the ensemble's CRPS."""
        return {field: self._resampling(field) for field in self.fields}

    def _resampling(self, field: str) -> Resampling:
        tally = self.tally(self.systems[0], field)
        if tally is None:
            return Resampling(None, "withheld: nothing was scored")
        score, weight = tally.stacked("crps"), tally.stacked("crps_weight")
        used = weight.sum(axis=0) > 0
        length = self.block or block_length((score / np.where(weight > 0, weight, np.inf))[:, used])
        return Resampling.plan(len(score), used, length)

    def _sums(self, system: str, field: str) -> dict[str, np.ndarray] | None:
        tally = self.tally(system, field)
        if tally is None:
            return None
        names = next(iter(tally.by_case.values()))
        return {name: tally.stacked(name) for name in names if not name.startswith("bins_")}

    def table(
        self,
        value: Callable[[str, str], np.ndarray | float | None],
        shape: tuple[int, ...] = (),
        systems: Sequence[str] = (),
    ) -> np.ndarray:
        """An array (system, field, *shape) of ``value(system, field)``, NaN where that is None."""
        rows = systems or self.systems
        filled = np.full((len(rows), len(self.fields), *shape), np.nan)
        for i, system in enumerate(rows):
            for j, field in enumerate(self.fields):
                answer = value(system, field)
                if answer is not None:
                    filled[i, j] = answer
        return filled

    def _headline(self) -> xr.Dataset:
        ds = xr.Dataset(coords={"system": self.systems, "variable": list(self.fields), "bound": BOUNDS})
        for name, metric in pointwise.METRICS.items():
            units = {"units": "1"} if name in DIMENSIONLESS else {"units": "as the variable, see units"}
            attributes = {"long_name": NAMES[name], **units}
            ds[name] = (("system", "variable"), self.table(lambda s, f, m=metric: self._value(m, s, f)), attributes)
            interval = self.table(lambda s, f, m=metric: self._interval(m, s, f), (2,))
            ds[f"{name}_interval"] = (
                ("system", "variable", "bound"),
                interval,
                {"long_name": f"95 % interval of {name}", **units},
            )
        ds["coverage"] = (
            ("system", "variable"),
            self.table(self._coverage),
            {"long_name": "share of the domain's area that was scored"},
        )
        ds["truth_sd"] = (
            ("variable",),
            self.table(self._truth_sd, systems=self.systems[:1])[0],
            {"long_name": "standard deviation of the truth"},
        )
        ds["interval_method"] = (("variable",), [self.resampling[field].label for field in self.fields])
        ds["members"] = (("system",), [self.panel.members.get(system, 0) for system in self.systems])
        return ds

    def _value(self, metric: pointwise.Metric, system: str, field: str) -> float | None:
        sums = self._sums(system, field)
        if sums is None:
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(metric({name: np.asarray(value.sum()) for name, value in sums.items()}))

    def _interval(self, metric: pointwise.Metric, system: str, field: str) -> np.ndarray | None:
        sums = self._sums(system, field)
        scalars = {n: v for n, v in (sums or {}).items() if v.ndim == 2}
        return self.resampling[field].interval(metric, scalars) if sums else None

    def _coverage(self, system: str, field: str) -> float | None:
        sums = self._sums(system, field)
        return (
            None
            if sums is None
            else float(sums["weight"].sum() / (self.panel.domain.weights.sum() * len(sums["weight"])))
        )

    def _truth_sd(self, system: str, field: str) -> float | None:
        sums = self._sums(system, field)
        if sums is None:
            return None
        weight = sums["weight"].sum()
        return float(np.sqrt(max(sums["squared_truth"].sum() / weight - (sums["truth"].sum() / weight) ** 2, 0)))

    def _against_baselines(self) -> xr.Dataset:
        """CRPS of the ensemble over that of every baseline, resampled in pairs."""
        ours, rest = self.systems[0], self.systems[1:]
        ratio = (
            self.table(lambda s, f: self._ratio(ours, s, f, interval=False), systems=rest)
            if rest
            else np.zeros((0, len(self.fields)))
        )
        bounds = (
            self.table(lambda s, f: self._ratio(ours, s, f, interval=True), (2,), rest)
            if rest
            else np.zeros((0, len(self.fields), 2))
        )
        text = "CRPS of the ensemble over CRPS of the baseline (below 1: the ensemble is better)"
        return xr.Dataset(
            {
                "crps_ratio": (("baseline", "variable"), ratio, {"long_name": text, "units": "1"}),
                "crps_ratio_interval": (
                    ("baseline", "variable", "bound"),
                    bounds,
                    {"long_name": "95 % interval of crps_ratio, paired"},
                ),
                "crps_skill": (("baseline", "variable"), 1 - ratio, {"long_name": "1 - crps_ratio", "units": "1"}),
            },
            coords={"baseline": rest, "variable": list(self.fields), "bound": BOUNDS},
        )

    def _ratio(self, ours: str, other: str, field: str, *, interval: bool) -> np.ndarray | float | None:
        sums = [self._sums(system, field) for system in (ours, other)]
        if sums[0] is None or sums[1] is None:
            return None
        names = ("crps", "crps_weight")
        pair = {f"{name}{i}": one[name] for i, one in enumerate(sums) if one for name in names}
        metric = _crps_ratio
        return (
            self.resampling[field].interval(metric, pair)
            if interval
            else float(metric({n: v.sum() for n, v in pair.items()}))
        )

    def _series(self) -> xr.Dataset:
        """Scores case by case and region by region."""
        regions = list(self.panel.domain.region_names)
        ds = xr.Dataset(
            coords={"system": self.systems, "variable": list(self.fields), "case": self.cases, "region": regions}
        )
        for name in ("crps", "rmse", "spread_skill"):
            metric = pointwise.METRICS[name]
            by_case = self.table(lambda s, f, m=metric: self._along(m, s, f, 1), (len(self.cases),))
            by_region = self.table(lambda s, f, m=metric: self._along(m, s, f, 0), (len(regions),))
            ds[f"{name}_by_case"] = (
                ("system", "variable", "case"),
                by_case,
                {"long_name": f"{NAMES[name]}, case by case"},
            )
            ds[f"{name}_by_region"] = (
                ("system", "variable", "region"),
                by_region,
                {"long_name": f"{NAMES[name]}, by region"},
            )
        return ds

    def _along(self, metric: pointwise.Metric, system: str, field: str, axis: int) -> np.ndarray | None:
        tally, sums = self.tally(system, field), self._sums(system, field)
        if tally is None or sums is None:
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            values = metric({name: value.sum(axis=axis) for name, value in sums.items() if value.ndim == 2})
        if axis == 0:
            return values
        return np.array([dict(zip(tally.cases, values, strict=True)).get(case, np.nan) for case in self.cases])

    def _ranks(self) -> xr.Dataset:
        bins = max(
            (len(s["ranks"][0]) for k in self.panel.systems for f in self.fields if (s := self._sums(k, f))), default=1
        )
        ds = xr.Dataset(coords={"system": self.systems, "variable": list(self.fields), "rank": np.arange(bins)})
        text = "share of the truth in each rank over that of a flat histogram"
        ds["rank_histogram"] = (
            ("system", "variable", "rank"),
            self.table(lambda s, f: self._histogram(s, f, bins), (bins,)),
            {"long_name": text},
        )
        return ds

    def _histogram(self, system: str, field: str, size: int) -> np.ndarray | None:
        sums = self._sums(system, field)
        if sums is None:
            return None
        counts = sums["ranks"].sum(axis=(0, 2))
        flat = counts / counts.sum() * len(counts)
        return np.concatenate([flat, np.full(size - len(counts), np.nan)])

    def _binned(self, bins: int = 12) -> xr.Dataset:
        curve = self.table(
            lambda s, f: None if (t := self.tally(s, f)) is None else np.stack(BinnedSpread.curve(t, bins)), (2, bins)
        )
        dims = ("system", "variable", "spread_bin")
        return xr.Dataset(
            {
                "spread_in_bin": (
                    dims,
                    curve[:, :, 0],
                    {"long_name": "sqrt((m+1)/m) x ensemble spread, in bins of equal area"},
                ),
                "rmse_in_bin": (dims, curve[:, :, 1], {"long_name": "RMSE of the ensemble mean in the same bins"}),
            },
            coords={"system": self.systems, "variable": list(self.fields)},
        )

    def _distributions(self) -> xr.Dataset:
        coords = {"system": self.systems, "variable": list(self.fields), "level": LEVELS}
        ds = xr.Dataset(coords=coords)
        by_level = {
            kind: self.table(lambda s, f, k=kind: self._quantiles(s, f, k), (len(LEVELS),))
            for kind in ("members", "truth")
        }
        ds["quantile_members"] = (
            ("system", "variable", "level"),
            by_level["members"],
            {"long_name": "area-weighted quantiles of all members"},
        )
        ds["quantile_truth"] = (
            ("variable", "level"),
            by_level["truth"][0],
            {"long_name": "area-weighted quantiles of the truth"},
        )
        for name, distance in (("wasserstein", self._wasserstein), ("kolmogorov_smirnov", self._kolmogorov)):
            ds[name] = (
                ("system", "variable"),
                self.table(distance),
                {"long_name": f"{name} distance between the distributions of members and truth"},
            )
        return xr.merge([ds, self._densities()])

    def _distribution(self, field: str) -> Distribution:
        return Distribution(self.panel.domain.weights, *self.panel.scales.get(field, (0.0, 1.0)))

    def _quantiles(self, system: str, field: str, kind: str) -> np.ndarray | None:
        tally = self.tally(system, field)
        return None if tally is None else self._distribution(field).quantiles(tally.total[f"values_{kind}"])

    def _wasserstein(self, system: str, field: str) -> float | None:
        tally = self.tally(system, field)
        if tally is None:
            return None
        return wasserstein(tally.total["values_members"], tally.total["values_truth"], self._distribution(field).edges)

    def _kolmogorov(self, system: str, field: str) -> float | None:
        tally = self.tally(system, field)
        return None if tally is None else kolmogorov_smirnov(tally.total["values_members"], tally.total["values_truth"])

    def _densities(self, most: int = 80) -> xr.Dataset:
        members = np.full((len(self.systems), len(self.fields), most), np.nan)
        truth, low, high = (np.full((len(self.fields), most), np.nan) for _ in range(3))
        for j, field in enumerate(self.fields):
            found = {s: t for s in self.systems if (t := self.tally(s, field)) is not None}
            shape = self._distribution(field)
            everything = sum(t.total["values_members"] + t.total["values_truth"] for t in found.values())
            classes = shape.classes(np.asarray(everything), most)
            size = len(classes) - 1
            low[j, :size], high[j, :size] = shape.edges[classes[:-1]], shape.edges[classes[1:]]
            for system, tally in found.items():
                members[self.systems.index(system), j, :size] = shape.density(tally.total["values_members"], classes)
                truth[j, :size] = shape.density(tally.total["values_truth"], classes)
        ds = xr.Dataset(
            {
                "density_members": (
                    ("system", "variable", "class"),
                    members,
                    {"long_name": "probability density of members"},
                )
            }
        )
        ds["density_truth"] = (("variable", "class"), truth, {"long_name": "probability density of the truth"})
        ds["class_low"], ds["class_high"] = (("variable", "class"), low), (("variable", "class"), high)
        return ds.assign_coords(system=self.systems, variable=list(self.fields))

    def _consistency(self) -> xr.Dataset:
        ds = xr.Dataset(coords={"system": self.systems, "variable": list(self.fields)})
        for name, (metric, text) in consistency.METRICS.items():
            ds[name] = (
                ("system", "variable"),
                self.table(lambda s, f, m=metric: self._coarse(m, s, f)),
                {"long_name": text, "units": "1"},
            )
        return ds

    def _coarse(self, metric: Callable[[Arrays], np.ndarray], system: str, field: str) -> float | None:
        tally = self.tally(system, field)
        if tally is None or "coarse_weight" not in tally.total:
            return None
        return float(metric({**tally.total, **tally.maximum}))

    def _attributes(self) -> dict[str, str | int]:
        domain = self.panel.domain
        return {
            "sample": self.sample,
            "estimator": f"{self.panel.estimator} CRPS; absolute error for systems of one member",
            "members": self.panel.members.get(self.systems[0], 0),
            "cases": len(self.cases),
            "weights": "cell area",
            "spectral_window": domain.basis.window,
            "wavenumber_units": domain.basis.units,
        }


def _crps_ratio(s: Arrays) -> np.ndarray:
    return np.asarray(s["crps0"] / s["crps_weight0"] / (s["crps1"] / s["crps_weight1"]))
