"""How an ensemble lies in Zarr: arrays, chunks, codecs and coordinates, made once before any member is written.

Every data variable has dims (member, *case dims, *channel dims, *grid) and one chunk per member and case (several where
grid dims are cut on request), NaN where nothing was written, zstd-compressed, followed by a CRC-32C that readers check.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from sciffusion.errors import SciffusionError
from sciffusion.fields import cf
from sciffusion.fields.storage import STORAGE, Storage

__all__ = [
    "MEMBER",
    "OWN",
    "STATUS",
    "append_members",
    "arrays",
    "check_version",
    "consolidate",
    "dims",
    "make",
    "quiet",
    "shapes",
]

MEMBER = "member"
STATUS = "complete"  # coordinate (member, *case dims), written when the store is finalised
CASE_DIMS = "sciffusion_case_dims"  # attribute
VARIABLES = "sciffusion_variables"  # attribute: names in the order of the template, which the folder does not keep
VERSION = "sciffusion_store_version"  # attribute
_VERSION = 2
OWN = (CASE_DIMS, VARIABLES)  # attributes that concern the store alone


def make(
    path: Path, template: xr.Dataset, members: Sequence[int], case_dims: Sequence[str], identity: Mapping[str, Any]
) -> None:
    """Make the skeleton of a store at ``path``, which must not exist. No values of data variables are read."""
    layout = {CASE_DIMS: " ".join(case_dims), VARIABLES: list(map(str, template.data_vars)), VERSION: _VERSION}
    attributes = cf.provenance(template.attrs, identity) | layout
    coordinates = _coordinates(template, members, case_dims).assign_attrs(attributes)
    with quiet():
        coordinates.to_zarr(path, mode="w-", zarr_format=3, consolidated=False)
    encoded, _ = xr.conventions.encode_dataset_coordinates(_widened(template, members, case_dims))
    group = zarr.open_group(path, mode="r+")
    storage = Storage.from_json(identity.get(STORAGE, {}))
    for name, variable in encoded.items():
        if name in template.data_vars:
            _make_array(group, str(name), variable, case_dims, storage)
    consolidate(path)


def check_version(path: Path, attributes: Mapping[str, Any]) -> None:
    """Raise SciffusionError for a store that another version of this package laid out differently."""
    found = attributes.get(VERSION)
    if found != _VERSION:
        what = f"{path}: ensemble store of version {found}, this sciffusion reads version {_VERSION}"
        newer = isinstance(found, int) and found > _VERSION
        raise SciffusionError(what, "install a newer sciffusion" if newer else "generate it again")


def shapes(template: xr.Dataset, case_dims: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shape of one item (one member of one case) of every data variable."""
    return {
        str(name): tuple(variable.sizes[dim] for dim in variable.dims if dim not in case_dims)
        for name, variable in template.data_vars.items()
    }


def append_members(path: Path, members: Sequence[int]) -> None:
    """Lengthen the member dimension; what is stored stays where it is, and readers see it when all is done."""
    if not members:
        return
    found = arrays(path)
    old = found[MEMBER].shape[0]
    for array in found.values():
        if MEMBER in dims(array):
            array.resize((old + len(members), *array.shape[1:]))
    arrays(path)[MEMBER][old:] = np.asarray(members, np.int64)
    consolidate(path)


def arrays(path: Path) -> dict[str, Any]:
    """The arrays of a store by name, open for writing; a chunk file is written even where all is NaN."""
    with quiet(), zarr.config.set({"array.write_empty_chunks": True}):
        return dict(zarr.open_group(path, mode="r+", use_consolidated=False).arrays())


def dims(array: Any) -> tuple[str, ...]:
    """Dimension names of an array."""
    return tuple(array.metadata.dimension_names or ())


def consolidate(path: Path) -> None:
    """Gather the metadata of all arrays in the root, which readers open first."""
    with quiet():
        zarr.consolidate_metadata(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warning that consolidated metadata are new in Zarr 3."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Cc]onsolidated metadata.*")
        yield


def _coordinates(template: xr.Dataset, members: Sequence[int], case_dims: Sequence[str]) -> xr.Dataset:
    """Coordinates of the ensemble, with the status of every item, without encodings of the source's files."""
    ds = template.coords.to_dataset().drop_vars([MEMBER, STATUS], errors="ignore")
    for name, variable in list(ds.variables.items()):
        if variable.dtype.kind == "U":  # Zarr 3 specifies strings of variable length only
            ds[name] = (variable.dims, variable.values.astype(object), variable.attrs)
            continue
        kept = {"units", "calendar", "dtype"} if np.issubdtype(variable.dtype, np.datetime64) else {"units", "calendar"}
        variable.encoding = {key: value for key, value in variable.encoding.items() if key in kept}
    sizes = [template.sizes[dim] for dim in case_dims]
    status = xr.Variable(
        (MEMBER, *case_dims), np.zeros((len(members), *sizes), bool), {"long_name": "item is complete"}
    )
    return ds.assign_coords({MEMBER: cf.member_coordinate(members), STATUS: status})


def _widened(template: xr.Dataset, members: Sequence[int], case_dims: Sequence[str]) -> xr.Dataset:
    """The template with the member dimension in front and its dims in the order of the store; no data."""
    ds = _coordinates(template, members, case_dims)
    for name, variable in template.data_vars.items():
        core = [dim for dim in variable.dims if dim not in case_dims]
        sizes = {MEMBER: len(members)} | {dim: template.sizes[dim] for dim in (*case_dims, *core)}
        dtype = variable.dtype if variable.dtype.kind == "f" else np.dtype(np.float32)
        nothing = np.broadcast_to(np.array(np.nan, dtype), tuple(sizes.values()))
        ds[name] = xr.Variable(tuple(sizes), nothing, cf.plain_attributes(variable.attrs))
    return ds


def _make_array(
    group: zarr.Group, name: str, variable: xr.Variable, case_dims: Sequence[str], storage: Storage
) -> None:
    lengths, encoder = dict.fromkeys([MEMBER, *case_dims], 1) | dict(storage.chunks), storage.encoder(name)
    group.create_array(
        name,
        shape=variable.shape,
        dtype=encoder.dtype(variable.dtype),
        chunks=tuple(min(lengths.get(str(dim), size), size) for dim, size in variable.sizes.items()),
        compressors=(ZstdCodec(level=1), Crc32cCodec()),
        fill_value=encoder.fill(),
        dimension_names=[str(dim) for dim in variable.dims],
        attributes={**variable.attrs, **encoder.attributes()},
    )
