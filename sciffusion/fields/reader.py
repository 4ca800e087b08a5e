"""Reading an ensemble: complete members only, whoever is still writing."""

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciffusion.errors import SciffusionError
from sciffusion.fields import layout
from sciffusion.fields.guard import GuardedStore, check_zarr, half_of_memory
from sciffusion.fields.layout import MEMBER, STATUS
from sciffusion.fields.markers import FOLDER, Markers

__all__ = ["completed", "is_ensemble_store", "open_ensemble"]


def is_ensemble_store(path: Path) -> bool:
    """Whether ``path`` is a store with completion markers."""
    return (path / "zarr.json").is_file() and (path / FOLDER).is_dir()


def open_ensemble(path: Path | str, *, partial: bool = False) -> xr.Dataset:
    """An ensemble as a lazy Dataset of complete items only.

    Members that lack a case are left out, or with ``partial`` kept with NaN in the cases they lack; the attributes
    ``members_left_out`` or ``incomplete_items`` say how many. NetCDF ensembles, and Zarr without markers, are opened as
    they are. Raises SciffusionError when nothing is complete.
    """
    path = Path(path)
    if not is_ensemble_store(path):
        return _open_plain(path)
    with layout.quiet():
        ds: xr.Dataset = xr.open_zarr(GuardedStore.at(path), chunks={}).drop_vars(STATUS)
    _check_size(path, ds)
    ds = ds.assign_coords(ds.coords.to_dataset().load().coords)
    layout.check_version(path, ds.attrs)
    case_dims = str(ds.attrs.pop(layout.CASE_DIMS)).split()
    ds = ds[[name for name in ds.attrs.pop(layout.VARIABLES) if name in ds]]
    shape = tuple(ds.sizes[dim] for dim in case_dims)
    members = {int(member): index for index, member in enumerate(ds[MEMBER].values)}
    complete = completed(Markers(path).complete(), members, shape)
    kept = complete.any(axis=1) if partial else complete.all(axis=1)
    if not kept.any():
        some = f"{int(complete.sum())} of {complete.size} items are complete"
        raise SciffusionError(f"{path}: no member is complete ({some})", "run the same generate command to complete it")
    status = xr.Variable((MEMBER, *case_dims), complete.reshape(len(members), *shape))
    ds = ds.assign_coords({STATUS: status}).isel({MEMBER: np.flatnonzero(kept)}).sortby(MEMBER)
    if not partial:
        return ds.drop_vars(STATUS).assign_attrs(members_left_out=int((~kept).sum()))
    masked: xr.Dataset = ds.where(ds[STATUS])
    return masked.assign_attrs(ds.attrs, incomplete_items=int((~ds[STATUS]).sum()))


def _check_size(path: Path, ds: xr.Dataset) -> None:
    """Refuse a store whose coordinates and status, which are read at once, would not fit in memory."""
    items = prod(ds.sizes[dim] for dim in (MEMBER, *str(ds.attrs[layout.CASE_DIMS]).split()))
    size = sum(coordinate.nbytes for coordinate in ds.coords.values()) + items
    if size > half_of_memory():
        raise SciffusionError(f"{path}: its coordinates take {size / 2**30:.1f} GiB", "use a machine with more memory")


def completed(
    items: Iterable[tuple[int, int]], position: Mapping[int, int], case_shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Bool (member, case) of marked items; ``position`` maps a member to its row, other members are ignored."""
    complete = np.zeros((len(position), int(np.prod(case_shape, dtype=int))), bool)
    for case, member in items:
        if member in position and case < complete.shape[1]:
            complete[position[member], case] = True
    return complete


def _open_plain(path: Path) -> xr.Dataset:
    """A NetCDF file, or a Zarr store of somebody else."""
    try:
        with layout.quiet():
            if path.is_dir():
                check_zarr(path)
            ds: xr.Dataset = xr.open_zarr(path, chunks={}) if path.is_dir() else xr.open_dataset(path, chunks={})
    except (OSError, ValueError) as error:
        what = f"{path}: cannot be opened as an ensemble: {error}"
        raise SciffusionError(what, "give a Zarr store or a NetCDF file") from None
    return ds
