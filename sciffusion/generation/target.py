"""Where an ensemble is made and how it comes to its place.

A new Zarr store is made where it is to be: readers get its complete members at any time. What replaces something, or is
to become NetCDF, is made beside it, as ``NAME.partial``, and takes its place when it is complete; until then whatever
lay there stays.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from sciffusion import stopping
from sciffusion.errors import SciffusionError
from sciffusion.fields import cf
from sciffusion.fields.ensemble import EnsembleStore, is_ensemble_store, open_ensemble, write_netcdf
from sciffusion.fields.identity import EXECUTION, differences, execution_of, misfits, without_execution
from sciffusion.fields.layout import MEMBER
from sciffusion.fields.output import recover, refuse_existing, remove, temporary, uninterrupted, writing
from sciffusion.generation.processes import Process

__all__ = ["Target", "Wanted"]

_PATIENCE = 600.0  # seconds that a process waits for the first one to make the store


@dataclass(frozen=True)
class Wanted:
    """What a run wants to find in its output: ``template`` has dims (*case_dims, *grid) and no data."""

    template: xr.Dataset
    members: Sequence[int]
    case_dims: Sequence[str]
    identity: Mapping[str, Any]
    allow_mixed: bool = False
    fsync: bool = False

    def adds_to(self, store: EnsembleStore) -> bool:
        """Whether there is anything to make."""
        return not set(self.members) <= set(store.members) or not store.completed().all()

    def join(self, store: EnsembleStore) -> None:
        """Write to ``store`` from now on as this run executes. Raises SciffusionError where that is not allowed."""
        store.execute_as(execution_of(self.identity), mixed=self.allow_mixed)


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

    def finished(self, wanted: Wanted) -> bool:
        """Whether a NetCDF file holds this very ensemble already. Raises SciffusionError when it holds another."""
        stored = self._finished_identity()
        if not stored:
            return False
        with xr.open_dataset(self.path) as ds:
            found = differences(without_execution(stored), without_execution(wanted.identity))
            found += misfits(ds, wanted.template)
            if sorted(wanted.members) != ds[MEMBER].values.tolist():
                found.append("other members")
        if found:
            what = f"{self.path}: exists already, and is another ensemble: {'; '.join(found)}"
            raise SciffusionError(what, "choose another output, or give --overwrite")
        return True

    def prepare(self, process: Process, wanted: Wanted, batch_size: Callable[[], int]) -> EnsembleStore:
        """The store to write to, begun or found again. The first process of a job makes it, the others wait for it.

        ``batch_size`` is asked for when a store is made and ``wanted`` leaves it open.
        """
        if process.leads:
            with uninterrupted():
                return self._resumed(wanted) or self._made(wanted, batch_size)
        return self._awaited(wanted)

    def _resumed(self, wanted: Wanted) -> EnsembleStore | None:
        """The store that lies there, with all members; None when a new one has to be made."""
        aside = self.work != self.path
        if not (is_ensemble_store(self.work) and (self.resume or not aside)):
            return None
        store = EnsembleStore(self.work, fsync=wanted.fsync)
        try:
            store.require(wanted.template, wanted.identity)
            if wanted.adds_to(store):
                wanted.join(store)
        except SciffusionError:
            if aside and self.overwrite:  # an abandoned replacement of other settings
                return None
            raise
        store.extend(wanted.members)
        return store

    def _made(self, wanted: Wanted, batch_size: Callable[[], int]) -> EnsembleStore:
        execution = {"batch_size": None} | execution_of(wanted.identity)
        execution["batch_size"] = execution["batch_size"] or batch_size()
        replaces = self.work != self.path and is_ensemble_store(self.work)
        try:
            return EnsembleStore.create(
                self.work,
                wanted.template,
                wanted.members,
                wanted.case_dims,
                {**wanted.identity, EXECUTION: execution},
                overwrite=replaces,
                fsync=wanted.fsync,
            )
        except SciffusionError:
            if replaces or not is_ensemble_store(self.work):
                raise
            return self._awaited(wanted)  # another job was faster

    def _awaited(self, wanted: Wanted) -> EnsembleStore:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                store = EnsembleStore(self.work, fsync=wanted.fsync)
                store.require(wanted.template, wanted.identity)
                if set(wanted.members) <= set(store.members):
                    return store
                raise SciffusionError(f"{self.work}: the first process has not added the members yet")
            except SciffusionError:
                if time.monotonic() > deadline:
                    raise
                stopping.check()
                time.sleep(0.5)

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
