"""Where an ensemble is made and how it comes to its place.

A new Zarr store is made where it is to be: readers get its complete members at any time. What replaces something, or is
to become NetCDF, is made beside it, as ``NAME.partial``, and takes its place when it is complete; until then whatever
lay there stays.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from sciffusion import stopping
from sciffusion.errors import SciffusionError
from sciffusion.fields import cf
from sciffusion.fields.ensemble import EnsembleStore, is_ensemble_store, open_ensemble, write_netcdf
from sciffusion.fields.identity import differences, misfits
from sciffusion.fields.layout import MEMBER
from sciffusion.fields.output import recover, refuse_existing, remove, temporary, uninterrupted, writing
from sciffusion.generation.processes import Process

__all__ = ["Target"]

_PATIENCE = 600.0  # seconds that a process waits for the first one to make the store


class Target:
    """The output ``path`` of a run, and the store in which it is made meanwhile."""

    def __init__(self, path: Path | str, *, overwrite: bool = False, resume: bool = True) -> None:
        self.path, self.overwrite, self.resume = Path(path), overwrite, resume
        self.netcdf = self.path.suffix in {".nc", ".nc4", ".netcdf"}
        partial = self.path.with_name(f"{self.path.name}.partial")
        with writing(self.path), uninterrupted():
            recover(self.path)
            recover(partial)
        aside = self.netcdf or (overwrite and self.path.exists())
        self.work = partial if aside else self.path
        self._check()

    def _check(self) -> None:
        """Refuse, before any work, what must not be touched."""
        ours = is_ensemble_store(self.path)
        if self.path.is_dir() and not (
            ours or (self.path / "zarr.json").is_file() or (self.path / ".zgroup").is_file()
        ):
            raise SciffusionError(f"{self.path}: a folder that is not a Zarr store", "choose another output")
        if not self.resume or not (ours or self._finished_identity()):
            refuse_existing(self.path, self.overwrite)

    def _finished_identity(self) -> dict[str, Any]:
        """Identity of the NetCDF ensemble that lies there; {} when there is none, or it is to be replaced."""
        if not self.netcdf or self.overwrite or not self.path.is_file():
            return {}
        try:
            with xr.open_dataset(self.path) as ds:
                found: dict[str, Any] = json.loads(ds.attrs.get(cf.IDENTITY, "{}"))
        except (OSError, ValueError):
            return {}
        return found

    def stored_identity(self) -> dict[str, Any]:
        """Identity of what was made or begun earlier; {} when nothing was."""
        begun = EnsembleStore(self.work).identity if is_ensemble_store(self.work) else {}
        return self._finished_identity() or begun

    def finished(self, template: xr.Dataset, members: Sequence[int], identity: Mapping[str, Any]) -> bool:
        """Whether a NetCDF file holds this very ensemble already. Raises SciffusionError when it holds another."""
        stored = self._finished_identity()
        if not stored:
            return False
        with xr.open_dataset(self.path) as ds:
            found = differences(stored, identity) + misfits(ds, template)
            if sorted(members) != ds[MEMBER].values.tolist():
                found.append("other members")
        if found:
            what = f"{self.path}: exists already, and is another ensemble: {'; '.join(found)}"
            raise SciffusionError(what, "choose another output, or give --overwrite")
        return True

    def prepare(
        self,
        process: Process,
        template: xr.Dataset,
        members: Sequence[int],
        case_dims: Sequence[str],
        identity: Mapping[str, Any],
        *,
        fsync: bool = False,
    ) -> EnsembleStore:
        """The store to write to, begun or found again. The first process makes it, the others wait for it."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                if process.rank == 0:
                    with uninterrupted():
                        return self._made(template, members, case_dims, identity, fsync)
                return self._found(template, members, identity, fsync)
            except SciffusionError:
                if process.rank == 0 or time.monotonic() > deadline:
                    raise
                stopping.check()
                time.sleep(0.5)

    def _made(
        self,
        template: xr.Dataset,
        members: Sequence[int],
        case_dims: Sequence[str],
        identity: Mapping[str, Any],
        fsync: bool,
    ) -> EnsembleStore:
        aside = self.work != self.path
        if is_ensemble_store(self.work) and (self.resume or not aside):
            store = EnsembleStore(self.work, fsync=fsync)
            try:
                store.require(template, identity)
            except SciffusionError:
                if not (aside and self.overwrite):
                    raise
            else:
                store.extend(members)
                return store
        return EnsembleStore.create(self.work, template, members, case_dims, identity, overwrite=aside, fsync=fsync)

    def _found(
        self, template: xr.Dataset, members: Sequence[int], identity: Mapping[str, Any], fsync: bool
    ) -> EnsembleStore:
        store = EnsembleStore(self.work, fsync=fsync)
        store.require(template, identity)
        if not set(members) <= set(store.members):
            raise SciffusionError(f"{self.work}: the first process has not added the members yet")
        return store

    def publish(self, store: EnsembleStore) -> None:
        """Finalise the complete store and bring it to its place; one process does it, others pass by."""
        with store.lock() as mine:
            if not mine:
                return
            with uninterrupted():
                store.finalise()
            if self.netcdf:
                write_netcdf(open_ensemble(self.work), self.path, overwrite=self.overwrite)
            with uninterrupted(), writing(self.path):
                if self.netcdf:
                    remove(self.work)
                elif self.work != self.path:
                    self._replace()

    def _replace(self) -> None:
        old = temporary(self.path, "old")
        self.path.rename(old)
        self.work.rename(self.path)
        remove(old)
