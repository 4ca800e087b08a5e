"""Where an ensemble is made and how it comes to its place.

A new Zarr store is made where it is to be: readers get its complete members at any time. What replaces something, or is
to become NetCDF, is made beside it, as ``NAME.partial``, and takes its place when it is complete; until then whatever
lay there stays. What will hold a part of what is made (statistics instead of members, or the members that are complete
at a deadline) is made beside it too, as ``NAME.making``, and the part is put in its place at once.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from sciffusion import stopping
from sciffusion.errors import SciffusionError
from sciffusion.fields import cf
from sciffusion.fields.ensemble import EnsembleStore, is_ensemble_store, open_ensemble, write_netcdf
from sciffusion.fields.excerpt import excerpt
from sciffusion.fields.identity import EXECUTION, differences, execution_of, misfits, without_execution
from sciffusion.fields.layout import MEMBER
from sciffusion.fields.locks import held
from sciffusion.fields.output import recover, refuse_existing, remove, replace, temporary, uninterrupted, writing
from sciffusion.generation.processes import Process

__all__ = ["Target", "Wanted"]

log = logging.getLogger("sciffusion")
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
    kept: Sequence[int] | None = None  # members that the output shall have, if not all

    def adds_to(self, store: EnsembleStore) -> bool:
        """Whether there is anything to make."""
        return not set(self.members) <= set(store.members) or not store.completed().all()

    def join(self, store: EnsembleStore) -> None:
        """Write to ``store`` from now on as this run executes. Raises SciffusionError where that is not allowed."""
        store.execute_as(execution_of(self.identity), mixed=self.allow_mixed)


_OTHERS = {".zip", ".h5", ".hdf5", ".he5", ".cdf", ".nc3", ".grib", ".grb", ".grib2", ".tif", ".npz", ".npy", ".csv"}


class Target:
    """The output ``path`` of a run, and the store in which it is made meanwhile."""

    def __init__(self, path: Path | str, *, overwrite: bool = False, resume: bool = True, making: bool = False) -> None:
        self.path, self.overwrite, self.resume = Path(path), overwrite, resume
        self.netcdf = self.path.suffix in {".nc", ".nc4", ".netcdf"}
        partial = self.path.with_name(f"{self.path.name}.partial")
        beside = self.path.with_name(f"{self.path.name}.making")
        with writing(self.path), uninterrupted():
            for one in (self.path, partial, beside):
                recover(one)
        self.making = making or is_ensemble_store(beside)
        if self.making and self.netcdf:
            what = f"{self.path}: a NetCDF file with statistics, or with a part of the members"
            raise SciffusionError(what, "choose a Zarr output: NAME.zarr")
        aside = self.netcdf or (overwrite and self.path.exists())
        self.work = beside if self.making else partial if aside else self.path
        self._check()

    def _check(self) -> None:
        """Refuse, before any work, what must not be touched."""
        if self.path.suffix.lower() in _OTHERS:
            raise SciffusionError(
                f"{self.path}: ensembles are Zarr stores or NetCDF4 files", "choose NAME.zarr or NAME.nc"
            )
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
        if self.making:
            return self._holds(wanted)
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

    def _holds(self, wanted: Wanted) -> bool:
        """Whether all that is wanted has been put in place; what it was made in is then removed."""
        if self.overwrite or not is_ensemble_store(self.path):
            return False
        store = EnsembleStore(self.path)
        store.require(wanted.template, wanted.identity)
        members = wanted.members if wanted.kept is None else wanted.kept
        whole = set(members) <= set(store.members) and bool(store.completed().all())
        if whole:
            remove(self.work)
        return whole

    def prepare(self, process: Process, wanted: Wanted, choose: Callable[[], dict[str, Any]]) -> EnsembleStore:
        """The store to write to, begun or found again. Whoever comes first begins it, the others wait.

        ``choose`` is asked, when a store is made, for what the execution in ``wanted`` leaves open. Where the file
        system has no locks, the first process of a job begins. Raises SciffusionError where all is in place already.
        """
        lock = self.path.with_name(f".{self.path.name}.lock")
        refuse_existing(self.path, True)
        deadline = time.monotonic() + _PATIENCE
        while True:
            with held(lock, without_locks=process.leads, remove=True) as first:
                if first:
                    with uninterrupted():
                        if self.finished(wanted):
                            raise SciffusionError(f"{self.path} is complete already")
                        self._begin()
                        return self._resumed(wanted) or self._made(wanted, choose)
            found = self._found(wanted)
            if found is not None:
                return found
            if time.monotonic() > deadline:
                what = f"{self.work}: another process has not begun it in {_PATIENCE:.0f} s"
                raise SciffusionError(what, "see what its log says")
            stopping.check()
            time.sleep(0.2)

    @contextmanager
    def unless_overtaken(self, wanted: Wanted) -> Iterator[None]:
        """End the block without its error where another process has put all that is wanted in place meanwhile.

        What is made aside is gone then, at whatever point of the block that happened.
        """
        try:
            yield
        except Exception:
            if self.work == self.path or is_ensemble_store(self.work) or not self.finished(wanted):
                raise
            log.info("%s was completed by another process", self.path)

    def _found(self, wanted: Wanted) -> EnsembleStore | None:
        """The store, once another process has begun it as wanted."""
        try:
            store = EnsembleStore(self.work, fsync=wanted.fsync)
            store.require(wanted.template, wanted.identity)
        except SciffusionError:
            return None
        return store if set(wanted.members) <= set(store.members) else None

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

    def _begin(self) -> None:
        """Begin what is made aside with the members that the output has already."""
        if self.making and is_ensemble_store(self.path) and not (self.overwrite or is_ensemble_store(self.work)):
            new, store = temporary(self.work, "new"), EnsembleStore(self.path)
            excerpt(store, new, store.members)
            try:
                new.rename(self.work)
            except OSError:  # another job was faster
                remove(new)

    def _made(self, wanted: Wanted, choose: Callable[[], dict[str, Any]]) -> EnsembleStore:
        execution = choose() | execution_of(wanted.identity)
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
            return EnsembleStore(self.work, fsync=wanted.fsync)  # another job was faster, on a disk without locks

    def publish(
        self, store: EnsembleStore, kept: Sequence[int] | None = None, finish: Callable[[], None] = lambda: None
    ) -> None:
        """Finalise the complete store and bring it to its place; one process does it, others pass by.

        ``kept`` are the members that stay, if not all; ``finish`` is called by the process that publishes.
        """
        with store.lock(wait=self.making) as mine:  # another process may be putting a part in place
            if not mine or not is_ensemble_store(self.work):
                return
            finish()
            with uninterrupted():
                store.finalise()
            if self.netcdf:
                write_netcdf(open_ensemble(self.work), self.path, overwrite=self.overwrite)
            with uninterrupted(), writing(self.path):
                if self.netcdf:
                    remove(self.work)
                elif kept is not None:
                    self._put(store, kept)
                    remove(self.work)
                elif self.work != self.path:
                    replace(self.work, self.path)

    def publish_part(self, store: EnsembleStore) -> int:
        """Put the members that are complete for all cases in place, by one rename; how many there are.

        The store stays where it is, to be gone on with. With several processes the last one has the most.
        """
        with store.lock(wait=True) as mine, uninterrupted(), writing(self.path):
            if not mine or not is_ensemble_store(
                self.work
            ):  # another process has made the last item, and put all in place
                return len(EnsembleStore(self.path).members)
            members = [member for member, done in zip(store.members, store.completed(), strict=True) if done.all()]
            if members and not self._has(members):
                self._put(store, members)
            return len(members)

    def _has(self, members: Sequence[int]) -> bool:
        return is_ensemble_store(self.path) and EnsembleStore(self.path).members == list(members)

    def _put(self, store: EnsembleStore, members: Sequence[int]) -> None:
        new = temporary(self.path, "new")
        excerpt(store, new, members)
        replace(new, self.path)
