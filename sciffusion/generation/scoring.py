"""Scores while members are made: every case is judged when it is whole, and its sums stay when its members go."""

import logging
from pathlib import Path

import dask
import xarray as xr

from sciffusion.evaluation.growing import Growing
from sciffusion.fields import layout
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.fields.identity import digest
from sciffusion.fields.layout import STATUS
from sciffusion.fields.markers import FOLDER

__all__ = ["Scoring", "state_of"]

log = logging.getLogger("sciffusion")


def state_of(path: Path) -> Path:
    """Where the sums of the ensemble ``path`` are: the ``state`` of its evaluation."""
    return path.with_name(f"{path.stem}.scores.npz")


class Scoring:
    """Judges cases of ``store`` against ``reference``; sums of each case in a file of its own, renamed into place.

    Raises SciffusionError when the reference does not fit.
    """

    def __init__(self, store: EnsembleStore, reference: xr.Dataset) -> None:
        self.store = store
        self.folder = store.path / FOLDER / ".scores"
        self.folder.mkdir(exist_ok=True)
        with layout.quiet():
            self._ensemble = xr.open_zarr(store.path, chunks={}, consolidated=False).drop_vars(STATUS)
        self._sums = Growing(self._ensemble, reference)
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
