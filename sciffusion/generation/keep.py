"""What to keep of every case: statistics over its members, and how many of the members themselves."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciffusion.errors import SciffusionError
from sciffusion.fields.reduced import LEVEL

__all__ = ["Keep"]

STATISTICS = {"mean": "mean", "std": "standard_deviation", "min": "minimum", "max": "maximum"}  # name -> CF cell method
QUANTILES = "quantiles"
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
MEND = "write names with commas: mean,std,min,max,quantiles,quantiles:0.01/0.5/0.99,members:16"


@dataclass(frozen=True)
class Keep:
    """``statistics`` by name, ``quantiles`` as levels in (0, 1), and the first ``members`` of all members."""

    statistics: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = field(default=())
    members: int = 0

    @classmethod
    def parse(cls, text: str) -> "Keep":
        """Read ``mean,std,quantiles,members:16``. Raises SciffusionError for anything that it does not know."""
        statistics: list[str] = []
        quantiles: tuple[float, ...] = ()
        members = 0
        for part in text.split(","):
            name, _, value = part.strip().partition(":")
            if name in STATISTICS and not value:
                statistics.append(name)
            elif name == QUANTILES:
                quantiles = _levels(value) if value else LEVELS
            elif name == "members" and value.isdecimal():
                members = int(value)
            else:
                raise SciffusionError(f"--keep {text}: {part!r}", MEND)
        if not (statistics or quantiles):
            raise SciffusionError(f"--keep {text}: no statistic", f"leave it out to keep all members, or {MEND}")
        return cls(tuple(dict.fromkeys(statistics)), quantiles, members)

    @property
    def methods(self) -> dict[str, str]:
        """Name of every statistic -> its CF cell method, or the dim of its levels."""
        quantiles = {QUANTILES: LEVEL} if self.quantiles else {}
        return {name: STATISTICS[name] for name in self.statistics} | quantiles

    def to_json(self, members: Sequence[int]) -> dict[str, Any]:
        """As part of the identity of an ensemble of ``members``."""
        consecutive = list(members) == list(range(members[0], members[0] + len(members)))
        of = f"{members[0]}-{members[-1]}" if consecutive else ",".join(map(str, members))
        kept = {"statistics": list(self.statistics), "quantiles": list(self.quantiles), "members": self.members}
        return {**kept, "of": of}

    def reduce(self, members: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Statistics over the first axis of ``members`` (member, *cells), in float64.

        The standard deviation has the divisor m - 1, and is NaN for one member; quantiles (level, *cells) interpolate
        linearly between order statistics (Hyndman & Fan 1996, doi:10.2307/2684934, definition 7). NaN of a member, such
        as on a mask, is NaN in every statistic.
        """
        values = members.astype(np.float64)
        found = {name: _STATISTIC[name](values) for name in self.statistics}
        if self.quantiles:
            found[QUANTILES] = np.quantile(values, self.quantiles, axis=0)
        return found


def _levels(text: str) -> tuple[float, ...]:
    if not re.fullmatch(r"[0-9.]+(/[0-9.]+)*", text):
        raise SciffusionError(f"--keep quantiles:{text}", MEND)
    levels = tuple(sorted({float(level) for level in text.split("/")}))
    if not all(0 < level < 1 for level in levels):
        raise SciffusionError(f"--keep quantiles:{text}", "levels lie between 0 and 1")
    return levels


def _std(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two passes: the mean is subtracted first, so that a large one costs no digits."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(np.sqrt(np.square(values - values.mean(axis=0)).sum(axis=0) / (len(values) - 1)))


_STATISTIC: dict[str, Callable[[Any], Any]] = {
    "mean": partial(np.mean, axis=0),
    "std": _std,
    "min": partial(np.min, axis=0),
    "max": partial(np.max, axis=0),
}
