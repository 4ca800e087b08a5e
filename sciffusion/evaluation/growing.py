"""Scores of an ensemble that is still being made: case by case, from any number of processes, joined in the end."""

from collections.abc import Iterable
from pathlib import Path

import xarray as xr

from sciffusion.evaluation.domain import Domain
from sciffusion.evaluation.grids import cells_of, recorded_grid
from sciffusion.evaluation.layout import Layout, scored_variables
from sciffusion.evaluation.panel import Panel
from sciffusion.evaluation.protocol import OURS, sampler_of
from sciffusion.evaluation.source import Source
from sciffusion.evaluation.state import load, save

__all__ = ["Growing"]


class Growing:
    """The evaluation of an ensemble like ``template`` (member, *case dims, *grid), whose data are not read.

    All processes count alike, by the first case that ``reference`` has. Raises SciffusionError where they do not fit.
    """

    def __init__(self, template: xr.Dataset, reference: xr.Dataset) -> None:
        self._names = scored_variables(template, reference, None)
        self._layout = Layout.of(template, self._names, tuple(recorded_grid(template).get("dims", ())))
        self._cells = cells_of(template, self._layout.grid)
        self._reference, self._sample = reference, sampler_of(template, None, self._layout)
        self._fields = self._layout.fields(template, self._names)
        self._cases = self._layout.case_list(template)
        self._panel = self._judges(template)
        self._panel.fix_marks(self._fields, self._cases)

    def _judges(self, ensemble: xr.Dataset) -> Panel:
        source = Source.of(OURS, ensemble, self._layout, self._cells).in_units_of(self._reference)
        truth = Source.of("the reference", self._reference, self._layout, self._cells, deterministic=True)
        return Panel({OURS: source}, truth, Domain.of(self._cells, "hann"))

    def judge(self, number: int, members: xr.Dataset, path: Path) -> None:
        """Write the sums of case ``number``, whose ``members`` are a Dataset of that case alone, to ``path``."""
        panel = self._judges(members)
        panel.marks = dict(self._panel.marks)
        panel.run(self._fields, [self._cases[number]], self._sample, lambda label, done, total: None)
        save(panel, path)

    def join(self, parts: Iterable[Path], path: Path) -> None:
        """Write the sums of all ``parts`` to ``path``, as the ``state`` from which `evaluate` goes on."""
        panel = self._panel.emptied(self._panel.marks)
        for part in parts:
            panel = load(panel, part)
        save(panel, path)
