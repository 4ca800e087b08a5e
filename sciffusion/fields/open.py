"""Opening a source: paths -> one lazy, named, selected and checked Dataset.

Everything that can be wrong with a user's data is found here, before any expensive work, and said in one line with its
mend. Files and stores are read without dask (``chunks=None``: a store of terabytes opens at once), several of them by
lazy concatenation.
"""

import logging
from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciffusion.config import Source
from sciffusion.errors import SciffusionError
from sciffusion.fields import checks
from sciffusion.fields.checks import check_overlap
from sciffusion.fields.combine import combine
from sciffusion.fields.files import expand_paths, open_path
from sciffusion.fields.labels import positions
from sciffusion.fields.roles import Role, role_of

__all__ = ["check_overlap", "open_source"]

logger = logging.getLogger(__name__)
_ADOPTED: dict[Role | None, str] = {
    "latitude": "latitude",
    "longitude": "longitude",
    "time": "time",
    "lead_time": "forecast_period",
    "realization": "realization",
}


def open_source(
    source: Source | str | Sequence[str],
    variables: Sequence[str] | None = None,
    dims: Sequence[str] | None = None,
    *,
    check: bool = True,
) -> xr.Dataset:
    """Open a source as one lazy Dataset.

    Parameters
    ----------
    source
        Settings of the source, or its paths (files, Zarr stores, globs).
    variables
        Names, after renaming, to keep; None keeps all.
    dims
        Grid dims that each of ``variables`` must have; they are moved last, in this order.
    check
        Look at a few samples of each variable too, to refuse all-NaN and unreadable fields.

    Returns
    -------
    xr.Dataset
        Renamed, combined, selected; coordinates of grid and time dims strictly monotonic, other labels unique.

    Raises
    ------
    SciffusionError
        For a path, file, variable, dim or coordinate that cannot be used; names it and the mend.
    """
    settings = _as_source(source)
    paths = expand_paths(settings.paths)
    where = paths[0] if len(paths) == 1 else f"{paths[0]} ... ({len(paths)} files)"
    opened = _rename([open_path(path) for path in paths], settings.rename, where)
    datasets = [_adopt(_with_grid_mapping(ds)) for ds in opened]
    if variables is not None:
        checks.check_variables(datasets, variables, where)
        datasets, paths = _keep(datasets, paths, variables)
    ds = combine(datasets, paths, settings.combine) if len(datasets) > 1 else datasets[0]
    ds = _select(ds, settings, where)
    checks.check_coordinates(ds, dims, where)
    if dims is not None:
        names = [str(name) for name in ds.data_vars] if variables is None else list(variables)
        checks.check_dims(ds, names, dims, where)
        ds = ds.transpose(..., *dims)
    if check:
        checks.check_values(ds, where)
    return ds


def _as_source(source: Source | str | Sequence[str]) -> Source:
    if isinstance(source, Source):
        return source
    return Source(paths=[source] if isinstance(source, str) else [str(path) for path in source])


def _rename(datasets: list[xr.Dataset], names: dict[str, str], where: str) -> list[xr.Dataset]:
    """Apply ``rename``; a name that no file has is an error."""
    known = {str(name) for ds in datasets for name in (*ds.variables, *ds.dims)}
    for old in names:
        if old not in known:
            raise SciffusionError(f"{where}: nothing is called {old!r} to be renamed", checks.suggestion(old, known))
    return [
        ds.rename({old: new for old, new in names.items() if (old in ds.variables or old in ds.dims) and old != new})
        for ds in datasets
    ]


def _with_grid_mapping(ds: xr.Dataset) -> xr.Dataset:
    """Make the projection that fields name (CF ``grid_mapping``) a scalar coordinate, which goes where they go."""
    texts = [str(variable.attrs.get("grid_mapping", "")) for variable in ds.data_vars.values()]
    names = {word.rstrip(":") for text in texts for word in text.split()}
    return ds.assign_coords({n: ((), 0, ds[n].attrs) for n in names if n in ds.data_vars and not ds[n].dims})


def _adopt(ds: xr.Dataset) -> xr.Dataset:
    """Give a dim without coordinate the one that the file holds under another name: ``lat(y)``, ``time(record)``.

    Only when a single 1-D variable along the dim is a latitude, longitude, time, lead time or realization by its
    attributes or name; the dim keeps its name.
    """
    for dim in [dim for dim in ds.dims if dim not in ds.variables]:
        found = [
            (variable, role)
            for name, variable in ds.variables.items()
            if variable.dims == (dim,) and (role := role_of(ds, name)) in _ADOPTED
        ]
        if len(found) == 1:
            variable, role = found[0]
            attrs = {"standard_name": _ADOPTED[role]} | variable.attrs if role else variable.attrs
            ds = ds.assign_coords({dim: (dim, variable.values, attrs)})
            logger.info("%s takes its coordinate from the %s of the file", dim, role)
    return ds


def _keep(datasets: list[xr.Dataset], paths: list[str], variables: Sequence[str]) -> tuple[list[xr.Dataset], list[str]]:
    """The files that hold any of ``variables``, reduced to these."""
    kept = [
        (ds[[name for name in variables if name in ds.data_vars]], path)
        for ds, path in zip(datasets, paths, strict=True)
        if any(name in ds.data_vars for name in variables)
    ]
    return [ds for ds, _ in kept], [path for _, path in kept]


def _select(ds: xr.Dataset, settings: Source, where: str) -> xr.Dataset:
    """Apply ``select``: one label drops its dim, [first, last] keeps a range."""
    for dim, wanted in settings.select.items():
        if dim not in ds.dims:
            raise SciffusionError(
                f"{where}: select names {dim!r}, which is not a dim", checks.suggestion(dim, map(str, ds.dims))
            )
        if isinstance(wanted, list) and len(wanted) != 2:
            raise SciffusionError(f"select {dim}={wanted}: not a range", f"write {dim}: [first, last]")
        first, last = wanted if isinstance(wanted, list) else (wanted, wanted)
        index = positions(ds, dim, first, last)
        if not index.size:
            raise SciffusionError(f"{where}: no {dim} within {wanted}", checks.range_text(ds, dim))
        ds = ds.isel({dim: _as_slice(index)})
        if not isinstance(wanted, list) and index.size == 1:
            ds = ds.isel({dim: 0}, drop=True)
    return ds


def _as_slice(index: np.ndarray) -> slice | np.ndarray:
    """Contiguous positions as a slice, which every store reads fastest."""
    contiguous = index.size > 0 and bool(np.all(np.diff(index) == 1))
    return slice(int(index[0]), int(index[-1]) + 1) if contiguous else index
