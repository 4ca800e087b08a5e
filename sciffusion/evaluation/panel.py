"""The panel of judges: every score of every system on the same cells, one case of one field in memory at a time."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.backend import NUMPY, Backend
from sciffusion.evaluation.calibration import BinnedSpread
from sciffusion.evaluation.consistency import CoarseConsistency
from sciffusion.evaluation.copies import Copies, Memorisation
from sciffusion.evaluation.coverage import Coverage
from sciffusion.evaluation.crps import Estimator
from sciffusion.evaluation.dispersion import Ranks
from sciffusion.evaluation.distributions import Distribution
from sciffusion.evaluation.domain import Domain
from sciffusion.evaluation.exceedance import QUANTILES, Exceedance, thresholds
from sciffusion.evaluation.extent import Extent
from sciffusion.evaluation.increments import Increments
from sciffusion.evaluation.layout import Case, Field
from sciffusion.evaluation.measured import OfCells
from sciffusion.evaluation.multivariate import Multivariate
from sciffusion.evaluation.neighbours import Neighbours
from sciffusion.evaluation.occurrence import EVENTS, occurrence
from sciffusion.evaluation.pointwise import Pointwise
from sciffusion.evaluation.prerank import Extremes
from sciffusion.evaluation.samples import Samples, related
from sciffusion.evaluation.score import Pair, Score
from sciffusion.evaluation.seams import Seams
from sciffusion.evaluation.source import Source
from sciffusion.evaluation.spectral import Spectral
from sciffusion.evaluation.spool import Members
from sciffusion.evaluation.tally import Sums, Tally
from sciffusion.evaluation.timing import Sketch
from sciffusion.evaluation.workers import judged

__all__ = ["Coarse", "Judged", "Key", "Marks", "Panel", "Progress"]

EXTREME = QUANTILES.index(0.99)  # above which a value counts as extreme
Key = tuple[str, str, str]  # sample, system, field
Judged = dict[str, tuple[dict[Key, Sums], dict[str, int]]]  # by field: sums, and members of every system
Sample = Callable[[Case], str]
Progress = Callable[[str, int, int], None]  # label of the case whose turn it is, how many are done, how many there are


@dataclass(frozen=True)
class Coarse:
    """The coarse input of the ensemble and the map that coarsens a member to its grid."""

    source: Source
    score: CoarseConsistency


class Marks(NamedTuple):
    """By what a field's values are counted: centre and scale of its histogram, thresholds of its tails."""

    centre: float
    scale: float
    thresholds: tuple[float, ...]

    @classmethod
    def of(cls, truth: np.ndarray) -> "Marks":
        """Mean, sd and extreme quantiles of one field (*grid)."""
        values = truth[np.isfinite(truth)].astype(np.float64)
        return cls(float(values.mean()), float(values.std()) or 1.0, thresholds(values))


