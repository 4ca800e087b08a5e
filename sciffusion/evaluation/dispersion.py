"""Measures of dispersion: spread against the error of the mean, and the rank of the truth among the members."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from sciffusion.evaluation.calibration import curves, spread_sums
from sciffusion.evaluation.cells import Cells, Named
from sciffusion.evaluation.measure import Measure, Units
from sciffusion.evaluation.ranks import MOST_BINS, flatness, rank_bins

__all__ = ["BinnedSpreadSkill", "Dispersion", "Ranks"]


@dataclass(frozen=True)
class Dispersion(Measure):
    """``spread``, the root of the mean unbiased variance, or ``spread_skill``: its ratio to the RMSE of the mean.

    The ratio is sqrt((m + 1) / m) x spread / RMSE (Fortin et al. 2014, doi:10.1175/JHM-D-14-0008.1): 1 is calibrated.
    """

    kind: Literal["spread", "spread_skill"] = "spread_skill"

    @property
    def title(self) -> str:  # type: ignore[override]
        """Which of the two."""
        ratio = "sqrt((m+1)/m) x ensemble spread over RMSE of the mean"
        return ratio if self.kind == "spread_skill" else "root of the mean ensemble variance"

    @property
    def units(self) -> Units:  # type: ignore[override]
        """None for the ratio."""
        return "1" if self.kind == "spread_skill" else "same"

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """Sums where there is a spread, that is, two members."""
        error, variance, m = cells.moments
        if self.kind == "spread":
            return cells.mean_of(np.where(np.isfinite(error), variance, np.nan))
        corrected = variance * (m + 1) / np.maximum(m, 1)
        square = np.where(np.isfinite(corrected), error**2, np.nan)
        return {"variance": cells.total(corrected + 0 * square), "square": cells.total(square)}

    def result(self, s: Named) -> np.ndarray:
        """A root."""
        top, bottom = (s["score"], s["weight"]) if self.kind == "spread" else (s["variance"], s["square"])
        return np.asarray(np.sqrt(top / bottom))


@dataclass(frozen=True)
class BinnedSpreadSkill(Measure):
    """Spread, corrected by (m + 1) / m, and RMSE of the mean in ``bins`` classes of spread with nearly equal area.

    Spreads are told apart by 4 % from 1/1000 to 64 times ``scale``, which should be about the sd of the variable.
    """

    title: ClassVar[str] = "ensemble spread and RMSE of the mean in classes of spread"
    bins: int = 12
    scale: float = 1.0

    def coords(self, members: int) -> dict[str, Any]:
        """Classes, and which number it is."""
        return {"spread_class": list(range(self.bins)), "quantity": ["spread", "rmse"]}

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """Sums per fine bin of spread."""
        return spread_sums(cells, self.scale)

    def result(self, s: Named) -> np.ndarray:
        """The classes, (..., class, 2)."""
        return curves(s, self.bins)


@dataclass(frozen=True)
class Ranks(Measure):
    """Share of the truth in each rank over that of a flat histogram; ties at random, reproducible by ``seed``."""

    title: ClassVar[str] = "frequency of the truth's rank among the members, over that of a flat histogram"
    units: ClassVar[Units] = "1"
    seed: int = 0

    def coords(self, members: int) -> dict[str, Any]:
        """Ranks; more than 100 members share 101 bins."""
        return {"rank": list(range(min(members + 1, MOST_BINS)))}

    def attributes(self, members: int) -> dict[str, Any]:
        """The seed."""
        return {"ties": f"broken at random, seed {self.seed}"}

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """Weight per rank."""
        bins = min(cells.complete + 1, MOST_BINS)
        rank = rank_bins(cells.members, cells.truth, bins, self.seed, cells.index, cells.backend)
        return {"ranks": cells.counts(rank, bins)}

    def result(self, s: Named) -> np.ndarray:
        """Shares times the number of ranks."""
        return np.asarray(s["ranks"] / s["ranks"].mean(axis=-1, keepdims=True))

    def tests(self, value: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
        """p-values that the histogram is flat, that it has no slope (bias), and no curvature (dispersion)."""
        return {f"p_{name}": p for name, p in flatness(value, drawn).items()} if value.ndim == 1 else {}
