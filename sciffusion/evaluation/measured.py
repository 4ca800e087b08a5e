"""The measures of `score` as scores of the panel, which keeps their sums case by case."""

from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.cells import Cells
from sciffusion.evaluation.measure import Measure
from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums
from sciffusion.evaluation.whole_fields import FieldMeasure

__all__ = ["OfCells", "OfFields"]


@dataclass(frozen=True)
class OfCells:
    """A measure of single cells of an ensemble of ``members``; its sums get ``name`` and, where given, regions last."""

    name: str
    measured: Measure
    weights: np.ndarray
    members: int
    regions: np.ndarray | None = None

    def measure(self, pair: Pair) -> Sums:
        """Sums (*own, region) of one case."""
        sums = self.measured.sums(Cells.of_pair(pair, self.weights, self.regions, self.members))
        if self.regions is not None:
            sums = {name: np.moveaxis(value, 0, -1) for name, value in sums.items()}
        return Sums(by_case={f"{self.name}_{name}": value for name, value in sums.items()})


@dataclass(frozen=True)
class OfFields:
    """A measure of whole fields; its sums get ``name``."""

    name: str
    measured: FieldMeasure
    weights: np.ndarray
    periodic: tuple[bool, ...]

    def measure(self, pair: Pair) -> Sums:
        """Sums (*own) of one case."""
        sums = self.measured.field_sums(pair, self.weights, self.periodic)
        return Sums(by_case={f"{self.name}_{name}": value for name, value in sums.items()})
