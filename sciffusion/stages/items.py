"""What a stage draws for: a case that has been read, and one member of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np

from sciffusion.fields.cases import Case

__all__ = ["Item", "Prepared", "Window"]

Window = tuple[slice, ...]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Prepared:
    """One case, read and ready: named arrays per condition, and the physical fields that the codec and constraint need.

    inputs : condition -> name -> array (no batch axis); baseline : (channel, *grid) in physical units, or None;
    coarse : the coarse field of the constraint, (channel, *coarse grid) in physical units, or None; window : the part
    of the grid that it covers, None for all of it. What a stage computes from these once per case is kept with it.
    """

    case: Case
    inputs: dict[str, dict[str, np.ndarray]]
    baseline: np.ndarray | None = None
    coarse: np.ndarray | None = None
    window: Window | None = None
    kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` returned the first time that ``name`` was asked for."""
        if name not in self.kept:
            self.kept[name] = make()
        return cast(T, self.kept[name])


@dataclass(frozen=True)
class Item:
    """One member of one case: the unit of work and of randomness."""

    prepared: Prepared
    member: int
