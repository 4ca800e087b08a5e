"""Scores while members are made: every case is judged when it is whole, and its sums stay when its members go."""

import logging
from pathlib import Path

import dask
import xarray as xr

from sciffusion.evaluation.growing import Growing
from sciffusion.fields import layout
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.fields.identity import digest
from sciffusion.fields.layout import MEMBER, STATUS
from sciffusion.fields.markers import FOLDER

__all__ = ["Scoring", "judge_of", "state_of"]

log = logging.getLogger("sciffusion")


def state_of(path: Path) -> Path:
    """Where the sums of the ensemble ``path`` are: the ``state`` of its evaluation."""
    return path.with_name(f"{path.stem}.scores.npz")


def judge_of(template: xr.Dataset, reference: xr.Dataset) -> Growing:
    """What judges the cases of an ensemble to be, which is like ``template`` without its members.

    Raises SciffusionError when the reference does not fit.
    """
    return Growing(template.expand_dims({MEMBER: [0, 1]}), reference)


class Scoring:
    """Has ``sums`` judge the cases of ``store``; sums of each case in a file of its own, renamed into place."""

    def __init__(self, store: EnsembleStore, sums: Growing) -> None:
        self.store, self._sums = store, sums
        self.folder = store.path / FOLDER / ".scores"
        self.folder.mkdir(exist_ok=True)
        with layout.quiet():
            self._ensemble = xr.open_zarr(store.path, chunks={}, consolidated=False).drop_vars(STATUS)
        self._members = digest({"members": store.members})

    def done(self, case: int) -> bool:
        """Whether a case has been judged with all members of the store."""
        return self._path(case).is_file()

    def judge(self, case: int) -> None:
        """Judge one case, all of whose members are complete."""
        places = zip(self.store.case_dims, self.store.place(case), strict=True)
        members = self._ensemble.isel({dim: [index] for dim, index in places})
        with dask.config.set(scheduler="synchronous"):
            self._sums.judge(case, members, self._path(case))

    def join(self, path: Path) -> None:
        """Write the sums of all cases to ``path``."""
        self._sums.join(sorted(self.folder.glob(f"*-{self._members}.npz")), path)
        log.info("scores are in %s: give it to sciffusion evaluate as --state", path)

    def _path(self, case: int) -> Path:
        return self.folder / f"{case:08d}-{self._members}.npz"
