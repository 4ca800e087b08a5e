"""Reading one case of a condition's data: its channels on a window of its grid; and hearing what was converted."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import xarray as xr

from sciffusion import config
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Align, Case, select

__all__ = ["noted", "read", "told_names"]


def read(
    ds: xr.Dataset,
    case: Case,
    variables: Sequence[str],
    dims: Sequence[str],
    channel_dims: Sequence[str] = (),
    *,
    align: Align = "exact",
    window: Sequence[slice] | None = None,
    name: str = "condition",
) -> np.ndarray:
    """One case of ``variables`` as float64 (channel, *window), NaN where missing. Nothing else is read.

    Raises SciffusionError for a missing variable or case, and for a dim that no case has.
    """
    if missing := [variable for variable in variables if variable not in ds]:
        raise SciffusionError(f"{name}: no variable {missing[0]!r}", f"there is: {', '.join(map(str, ds.data_vars))}")
    part = ds[list(variables)]
    if window is not None:  # first, so that blending two times reads no more than the window of each
        part = part.isel(dict(zip(dims, window, strict=True)))
    part = select(part, case, align)
    return np.concatenate([_channels(part[variable], dims, channel_dims, name) for variable in variables])


def _channels(array: xr.DataArray, dims: Sequence[str], channel_dims: Sequence[str], name: str) -> np.ndarray:
    own = [dim for dim in channel_dims if dim in array.dims]
    if set(array.dims) != {*own, *dims}:
        odd = sorted(map(str, set(array.dims) ^ {*own, *dims}))
        raise SciffusionError(
            f"{name}: {array.name} has dims {', '.join(map(str, array.dims))}; not understood: {', '.join(odd)}",
            f"its grid dims must be {', '.join(dims)}, and other dims must be those of the cases",
        )
    values = array.transpose(*own, *dims).values.astype(np.float64, copy=False)
    return values.reshape(-1, *values.shape[len(own) :])


def told_names(source: config.Source | None, ds: xr.Dataset) -> dict[str, str]:
    """What ``rename`` of the training source says of names in ``ds`` that are still those of such files."""
    told = source.rename if source is not None else {}
    return {old: new for old, new in told.items() if new not in ds.variables and new not in ds.dims}


@contextmanager
def noted(logger: str) -> Iterator[list[str]]:
    """Collect what ``logger`` says at level INFO while the block runs; who collects it passes it on, nobody else."""
    notes: list[str] = []

    class _Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    source, handler = logging.getLogger(logger), _Collector(logging.INFO)
    level, propagate = source.level, source.propagate
    source.addHandler(handler)
    source.propagate = False
    source.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield notes
    finally:
        source.removeHandler(handler)
        source.propagate = propagate
        source.setLevel(level)
