"""The panel of judges: every score of every system on the same cells, one case of one field in memory at a time."""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.calibration import BinnedSpread
from sciffusion.evaluation.consistency import CoarseConsistency
from sciffusion.evaluation.crps import Estimator
from sciffusion.evaluation.distributions import Distribution
from sciffusion.evaluation.domain import Domain
from sciffusion.evaluation.layout import Case, Field
from sciffusion.evaluation.pointwise import Pointwise
from sciffusion.evaluation.ranks import RankHistogram
from sciffusion.evaluation.score import Pair, Score
from sciffusion.evaluation.source import Source
from sciffusion.evaluation.spectral import Spectral
from sciffusion.evaluation.tally import Sums, Tally

__all__ = ["Coarse", "Key", "Panel"]

Key = tuple[str, str, str]  # sample, system, field
Sample = Callable[[Case], str]


@dataclass(frozen=True)
class Coarse:
    """The coarse input of the ensemble and the map that coarsens a member to its grid."""

    source: Source
    score: CoarseConsistency


@dataclass
class Panel:
    """Sums of all scores per sample ("held-out", "IN-SAMPLE", ...), system and field.

    The first of ``systems`` is the ensemble judged, the others are what it is compared with. ``scales`` holds the
    centre and scale of every field's histogram, fixed before the first case so that tallies of processes merge.
    """

    systems: dict[str, Source]
    truth: Source
    domain: Domain
    coarse: Coarse | None = None
    estimator: Estimator = "fair"
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    tallies: dict[Key, Tally] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def run(
        self, fields: Iterable[Field], cases: Iterable[Case], sample: Sample, progress: Callable[[str], None]
    ) -> None:
        """Measure every case of every field that has a truth and members; the others are listed in ``skipped``."""
        fields = list(fields)
        for case in cases:
            progress(case.label)
            for one in fields:
                if not self._judge(one, case, sample(case)):
                    self.skipped.append(f"{one.label} at {case.label}")

    def _judge(self, one: Field, case: Case, sample: str) -> bool:
        truth = self.truth.read(one, case)
        if truth is None:
            return False
        read = {name: self._members(source, one, case) for name, source in self.systems.items()}
        fields = {name: members for name, members in read.items() if members is not None}
        ours = next(iter(self.systems))
        if ours not in fields:
            return False
        pairs = self._pairs(fields, truth[0], f"{one.label}|{case.label}")
        if not pairs[ours].valid.any():
            return False
        self.scales.setdefault(one.label, _scale(pairs[ours]))
        for name, pair in pairs.items():
            self.members[name] = max(self.members.get(name, 0), len(fields[name]))
            sums = _joined(score.measure(pair) for score in self.scores(one.label, len(fields[name])))
            self.tallies.setdefault((sample, name, one.label), Tally()).update(case.label, sums)
        self._check_coarse(one, case, sample, fields)
        return True

    def _members(self, source: Source, one: Field, case: Case) -> np.ndarray | None:
        members = source.read(one, case)
        if members is None and one.variable in source.ds and source is not next(iter(self.systems.values())):
            raise SciffusionError(f"{source.name} has no case {case.label}", "give it all cases of the ensemble")
        return members

    def _pairs(self, fields: dict[str, np.ndarray], truth: np.ndarray, key: str) -> dict[str, Pair]:
        """One pair per system, all valid at the same cells: those where every system has a member."""
        seed = zlib.crc32(key.encode())
        alone = {name: Pair.of(members, truth, seed=seed) for name, members in fields.items()}
        common = np.logical_and.reduce([pair.valid for pair in alone.values()])
        return {name: Pair(pair.members, pair.truth, common, seed) for name, pair in alone.items()}

    def scores(self, label: str, members: int) -> list[Score]:
        """The scores of one field."""
        weights, regions = self.domain.weights, self.domain.regions
        return [
            Pointwise(weights, regions, self.estimator),
            RankHistogram(weights, regions, members),
            BinnedSpread(weights),
            Spectral(self.domain.basis),
            Distribution(weights, *self.scales[label]),
        ]

    def _check_coarse(self, one: Field, case: Case, sample: str, fields: dict[str, np.ndarray]) -> None:
        given = self.coarse.source.read(one, case) if self.coarse else None
        if self.coarse is None or given is None:
            return
        for name, members in fields.items():
            sums = self.coarse.score.measure(members, given[0])
            self.tallies[sample, name, one.label].add(sums)


def _joined(parts: Iterable[Sums]) -> Sums:
    joined = Sums()
    for part in parts:
        joined.by_case.update(part.by_case)
        joined.total.update(part.total)
        joined.maximum.update(part.maximum)
    return joined


def _scale(pair: Pair) -> tuple[float, float]:
    values = pair.truth[pair.valid].astype(np.float64)
    return float(values.mean()), float(values.std()) or 1.0
