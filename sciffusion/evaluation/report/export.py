"""The report's figures as files, for a paper or slides."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sciffusion.evaluation.report.gather import Shown, climate_maps_of, figures_of, maps_of
from sciffusion.evaluation.report.sections import SECTIONS

if TYPE_CHECKING:
    from sciffusion.evaluation.evaluation import Evaluation

__all__ = ["save_figures"]


def save_figures(evaluation: "Evaluation", folder: str | Path) -> list[Path]:
    """Write every figure of every variable as VARIABLE_FIGURE.svg and .png; returns the paths."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for one in _all(evaluation):
        written += one.drawing.save(target / _plain(f"{one.variable}_{one.name}"))
    return written


def _all(evaluation: "Evaluation") -> Iterator[Shown]:
    for variable in map(str, evaluation.scores["variable"].values):
        for _, pictures in maps_of(evaluation, variable):
            yield from pictures
        for section in SECTIONS:
            yield from figures_of(evaluation, section, variable)
        yield from climate_maps_of(evaluation, variable)


def _plain(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_.")
