"""From sums to numbers: one Dataset with every score, its interval, and attributes that say how it was computed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module

import numpy as np
import xarray as xr

from sciffusion.evaluation.bootstrap import Resampling, block_length
from sciffusion.evaluation.panel import Panel
from sciffusion.evaluation.tally import Tally

__all__ = ["BOUNDS", "Metric", "Read", "Results"]

BOUNDS = ["lower", "upper"]
BRIEF = ("headline", "tail_results", "spectral_results", "dependence_results")  # what a verdict is made of
TABLES = (
    *BRIEF,
    *("distribution_results", "multivariate_results"),
    *("increment_results", "occurrence_results", "relation_results", "extent_results", "return_results"),
)
Metric = Callable[[Mapping[str, np.ndarray]], np.ndarray]
Cell = Callable[[str, str], np.ndarray | float | None]
Read = Callable[[Tally], dict[str, np.ndarray]]


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

    @cached_property
    def cases(self) -> list[str]:
        """Labels of all cases."""
        found = [t.cases for (sample, _, _), t in self.panel.tallies.items() if sample == self.sample]
        return list(dict.fromkeys(case for cases in found for case in cases))

    @cached_property
    def coords(self) -> dict[str, list[str]]:
        """Coordinates that most tables share."""
        return {"system": self.systems, "variable": list(self.fields)}

    @cached_property
    def lengths(self) -> dict[str, int]:
        """How many consecutive cases hang together, for every field, by the ensemble's CRPS."""
        return {field: self.block or self._length(field) for field in self.fields}

    @cached_property
    def resampling(self) -> dict[str, Resampling]:
        """The blocks of every field's intervals, from the ensemble's CRPS."""
        return {field: self._resampling(field) for field in self.fields}

    def dataset(self) -> xr.Dataset:
        """All scores of the sample, or those that its verdict is made of."""
        names = BRIEF if self.panel.brief else TABLES
        parts = [table for name in names for table in import_module(f"sciffusion.evaluation.{name}").tables(self)]
        merged: xr.Dataset = xr.merge(parts, combine_attrs="drop_conflicts")
        return merged.assign_attrs(self._attributes())

    def tally(self, system: str, field: str) -> Tally | None:
        """Sums of one system and field, None where it was not scored."""
        return self.panel.tallies.get((self.sample, system, field))

    def table(self, value: Cell, shape: tuple[int, ...] = (), systems: Sequence[str] | None = None) -> np.ndarray:
        """An array (system, field, *shape) of ``value(system, field)``, NaN where that is None or ends earlier."""
        rows = self.systems if systems is None else systems
        filled = np.full((len(rows), len(self.fields), *shape), np.nan)
        for i, system in enumerate(rows):
            for j, field in enumerate(self.fields):
                answer = value(system, field)
                if answer is not None:
                    filled[i, j, ...][tuple(slice(size) for size in np.shape(answer))] = answer
        return filled

    def sums(self, system: str, field: str) -> dict[str, np.ndarray] | None:
        """The sums (case, region) of one system and field."""
        tally = self.tally(system, field)
        if tally is None:
            return None
        names = next(iter(tally.by_case.values()))
        return {name: tally.stacked(name) for name, value in names.items() if value.shape == self._regions}

    def value(self, metric: Metric, system: str, field: str) -> float | None:
        """A metric of all cases and regions together."""
        sums = self.sums(system, field)
        if sums is None:
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(metric({name: np.asarray(value.sum()) for name, value in sums.items()}))

    def interval(self, metric: Metric, system: str, field: str) -> np.ndarray | None:
        """Its interval (2,), NaN when withheld."""
        sums = self.sums(system, field)
        return None if sums is None else self.resampling[field].interval(metric, sums)

    def of_all(self, metric: Metric, read: Read, system: str, field: str) -> np.ndarray | None:
        """A metric (*own) of all cases together, of sums per case (case, *own)."""
        tally = self.tally(system, field)
        if tally is None:
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            return metric({name: value.sum(axis=0) for name, value in read(tally).items()})

    def of_cases(self, metric: Metric, read: Read, system: str, field: str) -> np.ndarray | None:
        """Interval (*own, 2) of a metric of sums per case (case, *own), None when cases cannot be resampled."""
        tally = self.tally(system, field)
        return None if tally is None else self.resampling[field].of_cases(metric, read(tally))

    def paired(self, metric: Metric, read: Read, system: str, field: str) -> np.ndarray | None:
        """The same of the ratio of the ensemble's metric over that of ``system``, resampled together."""
        ours, theirs = self.tally(self.systems[0], field), self.tally(system, field)
        if ours is None or theirs is None:
            return None
        sums = {f"ours {n}": v for n, v in read(ours).items()} | {f"theirs {n}": v for n, v in read(theirs).items()}
        return self.resampling[field].of_cases(partial(_ratio, metric), sums)

    @property
    def _regions(self) -> tuple[int, ...]:
        return (len(self.panel.domain.region_names),)

    def _resampling(self, field: str) -> Resampling:
        sums = self.sums(self.systems[0], field)
        if sums is None:
            return Resampling(None, "withheld: nothing was scored")
        weight = sums["crps_weight"]
        return Resampling.plan(len(weight), weight.sum(axis=0) > 0, self.lengths[field])

    def _length(self, field: str) -> int:
        sums = self.sums(self.systems[0], field)
        if sums is None:
            return 1
        weight = sums["crps_weight"]
        score = sums["crps"] / np.where(weight > 0, weight, np.inf)
        return block_length(score[:, weight.sum(axis=0) > 0])

    def _attributes(self) -> dict[str, str | int]:
        basis = self.panel.domain.basis
        return {
            "sample": self.sample,
            "estimator": f"{self.panel.estimator} CRPS; absolute error for systems of one member",
            "members": self.panel.members.get(self.systems[0], 0),
            "cases": len(self.cases),
            "extent": "brief: what the verdict is made of" if self.panel.brief else "everything",
            "weights": "cell area",
            "spectral_window": basis.window,
            "wavenumber_units": basis.units,
        }


def _ratio(metric: Metric, sums: Mapping[str, np.ndarray]) -> np.ndarray:
    ours, theirs = (
        metric({name.removeprefix(who): value for name, value in sums.items() if name.startswith(who)})
        for who in ("ours ", "theirs ")
    )
    return np.asarray(ours / theirs)
