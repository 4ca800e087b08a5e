"""The training data as something to compare with: every field of them, at a fixed sample of cells."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from sciffusion.evaluation.copies import Memorisation, sample_cells
from sciffusion.evaluation.layout import Field, Layout
from sciffusion.evaluation.source import Source
from sciffusion.fields.grid import Grid

__all__ = ["memories"]

CELLS = 1024  # of a training field that are kept, in single precision
MOST = 50_000  # training fields that are kept, evenly spaced: 200 MB


def memories(
    training: xr.Dataset | None, layout: Layout, grid: Grid, fields: Sequence[Field], reference: xr.Dataset
) -> dict[str, Memorisation]:
    """What members are compared with, by field; nothing for fields that the training data do not hold on this grid."""
    if training is None:
        return {}
    renamed = Source.renamed(training, layout)
    held = [one for one in fields if one.variable in renamed and set(grid.dims) <= set(renamed[one.variable].dims)]
    if not held:
        return {}
    source = Source.of("the training data", renamed, layout, grid, deterministic=True).in_units_of(reference)
    return {one.label: _memory(source, layout, grid, one) for one in held}


def _memory(source: Source, layout: Layout, grid: Grid, one: Field) -> Memorisation:
    """Every dim of the training data that is neither the grid's nor a level is a case."""
    dims = [str(dim) for dim in source.ds[one.variable].dims]
    cases = tuple(dim for dim in dims if dim not in (*grid.dims, *layout.channels))
    own = replace(layout, member=None, cases=cases)
    found = own.case_list(source.ds[[one.variable]])
    step = -(-len(found) // MOST)
    cells = sample_cells(int(np.prod(grid.shape)), CELLS)
    reader = replace(source, layout=own)
    read = (reader.read(one, case) for case in found[::step])
    rows = [field[0].reshape(-1)[cells].astype(np.float32) for field in read if field is not None]
    return Memorisation(cells, np.stack([row for row in rows if np.isfinite(row).any()]))
