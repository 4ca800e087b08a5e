"""Several files as one data set: merged when they hold different variables, joined along what tells them apart.

Files whose coordinates differ are joined along these; files without coordinates are stacked in the order of their
names along an existing time-like dim or a new one. All stays lazy, without dask.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.labels import label_text
from sciffusion.fields.lazy import concatenate
from sciffusion.fields.roles import HORIZONTAL, role_of

__all__ = ["combine"]


def combine(datasets: list[xr.Dataset], paths: Sequence[str], dim: str | None = None) -> xr.Dataset:
    """One dataset out of several.

    Parameters
    ----------
    datasets
        In natural order of their file names.
    paths
        Their names, for messages.
    dim
        Dim along which to stack them (``Source.combine``): an existing one or a new one.

    Raises
    ------
    SciffusionError
        When nothing tells how they belong together, or their grids differ.
    """
    if dim is not None:
        return _join(datasets, paths, dim)
    scalars = _differing_scalars(datasets)
    if scalars:
        datasets = [ds.expand_dims(scalars[:1]) for ds in datasets]
    differing = _differing_dims(datasets)
    groups = _by_variables(datasets, paths)
    if len(groups) > 1:
        return _merge([combine(*group) if len(group[0]) > 1 else group[0][0] for group in groups], paths)
    if not differing:
        return _join(datasets, paths, _stacking_dim(datasets, paths))
    return _join_all(datasets, paths, differing)


def _differing_scalars(datasets: list[xr.Dataset]) -> list[str]:
    """Scalar coordinates that every file has, each with its own value (one time or realization per file)."""
    names = [str(name) for name, coord in datasets[0].coords.items() if coord.ndim == 0]
    shared = [name for name in names if all(name in ds.coords and ds[name].ndim == 0 for ds in datasets)]
    return [name for name in shared if len({label_text(ds[name].values[()]) for ds in datasets}) > 1]


def _differing_dims(datasets: list[xr.Dataset]) -> list[str]:
    """Dims with a coordinate that is not the same in all files."""
    first = datasets[0]
    shared = [str(dim) for dim in first.dims if all(dim in ds.coords for ds in datasets)]
    return [dim for dim in shared if not all(_equal(ds[dim].values, first[dim].values) for ds in datasets)]


def _equal(one: np.ndarray, two: np.ndarray) -> bool:
    return one.shape == two.shape and bool(np.all(one == two))


def _by_variables(datasets: list[xr.Dataset], paths: Sequence[str]) -> list[tuple[list[xr.Dataset], list[str]]]:
    """Files grouped by the set of variables they hold; overlapping but unequal sets belong to one group."""
    groups: dict[frozenset[str], tuple[list[xr.Dataset], list[str]]] = {}
    for ds, path in zip(datasets, paths, strict=True):
        key = frozenset(map(str, ds.data_vars))
        members = groups.setdefault(key, ([], []))
        members[0].append(ds)
        members[1].append(path)
    keys = list(groups)
    if any(one & two for i, one in enumerate(keys) for two in keys[:i]):
        return [(datasets, list(paths))]
    return list(groups.values())


def _merge(datasets: list[xr.Dataset], paths: Sequence[str]) -> xr.Dataset:
    try:
        return xr.merge(datasets, join="exact", compat="override", combine_attrs="override")
    except ValueError as error:
        raise SciffusionError(
            f"{paths[0]} ... ({len(paths)} files) hold different variables on different coordinates: {_line(error)}",
            "give variables of one grid and one period as one source, the others as another condition",
        ) from error


def _stacking_dim(datasets: list[xr.Dataset], paths: Sequence[str]) -> str:
    """The dim to stack files along that no coordinate tells apart."""
    for dim in map(str, datasets[0].dims):
        if role_of(datasets[0], dim) in ("time", "realization") or dim in ("sample", "case"):
            if dim in datasets[0].coords:
                raise SciffusionError(
                    f"{paths[0]} and {paths[1]} have the same variables and the same {dim!r}",
                    "name the dim that tells them apart under source.combine, for example combine: realization",
                )
            return dim
    return "sample"


def _join_all(datasets: list[xr.Dataset], paths: Sequence[str], dims: list[str]) -> xr.Dataset:
    """Join along every dim whose coordinate differs, the innermost grid dim first."""
    for dim in reversed(dims):
        rest = [other for other in dims if other != dim]
        blocks: dict[tuple[str, ...], list[int]] = {}
        for position, ds in enumerate(datasets):
            blocks.setdefault(tuple(_fingerprint(ds, other) for other in rest), []).append(position)
        joined = [_join([datasets[i] for i in block], [paths[i] for i in block], dim) for block in blocks.values()]
        datasets, paths = joined, [paths[block[0]] for block in blocks.values()]
    if len(datasets) > 1:
        raise SciffusionError(
            f"{paths[0]} and {paths[1]} differ along {', '.join(dims)} and do not fill a regular block",
            "give files that tile a block, or name the dim to stack them along under source.combine",
        )
    return datasets[0]


def _fingerprint(ds: xr.Dataset, dim: str) -> str:
    values = ds[dim].values
    return f"{label_text(values[0])} {label_text(values[-1])} {values.size}"


def _join(datasets: list[xr.Dataset], paths: Sequence[str], dim: str) -> xr.Dataset:
    """Concatenate along ``dim``, in the order of its labels where it has any."""
    if len(datasets) == 1:
        return datasets[0]
    if all(dim in ds.coords and ds[dim].ndim == 1 for ds in datasets):
        datasets, paths = _ordered(datasets, paths, dim)
    try:
        coords = _joined_coordinates(datasets, dim)
        names = [
            name for name, field in datasets[0].data_vars.items() if dim in field.dims or dim not in datasets[0].dims
        ]
        joined = {name: concatenate([ds[name].variable for ds in datasets], dim) for name in names}
        rest = {name: field for name, field in datasets[0].data_vars.items() if name not in joined}
        return xr.Dataset({**joined, **rest}, coords.coords, datasets[0].attrs)
    except (ValueError, KeyError) as error:
        raise SciffusionError(
            f"{paths[0]} and {paths[-1]} cannot be joined along {dim!r}: {_line(error)}",
            "give files of one grid with the same variables, or name the dim to stack along under source.combine",
        ) from error


def _joined_coordinates(datasets: list[xr.Dataset], dim: str) -> xr.Dataset:
    """The coordinates of all files, equal but along ``dim``."""
    bare = [ds.drop_vars(list(ds.data_vars)) for ds in datasets]
    if dim in datasets[0].variables:
        return xr.concat(
            bare, dim, data_vars="minimal", coords="minimal", compat="override", join="exact", combine_attrs="override"
        )
    xr.align(*bare, join="exact", exclude=[dim])
    return bare[0].drop_dims(dim, errors="ignore")


def _ordered(datasets: list[xr.Dataset], paths: Sequence[str], dim: str) -> tuple[list[xr.Dataset], list[str]]:
    """By first label, rising or falling as the labels within the files do."""
    values = datasets[0][dim].values
    falling = values.size > 1 and role_of(datasets[0], dim) in (*HORIZONTAL, "vertical") and values[0] > values[-1]
    order = sorted(range(len(datasets)), key=lambda i: datasets[i][dim].values[0], reverse=bool(falling))
    return [datasets[i] for i in order], [paths[i] for i in order]


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
