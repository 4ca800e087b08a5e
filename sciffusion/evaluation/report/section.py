"""What a section of the report and a figure in it are."""

from collections.abc import Callable
from dataclasses import dataclass

import xarray as xr

from sciffusion.evaluation.report.figures import Drawing
from sciffusion.evaluation.report.systems import has

__all__ = ["Plot", "Section"]


@dataclass(frozen=True)
class Plot:
    """A figure of one variable: ``draw`` from the scores of that variable.

    ``needs`` names the scores without which it is left out, ``otherwise`` why that may be; ``each``: it shows one
    ensemble alone, so it is drawn for every ensemble; else all systems are in it.
    """

    name: str
    draw: Callable[[xr.Dataset], list[Drawing]]
    caption: str
    needs: tuple[str, ...]
    otherwise: str = "nothing was computed"
    each: bool = False

    def possible(self, one: xr.Dataset) -> bool:
        """Whether the scores of this variable have what it needs."""
        return all(has(one, name) for name in self.needs)


@dataclass(frozen=True)
class Section:
    """``says`` in one sentence what it shows, for a reader who has not seen the code.

    ``columns`` are numbers of every system and variable, as a table: (heading, score); those without any are left out,
    and without all of them the table is, for the reason ``otherwise``.
    """

    key: str
    title: str
    says: str
    plots: tuple[Plot, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    otherwise: str = "nothing was computed"