@dataclass
class Panel:
    """Sums of all scores per sample ("held-out", "IN-SAMPLE", ...), system and field.

    The first of ``systems`` is the ensemble judged, the others are what it is compared with. ``memorisation`` holds
    the training data of the fields that have some. ``marks`` holds what every field's counts are counted by, fixed
    before the first case so that tallies of processes merge. Members that take more than ``budget`` bytes are kept on
    disk while their case is judged. ``brief``: only what the verdict is made of.
    """

    systems: dict[str, Source]
    truth: Source
    domain: Domain
    coarse: Coarse | None = None
    estimator: Estimator = "fair"
    memorisation: dict[str, Memorisation] = field(default_factory=dict)
    backend: Backend = NUMPY
    budget: int | None = None
    brief: bool = False
    marks: dict[str, Marks] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    tallies: dict[Key, Tally] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)

    def run(
        self, fields: Sequence[Field], cases: Sequence[Case], sample: Sample, progress: Progress, processes: int = 1
    ) -> None:
        """Measure every case of every field that has a truth and members; the others are listed in ``skipped``.

        Cases that are done already are left out, so that an interrupted run goes on where it stopped. The marks have
        to be fixed before.
        """
        left = [case for case in cases if case.label not in self.done]
        if processes > 1 and len(left) > 1:
            for case, sums in judged(self, fields, left, sample, processes):
                progress(case.label, len(self.done), len(cases))
                self._commit(case, sums)
            return
        for case in left:
            progress(case.label, len(self.done), len(cases))
            self._commit(case, self.judge(fields, case, sample(case)))

    def check(self, fields: Sequence[Field], cases: Sequence[Case]) -> None:
        """Raise SciffusionError where a system has no variable of the ensemble, or lacks a case that has a truth."""
        for source in self.systems.values():
            known = [one for one in fields if one.variable in source.ds]
            if not known:
                names = ", ".join(dict.fromkeys(one.variable for one in fields))
                raise SciffusionError(
                    f"{source.name} has no variable of the ensemble ({names})", "rename its variables"
                )
            absent = ((one, case) for one in known for case in cases if not source.has(one, case))
            lacking = next((case for one, case in absent if self.truth.has(one, case)), None)
            if lacking is not None:
                raise SciffusionError(f"{source.name} has no case {lacking.label}", "give it all cases of the ensemble")

    def judge(self, fields: Sequence[Field], case: Case, sample: str) -> Judged:
        """The sums of one case, added to nothing yet."""
        found = {one.label: self._judge(one, case, sample) for one in fields}
        if not self.brief:
            related(
                {label: sums for label, (sums, _) in found.items()},
                {label: marks.thresholds[EXTREME] for label, marks in self.marks.items()},
            )
        return found

    def _commit(self, case: Case, found: Judged) -> None:
        """Add a whole case at once: what interrupts the measuring leaves no half case behind."""
        for label, (sums, members) in found.items():
            for system, count in members.items():
                self.members[system] = max(self.members.get(system, 0), count)
            if not sums:
                self.skipped.append(f"{label} at {case.label}")
            for key, one in sums.items():
                self.tallies.setdefault(key, Tally()).update(case.label, one)
        self.done.add(case.label)

    def fix_marks(self, fields: Sequence[Field], cases: Sequence[Case]) -> None:
        """Fix the marks by the first truth, so that all processes count alike."""
        for one in fields:
            found = (self.truth.read(one, case) for case in cases if one.label not in self.marks)
            first = next((truth[0] for truth in found if truth is not None and np.isfinite(truth[0]).any()), None)
            if first is not None:
                self.marks[one.label] = Marks.of(first)

    @property
    def identity(self) -> dict[str, object]:
        """What has to agree for sums to be added up."""
        names = {name: sorted(map(str, source.ds.data_vars)) for name, source in self.systems.items()}
        return {
            "systems": names,
            "grid": list(self.domain.grid.shape),
            "estimator": self.estimator,
            "brief": self.brief,
        }

    def led_by(self, name: str) -> "Panel":
        """The same sums with the system ``name`` as the one that is judged."""
        return replace(self, systems={name: self.systems[name], **self.systems})

    def emptied(self, marks: dict[str, Marks]) -> "Panel":
        """The same panel before its first case, with these marks."""
        return replace(self, marks=dict(marks), members={}, tallies={}, skipped=[], done=set())

    def ordered(self, cases: Sequence[Case]) -> "Panel":
        """The same sums with cases in this order, whatever the order in which parts were added."""
        labels = [case.label for case in cases]
        return replace(self, tallies={key: tally.ordered(labels) for key, tally in self.tallies.items()})

    def merge(self, other: "Panel") -> "Panel":
        """The sums of both, which have judged different cases of the same data."""
        if self.identity != other.identity:
            raise SciffusionError("two evaluations of different data or settings", "merge parts of the same evaluation")
        for label in self.marks.keys() & other.marks.keys():
            if self.marks[label] != other.marks[label]:
                raise SciffusionError(f"{label}: the histograms differ", "fix the marks before the work is split")
        merged = self.emptied(self.marks | other.marks)
        keys = [*self.tallies, *(key for key in other.tallies if key not in self.tallies)]
        merged.tallies = {k: self.tallies.get(k, Tally()).merge(other.tallies.get(k, Tally())) for k in keys}
        names = self.members.keys() | other.members.keys()
        merged.members = {name: max(self.members.get(name, 0), other.members.get(name, 0)) for name in names}
        merged.skipped, merged.done = self.skipped + other.skipped, self.done | other.done
        return merged

    def _judge(self, one: Field, case: Case, sample: str) -> tuple[dict[Key, Sums], dict[str, int]]:
        """Sums and members of every system; none when there is no truth or nothing of the ensemble."""
        truth = self.truth.read(one, case)
        if truth is None:
            return {}, {}
        read = {name: self._members(source, one, case) for name, source in self.systems.items()}
        fields = {name: members for name, members in read.items() if members is not None}
        ours = next(iter(self.systems))
        if ours not in fields:
            return {}, {}
        pairs = self._pairs(fields, truth[0], f"{one.label}|{case.label}")
        if not pairs[ours].valid.any():
            return {}, {}
        given = self.coarse.source.read(one, case) if self.coarse else None
        found = {}
        for name, pair in pairs.items():
            parts = [score.measure(pair) for score in self.scores(one.label, len(fields[name]))]
            if self.coarse is not None and given is not None:
                parts.append(self.coarse.score.measure(fields[name], given[0]))
            found[sample, name, one.label] = _joined(parts)
        return found, {name: len(members) for name, members in fields.items()}

    def _members(self, source: Source, one: Field, case: Case) -> Members | None:
        budget = None if self.budget is None else self.budget // (2 * len(self.systems))
        return source.read(one, case) if budget is None else source.members(one, case, budget)

    def _pairs(self, fields: dict[str, Members], truth: np.ndarray, key: str) -> dict[str, Pair]:
        """One pair per system, all valid at the same cells: those where every system has a member."""
        seed = zlib.crc32(key.encode())
        alone = {name: Pair.of(members, truth, None, seed, self.backend) for name, members in fields.items()}
        common = np.logical_and.reduce([pair.valid for pair in alone.values()])
        return {name: replace(pair, valid=common) for name, pair in alone.items()}

    def scores(self, label: str, members: int) -> list[Score]:
        """The scores of one field."""
        weights, regions, marks = self.domain.weights, self.domain.regions, self.marks[label]
        wraps = tuple(self.domain.grid.periodic)
        needed: list[Score] = [
            Pointwise(weights, regions, self.estimator),
            Spectral(self.domain.basis),
            Exceedance(weights, regions, marks.thresholds),
            Coverage(weights, marks.centre, marks.scale),
            Neighbours(weights, regions, wraps),
            Seams(wraps),
            Copies(),
            Extremes(),
            Sketch(weights),
            *([self.memorisation[label]] if label in self.memorisation else []),
        ]
        return needed if self.brief else needed + self._others(label, members)

    def _others(self, label: str, members: int) -> list[Score]:
        """Scores that no sentence of the verdict is made of."""
        weights, regions, marks = self.domain.weights, self.domain.regions, self.marks[label]
        wraps = tuple(self.domain.grid.periodic)
        return [
            OfCells("rank_histogram", Ranks(), weights, members, regions),
            BinnedSpread(weights, marks.scale),
            Distribution(weights, marks.centre, marks.scale),
            Multivariate(weights, wraps, self.estimator),
            Increments(weights, wraps, marks.centre, marks.thresholds[EXTREME]),
            *occurrence(weights, wraps, [marks.thresholds[QUANTILES.index(q)] for q in EVENTS], members),
            Samples(weights),
            Extent(weights),
        ]


def _joined(parts: Iterable[Sums]) -> Sums:
    joined = Sums()
    for part in parts:
        joined.by_case.update(part.by_case)
        joined.total.update(part.total)
        joined.maximum.update(part.maximum)
    return joined
