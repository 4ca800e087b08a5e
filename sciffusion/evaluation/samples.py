"""Relations between variables at the same place, from some cells of every case.

Variables are measured one after the other, so each leaves its values at the same cells behind, evenly spread over the
domain, for the truth, the ensemble mean and a few members; when the case is complete they become sums over every two
variables, and are dropped. Correlations are of departures from the ensemble mean: members minus mean and truth minus
mean have the same ones if members are exchangeable with the truth, whatever the condition explains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from math import prod

import numpy as np

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["CELLS", "MEMBERS", "NAMES", "Samples", "related", "sampled_cells"]

CELLS = 4096
MEMBERS = 4
NAMES = ("product", "square", "other_square", "high", "both_high")
Found = Mapping[str, Mapping[tuple[str, str, str], Sums]]  # label -> (sample, system, label) -> sums


def sampled_cells(shape: tuple[int, ...]) -> np.ndarray:
    """Flat indices of at most ``CELLS`` cells: a golden-ratio walk visits the domain evenly, in step with no axis."""
    total = prod(shape)
    if total <= CELLS:
        return np.arange(total)
    return np.unique((np.arange(CELLS) * 0.6180339887498949 % 1 * total).astype(np.int64))


@dataclass(frozen=True)
class Samples:
    """Values (row, cell) of one case: area, truth, ensemble mean, members; NaN where not valid. For `related`."""

    weights: np.ndarray

    def measure(self, pair: Pair) -> Sums:
        """Values of one case."""
        cells = sampled_cells(self.weights.shape)
        truth = pair.truth.reshape(-1)[cells].astype(np.float64)
        members = [member.reshape(-1)[cells] for member in islice(pair.members, MEMBERS)]
        mean = pair.moments[0].reshape(-1)[cells] + truth
        rows = np.stack([self.weights.reshape(-1)[cells], truth, mean, *members])
        return Sums(by_case={"samples": np.where(pair.valid.reshape(-1)[cells], rows, np.nan)})


def related(found: Found, thresholds: Mapping[str, float]) -> None:
    """Turn the samples of a complete case into sums (variable,) of every variable with every other, in place.

    ``thresholds`` says of each variable above which value it is extreme.
    """
    systems = {key[:2] for sums in found.values() for key in sums}
    for sample, system in systems:
        own = {label: sums.get((sample, system, label)) for label, sums in found.items()}
        samples = {label: one.by_case.pop("samples") for label, one in own.items() if one is not None}
        for label, one in own.items():
            if one is not None:
                rows = [_pair(samples, label, other, thresholds) for other in found]
                for who, columns in zip(("members", "truth"), np.moveaxis(np.array(rows), 0, -1), strict=True):
                    one.by_case.update({f"relation_{n}_{who}": c for n, c in zip(NAMES, columns, strict=True)})


def _pair(
    samples: Mapping[str, np.ndarray], label: str, other: str, thresholds: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Sums (name,) of members and of the truth."""
    if other not in samples:
        return np.zeros(len(NAMES)), np.zeros(len(NAMES))
    x, y = samples[label], samples[other]
    marks = thresholds[label], thresholds[other]
    return _sums(x, y, slice(3, None), marks), _sums(x, y, slice(1, 2), marks)


def _sums(x: np.ndarray, y: np.ndarray, rows: slice, marks: tuple[float, float]) -> np.ndarray:
    """Each member counts 1/m."""
    a, b = x[rows] - x[2], y[rows] - y[2]
    use = np.isfinite(a) & np.isfinite(b)
    weight = np.where(use, np.broadcast_to(x[0], a.shape), 0) / len(a)
    a, b = np.where(use, a, 0), np.where(use, b, 0)
    high = [values[rows] > mark for values, mark in zip((x, y), marks, strict=True)]
    return np.array([(weight * values).sum() for values in (a * b, a * a, b * b, high[0], high[0] & high[1])])
