"""The ensemble store: Zarr that several processes fill, that any of them may be killed over, and that anybody can read.

One process makes the skeleton, complete with coordinates, under a temporary name and renames it. Items, one member of
one case, are written in any order by any process; each ends with its marker. Readers get marked items only.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from sciffusion.errors import SciffusionError
from sciffusion.fields import cf, chunks, layout
from sciffusion.fields.executions import read_executions, record_execution
from sciffusion.fields.guard import check_zarr, require_inside
from sciffusion.fields.identity import EXECUTION, differences, digest, execution_of, misfits, without_execution
from sciffusion.fields.layout import MEMBER, STATUS
from sciffusion.fields.locks import held
from sciffusion.fields.markers import COARSE_MISFIT, FOLDER, Fault, Markers
from sciffusion.fields.output import refuse_existing, remove, replace, temporary, write_netcdf, writing
from sciffusion.fields.reader import completed, is_ensemble_store, open_ensemble
from sciffusion.fields.storage import STORAGE, Storage, encoded

__all__ = ["EnsembleStore", "Status", "is_ensemble_store", "open_ensemble", "write_netcdf"]


@dataclass(frozen=True)
class Status:
    """What a store holds: ``complete`` is Bool (member, case), cases in C order of ``case_dims``."""

    members: list[int]
    case_dims: dict[str, int]
    complete: NDArray[np.bool_]
    identity: dict[str, Any]
    executions: list[dict[str, Any]]

    @property
    def missing(self) -> int:
        """Number of items still to be made."""
        return int((~self.complete).sum())


class EnsembleStore:
    """An ensemble on disk, open for writing; made by `create`, found again by `open`."""

    def __init__(self, path: Path | str, *, fsync: bool = False) -> None:
        self.path, self.fsync = Path(path), fsync
        if not is_ensemble_store(self.path):
            raise SciffusionError(
                f"{self.path}: not an ensemble store of sciffusion", "give the path of a store that generate wrote"
            )
        check_zarr(self.path)
        self.markers = Markers(self.path)
        group = zarr.open_group(self.path, mode="r", use_consolidated=False)
        layout.check_version(self.path, dict(group.attrs))
        self.case_dims = tuple(str(group.attrs[layout.CASE_DIMS]).split())
        names: Any = group.attrs[layout.VARIABLES]
        self.variables = tuple(map(str, names))
        self.identity: dict[str, Any] = json.loads(str(group.attrs[cf.IDENTITY]))
        self.execution = execution_of(self.identity)
        self.storage = Storage.from_json(self.identity.get(STORAGE, {}))
        self._read_arrays()

    def _read_arrays(self) -> None:
        arrays = layout.arrays(self.path)
        self.members = [int(member) for member in arrays[MEMBER][:]]
        self.case_shape = arrays[STATUS].shape[1:]
        self._arrays = {name: arrays[name] for name in self.variables if name in arrays}
        for name, array in self._arrays.items():
            chunks.require_codecs(self.path, name, array)
        self._position = {member: index for index, member in enumerate(self.members)}

    @classmethod
    def create(
        cls,
        path: Path | str,
        template: xr.Dataset,
        members: Iterable[int],
        case_dims: Sequence[str],
        identity: Mapping[str, Any],
        *,
        overwrite: bool = False,
        fsync: bool = False,
    ) -> "EnsembleStore":
        """Make a store for ``members`` of every case of ``template``, a Dataset without member dim and without data.

        The store appears at once, by a rename. Raises SciffusionError when something lies there (unless
        ``overwrite``) or nothing can be written there; what lay there is then left as it was.
        """
        path = Path(path)
        refuse_existing(path, overwrite)
        grid = [str(dim) for dim in template.sizes if dim not in case_dims]
        Storage.from_json(identity.get(STORAGE, {})).require(map(str, template.data_vars), grid)
        new = temporary(path, "new")
        with writing(path):
            remove(new)
            try:
                layout.make(new, template, list(members), case_dims, identity)
                (new / FOLDER).mkdir()
                record_execution(new, execution_of(identity))
                if overwrite:
                    replace(new, path)
                else:
                    new.rename(path)  # fails when another process has put its own there meanwhile
            finally:
                remove(new)
        return cls(path, fsync=fsync)

    def require(self, template: xr.Dataset, identity: Mapping[str, Any]) -> None:
        """Raise SciffusionError, naming what differs, unless the store is of this template and identity.

        Its execution is not compared; see `execute_as`.
        """
        found = differences(without_execution(self.identity), without_execution(identity)) + self._misfits(template)
        if found:
            raise SciffusionError(
                f"{self.path}: made with another model or other settings: {'; '.join(found)}",
                "choose another output, give the settings of the store, or --overwrite to begin anew",
            )

    def execute_as(self, execution: Mapping[str, Any], *, mixed: bool = False) -> None:
        """Write items from now on as made by ``execution``; what it leaves open is as in the store.

        Raises SciffusionError when it differs from the store's, unless ``mixed`` allows it; the store records it then.
        """
        stored = execution_of(self.identity)
        used = stored | dict(execution)
        found = differences(stored, used)
        if found and not mixed:
            raise SciffusionError(
                f"{self.path}: was begun elsewhere: {'; '.join(found)}",
                "continue it there, or give --allow-mixed: items are then what they would have been there up to "
                "rounding errors, not bitwise, and the store says so",
            )
        with writing(self.path):
            record_execution(self.path, used)
        self.execution = used

    def _misfits(self, template: xr.Dataset) -> list[str]:
        """What of the template's variables, shapes and coordinates the store does not have."""
        found = []
        shapes = {name: array.shape[1 + len(self.case_dims) :] for name, array in self._arrays.items()}
        wanted = layout.shapes(template, self.case_dims)
        if shapes != wanted:
            found.append(f"variables: the store has {shapes}, this run would write {wanted}")
        with layout.quiet(), xr.open_zarr(self.path, chunks=None, consolidated=False) as stored:
            return found + misfits(stored, template)

    def extend(self, members: Iterable[int]) -> None:
        """Add members; those that are there already are left alone."""
        new = [member for member in members if member not in self._position]
        if not new:
            return
        with self.lock(wait=True), writing(self.path):
            self._read_arrays()  # another job may have added them meanwhile
            layout.append_members(self.path, [member for member in new if member not in self._position])
            self._read_arrays()

    def write(
        self, case: int, member: int, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any] | None = None
    ) -> None:
        """Write one item, every variable (*channel dims, *grid), then its marker, with ``facts`` about the item.

        ``case`` counts in C order over the case dims. Raises SciffusionError when the disk is full or read-only, or a
        value does not fit its packing; the item is then incomplete and all others are untouched.
        """
        self._check_item(member, arrays)
        index = (self._position[member], *self.place(case))
        kept = {name: encoded(name, self.storage.encoder(name), self._plain(name, arrays)) for name in self._arrays}
        with writing(self.path):
            placed = [(name, *block) for name in kept for block in chunks.blocks(kept[name], self._arrays[name], index)]
            for path in (self.markers.aside, *(self.path / name / key for name, key, _ in placed)):
                require_inside(self.path, path)  # before anything changes
            self.markers.withdraw(case, member)
            sums = {f"{name}/{key}": self._write_chunk(name, key, block) for name, key, block in placed}
            self.markers.write(case, member, sums, {**self._facts(), **(facts or {})}, fsync=self.fsync)

    def as_read(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What readers will get of an item: the same, but for rounding or packing."""
        encoders = {name: self.storage.encoder(name) for name in self._arrays}
        return {name: e.decode(e.encode(name, self._plain(name, arrays))) for name, e in encoders.items()}

    def _plain(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Values of a variable in the dtype that the store gives readers."""
        dtype = self._arrays[name].dtype
        return np.asarray(arrays[name], dtype if dtype.kind == "f" else np.float32)

    def place(self, case: int) -> tuple[int, ...]:
        """Index of a case along every case dim."""
        return tuple(int(i) for i in np.unravel_index(case, self.case_shape)) if self.case_shape else ()

    def item(self, name: str) -> tuple[tuple[int, ...], int]:
        """Shape of one item of variable ``name``, (*channel dims, *grid), and bytes per value."""
        array = self._arrays[name]
        return tuple(array.shape[1 + len(self.case_dims) :]), array.dtype.itemsize

    def read(self, case: int, name: str, part: slice = slice(None), *, members: slice = slice(None)) -> NDArray[Any]:
        """Variable ``name`` of one case, (member, *channel dims, *grid): rows ``members``, ``part`` of their first dim.

        Raises SciffusionError when a chunk is damaged.
        """
        try:
            stored = np.asarray(self._arrays[name][(members, *self.place(case), part)])
        except ValueError as error:
            what = f"{self.path}: {name} of case {case} is damaged: {error}"
            raise SciffusionError(what, "run the same command again: it makes damaged items anew") from error
        return self.storage.encoder(name).decode(stored)

    def _check_item(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        if member not in self._position:
            raise SciffusionError(f"{self.path}: has no member {member}", f"its members are {self.members}")
        lead = 1 + len(self.case_dims)
        for name, array in self._arrays.items():
            if name not in arrays or arrays[name].shape != array.shape[lead:]:
                given = arrays[name].shape if name in arrays else "nothing"
                raise SciffusionError(f"{self.path}: {name} takes {array.shape[lead:]}, not {given}")

    def _write_chunk(self, name: str, key: str, block: NDArray[Any]) -> list[int]:
        """Write one chunk of a variable: its size and checksum."""
        data = chunks.encode(block, self._arrays[name].dtype)
        return chunks.write(self.path / name / key, data, self.markers.aside, fsync=self.fsync)

    def _facts(self) -> dict[str, Any]:
        who = digest(without_execution(self.identity))
        return {"seed": self.identity.get("seed"), "identity": who, EXECUTION: digest(self.execution)}

    def completed(self) -> NDArray[np.bool_]:
        """Bool (member, case): which items need not be made, those reduced to statistics included."""
        return completed(self.markers.made(), self._position, self.case_shape)

    def status(self) -> Status:
        """What is complete, and of which model and settings."""
        sizes = dict(zip(self.case_dims, self.case_shape, strict=True))
        executions = list(read_executions(self.path).values())
        return Status(self.members, sizes, self.completed(), self.identity, executions)

    def verify(self, items: Iterable[tuple[int, int]] | None = None, *, checksums: bool = True) -> list[Fault]:
        """Compare the files of complete (case, member) items with their markers; all items when None."""
        chosen = self.markers.complete() if items is None else items
        faults = (self.markers.check(case, member, checksums=checksums) for case, member in chosen)
        return [fault for fault in faults if fault is not None]

    def withdraw(self, faults: Iterable[Fault]) -> None:
        """Count faulty items as missing, so that the next run makes them again."""
        with writing(self.path):
            for fault in faults:
                self.markers.withdraw(fault.case, fault.member)

    def lock(self, *, wait: bool = False) -> AbstractContextManager[bool]:
        """Whether this process may change the whole store: False when the store has gone, or while another one does.

        With ``wait`` it waits for the other one.
        """
        return held(self.path / FOLDER / ".lock", without_locks=True, wait=wait)

    def claim(self, share: str, *, own: bool) -> AbstractContextManager[bool]:
        """Whether this process may make the items of ``share``: False while another one does.

        Where there are no locks it may make its ``own`` ones only.
        """
        return held(self.path / FOLDER / f".{share}.lock", without_locks=own, remove=True)

    def finalise(self) -> None:
        """Write the status coordinate, remove what killed writers left, gather the metadata; only when none writes."""
        complete, executions = self.completed(), list(read_executions(self.path).values())
        with writing(self.path):
            self.markers.sweep()
            zarr.open_group(self.path, mode="r+").attrs[cf.EXECUTIONS] = json.dumps(executions, sort_keys=True)
            status = layout.arrays(self.path)[STATUS]
            status[...] = complete.reshape(status.shape).astype(status.dtype)
            if self.storage.lossy:
                for name, misfit in self.markers.largest(COARSE_MISFIT).items():
                    self._arrays[name].attrs[COARSE_MISFIT] = misfit
            layout.consolidate(self.path)
