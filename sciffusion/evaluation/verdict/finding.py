"""What a rule hands back, and what becomes of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import xarray as xr

__all__ = ["Finding", "Rule", "Statement"]


@dataclass(frozen=True)
class Statement:
    """One sentence; ``good`` is None where it neither praises nor blames. ``fault`` names what it blames."""

    text: str
    good: bool | None
    fault: str = ""


@dataclass(frozen=True)
class Finding:
    """One comparison: ``sure`` is said if it is ``notable`` and its chance ``p`` survives the correction.

    ``p`` is NaN where nothing is known about the error of the numbers: a notable departure is then said with that
    doubt, neither praising nor blaming. ``otherwise`` is said when there is nothing to name.
    """

    p: float
    notable: bool
    sure: Statement
    otherwise: Statement | None = None


Rule = Callable[[xr.Dataset], Iterator[Finding]]
