"""How well the ensemble's probabilities foretell events: counts for reliability, ROC, Brier and fractions skill scores.

Events are values below the 1 % and above the 99 % quantile of the first truth, whose thresholds are fixed before the
first case. The measures themselves are those of `events` and `whole_fields`.
"""

from collections.abc import Sequence

import numpy as np

from sciffusion.evaluation.events import ProbabilityTable
from sciffusion.evaluation.measured import OfCells, OfFields
from sciffusion.evaluation.score import Score
from sciffusion.evaluation.tally import Tally
from sciffusion.evaluation.whole_fields import FSS

__all__ = ["EVENTS", "WINDOWS", "event_fractions", "event_tables", "occurrence"]

EVENTS = (0.01, 0.99)  # quantiles: below the first, above the second
WINDOWS = (1, 3, 9, 27)  # cells along each axis


def occurrence(
    weights: np.ndarray, periodic: tuple[bool, ...], thresholds: Sequence[float], members: int
) -> list[Score]:
    """Scores of both events, of an ensemble of ``members``."""
    found: list[Score] = []
    for quantile, threshold in zip(EVENTS, thresholds, strict=True):
        upper = quantile > 0.5
        table, fractions = ProbabilityTable((threshold,), upper), FSS((threshold,), WINDOWS, upper)
        found.append(OfCells(f"event_{quantile}", table, weights, members))
        found.append(OfFields(f"event_{quantile}", fractions, weights, periodic))
    return found


def event_tables(tally: Tally) -> dict[str, np.ndarray]:
    """Weight (case, event, 2, m + 1) of non-events and events per forecast probability."""
    return {"table": _both(tally, "table")}


def event_fractions(tally: Tally) -> dict[str, np.ndarray]:
    """Sums (case, event, window) of the fractions skill score."""
    return {name: _both(tally, name) for name in ("difference", "squares")}


def _both(tally: Tally, name: str) -> np.ndarray:
    return np.concatenate([tally.stacked(f"event_{quantile}_{name}") for quantile in EVENTS], axis=1)
