"""The only state of a score: named sums that add up over cases, in any order and from any number of processes.

A score measures one case at a time and returns ``Sums``. Some sums are kept per case (for intervals and for series in
time), others only in total (histograms, maps), and extremes merge by their maximum. Merging two tallies gives exactly
the tally of all their cases, so work can be split, saved, resumed and joined.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sciffusion.errors import SciffusionError

__all__ = ["Sums", "Tally"]

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sums:
    """What one case adds: float64 arrays by name. The same name has the same shape in every case."""

    by_case: Arrays = field(default_factory=dict)
    total: Arrays = field(default_factory=dict)
    maximum: Arrays = field(default_factory=dict)


@dataclass
class Tally:
    """Sums of the cases seen so far, keyed by the label of the case."""

    by_case: dict[str, Arrays] = field(default_factory=dict)
    total: Arrays = field(default_factory=dict)
    maximum: Arrays = field(default_factory=dict)

    @property
    def cases(self) -> list[str]:
        """Labels of the cases, in the order in which they came."""
        return list(self.by_case)

    def update(self, case: str, sums: Sums) -> None:
        """Add one case. Raises SciffusionError when it was added before."""
        if case in self.by_case:
            raise SciffusionError(f"the case {case} is counted twice", "merge tallies of different cases")
        self.by_case[case] = dict(sums.by_case)
        _combine(self.total, sums.total, np.add)
        _combine(self.maximum, sums.maximum, np.fmax)

    def merge(self, other: "Tally") -> "Tally":
        """The tally of both sets of cases, which must not overlap."""
        merged = Tally(dict(self.by_case), dict(self.total), dict(self.maximum))
        twice = merged.by_case.keys() & other.by_case.keys()
        if twice:
            raise SciffusionError(f"the case {min(twice)} is in both tallies", "merge tallies of different cases")
        merged.by_case.update(other.by_case)
        _combine(merged.total, other.total, np.add)
        _combine(merged.maximum, other.maximum, np.fmax)
        return merged

    def ordered(self, cases: Iterable[str]) -> "Tally":
        """The same sums with cases in this order, others after them."""
        labels = [case for case in cases if case in self.by_case]
        return Tally({case: self.by_case[case] for case in (*labels, *self.by_case)}, self.total, self.maximum)

    def stacked(self, name: str, cases: Iterable[str] | None = None) -> np.ndarray:
        """The sums called ``name``, (case, ...)."""
        return np.stack([self.by_case[case][name] for case in (self.cases if cases is None else cases)])

    def state(self) -> Arrays:
        """Plain arrays, for ``np.savez`` without pickle."""
        arrays: Arrays = {"cases": np.array(self.cases, dtype=np.str_)}
        names = next(iter(self.by_case.values()), {})
        arrays.update({f"by_case/{name}": self.stacked(name) for name in names})
        arrays.update({f"total/{name}": value for name, value in self.total.items()})
        arrays.update({f"maximum/{name}": value for name, value in self.maximum.items()})
        return arrays

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray]) -> "Tally":
        """The tally that ``state`` described."""
        cases = [str(case) for case in arrays["cases"]]
        by_case = {case: {n: a[i] for n, a in _group(arrays, "by_case").items()} for i, case in enumerate(cases)}
        return cls(by_case, _group(arrays, "total"), _group(arrays, "maximum"))


def _group(arrays: Mapping[str, np.ndarray], kind: str) -> Arrays:
    return {name.removeprefix(f"{kind}/"): value for name, value in arrays.items() if name.startswith(f"{kind}/")}


def _combine(into: Arrays, new: Arrays, operation: np.ufunc) -> None:
    for name, value in new.items():
        into[name] = operation(into[name], value) if name in into else value
