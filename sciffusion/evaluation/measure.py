"""What a measure is: it turns a block of data into weighted sums, and sums into a number.

A measure has no state. ``sums`` turns a block into weighted sums (*kept, *own dims), which add up over blocks, times
and processes; ``result`` reads totals of the same shape. Where a score, a spread or an error is not there (NaN), its
weight is not there either, so masked data give what cropped data give.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from sciffusion.evaluation.cells import Cells, Named

__all__ = ["Measure", "Units"]

Units = Literal["same", "squared", "1"]


@dataclass(frozen=True)
class Measure:
    """``title`` is the long name of the result, ``units`` says how its units follow from those of the data.

    ``extras`` names further fields that have to be given.
    """

    title: ClassVar[str] = ""
    units: ClassVar[Units] = "same"
    extras: ClassVar[tuple[str, ...]] = ()

    def coords(self, members: int) -> dict[str, Any]:
        """Dims of the result's own, in order, with their labels."""
        return {}

    def attributes(self, members: int) -> dict[str, Any]:
        """How the number was computed."""
        return {}

    def sums(self, cells: Cells) -> dict[str, np.ndarray]:
        """Sums of a block, named (*kept, *own dims)."""
        raise NotImplementedError

    def result(self, s: Named) -> np.ndarray:
        """The number, from sums (..., *own dims)."""
        return np.asarray(s["score"] / s["weight"])

    def remarks(self, s: Named) -> dict[str, Any]:
        """More attributes, from the sums of everything."""
        return {}

    def tests(self, value: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
        """Attributes that say how sure a departure is; ``drawn`` (resample, ...) are bootstrap values of ``value``."""
        return {}
