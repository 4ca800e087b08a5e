"""The training data as something to compare with: every field of them, at a fixed sample of cells."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciffusion.evaluation.copies import Memorisation, sample_cells
from sciffusion.evaluation.layout import Field, Layout
from sciffusion.evaluation.source import Source
from sciffusion.fields.grid import Grid

__all__ = ["memorisation"]

CELLS = 1024  # of a training field that are kept, in single precision
AT_ONCE = 1 << 22  # values that are read at a time
MOST = 50_000  # training fields that are kept, evenly spaced: 200 MB


def memorisation(
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
    found = {one.label: _of(source, grid, one) for one in held}
    return {label: score for label, score in found.items() if score.fields.size}


def _of(source: Source, grid: Grid, one: Field) -> Memorisation:
    """Every dim of the training data that is neither the grid's nor a level is a case; read a few at a time."""
    array = source.ds[one.variable].sel({dim: value for dim, value in one.level.items() if dim in source.ds.dims})
    lead = [str(dim) for dim in array.dims if dim not in grid.dims] or ["case"]
    array = array.transpose(*lead, *grid.dims) if lead[0] in array.dims else array.expand_dims("case")
    size = int(np.prod(grid.shape))
    cells, step = sample_cells(size, CELLS), max(1, AT_ONCE // (array[:1].size or 1))
    parts = [array[i : i + step].values.reshape(-1, size)[:, cells] for i in range(0, len(array), step)]
    rows = np.concatenate([part.astype(np.float32) for part in parts])
    rows = rows[np.isfinite(rows).any(axis=1)]
    return Memorisation.of(cells, rows[:: max(1, -(-len(rows) // MOST))])
