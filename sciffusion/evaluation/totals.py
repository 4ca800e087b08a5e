"""The state of a score: weighted sums by name that add up over times, cells and processes, can be kept on disk, and
give the number with its interval.

    totals = accumulate(CRPS(), ensemble.isel(time=part), reference)     # anywhere, in any order
    totals = totals.merge(others)                                        # exactly the sums of all
    totals.result(interval=0.95)
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation import dispersion, events, single_cells, whole_fields
from sciffusion.evaluation.bootstrap import Resampling, block_length, bounds
from sciffusion.evaluation.measure import Measure

__all__ = ["Totals"]

Arrays = Mapping[str, np.ndarray]
Facts = dict[str, Any]

SERIES = 64  # kept positions by which the length of blocks is estimated
VALUES = 1 << 22  # numbers that a bootstrap holds at a time
ESTIMATES = ["value", "lower", "upper"]


@dataclass(frozen=True)
class Totals:
    """Sums of one variable: ``sums`` (sampling dim, kept dims, own dims of the measure) by name.

    ``sampling`` is the dim over which intervals are taken, None without one; it is summed in the result, unless it is
    ``kept``. ``facts`` are the attributes of the result.
    """

    measure: Measure
    sums: xr.Dataset
    sampling: str | None = None
    kept: tuple[str, ...] = ()
    members: int = 0
    name: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def merge(self, other: "Totals") -> "Totals":
        """Sums of both, labels matched. Raises SciffusionError for another measure or other dims."""
        if self.measure != other.measure or self.kept != other.kept or self.sampling != other.sampling:
            raise SciffusionError("totals of different measures or dims", "merge parts of one calculation")
        nameless = [dim for dim in (*self.kept, self.sampling) if dim is not None and dim not in self.sums.indexes]
        if nameless:
            raise SciffusionError(f"{nameless[0]} has no labels to merge by", f"give {nameless[0]} a coordinate")
        both = xr.align(self.sums, other.sums, join="outer", fill_value=0.0)
        return replace(self, sums=both[0] + both[1], members=max(self.members, other.members))

    def result(self, interval: float | None = None, block: int | None = None) -> xr.DataArray:
        """The score; with ``interval`` (a level such as 0.95) along a dim ``estimate`` of value, lower and upper.

        The interval is a block bootstrap over the sampling dim with blocks of ``block`` labels, by default as long as
        the score hangs together; with fewer than ten blocks it is withheld (NaN), and the attribute
        ``interval_method`` says why.
        """
        if interval is not None and not 0 < interval < 1:
            raise SciffusionError(f"an interval of {interval:g}", "give a level between 0 and 1, such as 0.95")
        if block is not None and block < 1:
            raise SciffusionError(f"blocks of {block}", "give a number of 1 or more")
        value = self._value()
        if interval is None:
            return value
        ends, facts = self._bounds(value, interval, block)
        array = xr.concat([value, *ends], "estimate", coords="minimal", compat="override", combine_attrs="override")
        array = array.assign_coords(estimate=ESTIMATES).transpose(..., "estimate")
        return array.assign_attrs({"interval_level": interval, **facts})

    def _value(self) -> xr.DataArray:
        summed = self.sums.sum(self._over) if self._over else self.sums
        own = self.measure.coords(self.members)
        coords = {dim: summed[dim] for dim in self.kept if dim in summed.coords}
        everything = _arrays(summed.sum(self.kept))
        facts = dict(self.facts) | self.measure.remarks(everything)
        values = self._measured(_arrays(summed))
        return xr.DataArray(values, {**coords, **own}, (*self.kept, *own), self.name, facts)

    @property
    def _over(self) -> str | None:
        return self.sampling if self.sampling not in self.kept else None

    def _measured(self, sums: Arrays) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.measure.result(sums)

    def _bounds(
        self, value: xr.DataArray, level: float, block: int | None
    ) -> tuple[list[xr.DataArray], dict[str, Any]]:
        """Lower and upper bound, and how they came about."""
        if self._over is None:
            reason = f"{self.sampling} is kept" if self.sampling else "no dim of times was averaged over"
            plan = Resampling(None, f"withheld: {reason}, so nothing can be resampled")
        else:
            plan = Resampling.plan(self.sums.sizes[self._over], None, block or self._length())
        found, tests = np.full((2, value.size), np.nan), dict[str, Any]()
        if plan.counts is not None:
            portions = list(self._resampled(plan.counts[:, :, 0], value.shape))
            found = np.concatenate([bounds(drawn.reshape(len(drawn), -1), level) for drawn in portions]).T
            tests = {} if self.kept else self.measure.tests(value.values, portions[0][:, 0])
        arrays = [value.copy(data=bound.reshape(value.shape)) for bound in found]
        return arrays, {"interval_method": plan.label, **tests}

    def _length(self) -> int:
        """How many labels hang together, by the score of every label."""
        sums = _arrays(self.sums.transpose(self._over, ...))
        values = self._measured(sums)
        series = values.reshape(len(values), -1)
        series = series[:, np.isfinite(series).all(axis=0)]
        return block_length(series[:, :: max(1, series.shape[1] // SERIES)])

    def _resampled(self, counts: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Values (resample, position, *own dims) of portions of the kept positions."""
        kept = shape[: len(self.kept)]
        sums = _arrays(self.sums.transpose(self._over, *self.kept, ...))
        flat = {n: a.reshape(len(a), prod(kept), *a.shape[1 + len(kept) :]) for n, a in sums.items()}
        step = max(1, VALUES // (len(counts) * max(a[0, 0].size for a in flat.values())))
        for start in range(0, prod(kept), step):
            yield self._measured({n: np.tensordot(counts, a[:, start : start + step], 1) for n, a in flat.items()})

    def save(self, path: str | Path) -> None:
        """Write the sums as NetCDF."""
        head: dict[str, Any] = {
            "class": type(self.measure).__name__,
            "settings": _settings(self.measure),
            "facts": dict(self.facts),
        }
        head |= {"sampling": self.sampling, "kept": list(self.kept), "members": self.members, "name": self.name}
        self.sums.assign_attrs(totals=json.dumps(head)).to_netcdf(path, engine="netcdf4")

    @classmethod
    def load(cls, path: str | Path) -> "Totals":
        """What ``save`` wrote. Raises SciffusionError for another file."""
        try:
            with xr.open_dataset(path, engine="netcdf4") as ds:
                sums = ds.load()
            head = json.loads(sums.attrs.pop("totals"))
            measure = _measure(head["class"], head["settings"])
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise SciffusionError(f"{path} holds no totals of a score: {error}", "give a file that was saved") from None
        return cls(measure, sums, head["sampling"], tuple(head["kept"]), head["members"], head["name"], head["facts"])


def _arrays(sums: xr.Dataset) -> Arrays:
    return {str(name): array.values for name, array in sums.items()}


def _settings(measure: Measure) -> dict[str, Any]:
    settings = asdict(measure)
    if isinstance(measure, single_cells.Skill):
        settings["measure"] = {"class": type(measure.measure).__name__, "settings": _settings(measure.measure)}
    return settings


def _measure(name: str, settings: Mapping[str, Any]) -> Measure:
    rooms = (single_cells, dispersion, events, whole_fields)
    kind: type[Measure] = next(getattr(room, name) for room in rooms if name in room.__all__)
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    if "measure" in plain:
        plain["measure"] = _measure(plain["measure"]["class"], plain["measure"]["settings"])
    return kind(**plain)
