"""One pass over an ensemble and its reference, block by block, into the totals of a measure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypedDict

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.backend import Backend, BackendName, backend_of
from sciffusion.evaluation.cells import Cells
from sciffusion.evaluation.matching import Matched, Slices, Weights, byte_count, match
from sciffusion.evaluation.measure import Measure
from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.single_cells import Streamed
from sciffusion.evaluation.spool import Members, Spool
from sciffusion.evaluation.streaming import StreamedCRPS
from sciffusion.evaluation.totals import Totals
from sciffusion.evaluation.whole_fields import FieldMeasure
from sciffusion.fields.roles import role_of

__all__ = ["Options", "accumulate"]

UNITS = {"same": "{}", "squared": "({})2", "1": "1"}


class Options(TypedDict, total=False):
    """What every score can be told.

    ``member``: the ensemble dim, where neither standard_name nor name tells. ``dims``: dims to average over, or
    ``keep``: dims to keep (default: average over all). ``weights``: "area" (default), "equal", or an array. ``over``:
    the dim over which intervals resample (default: time). ``memory``: how much may be used beyond data that are in
    memory already, such as "2GB". ``backend``: "numpy" (default) or "torch", on ``device``.
    """

    member: str | None
    dims: str | Sequence[str] | None
    keep: str | Sequence[str] | None
    weights: Weights
    over: str | None
    memory: int | str
    backend: BackendName
    device: str | None


def accumulate(
    measure: Measure,
    ensemble: xr.DataArray,
    reference: xr.DataArray,
    *,
    member: str | None = None,
    dims: str | Sequence[str] | None = None,
    keep: str | Sequence[str] | None = None,
    weights: Weights = "area",
    over: str | None = None,
    memory: int | str = "256MB",
    backend: BackendName = "numpy",
    device: str | None = None,
    **extras: xr.DataArray,
) -> Totals:
    """Totals of ``measure``: ``ensemble`` (member, ...) against ``reference``, in memory, lazy or dask-backed.

    ``extras`` are further fields that the measure needs, by name. See `Options` for the rest.

    Raises
    ------
    SciffusionError
        For dims that are not there, different grids, units that do not convert, or a field that is missing.
    """
    absent = set(measure.extras) - set(extras)
    if absent:
        raise SciffusionError(f"the score needs a {min(absent)}", f"give {min(absent)}=")
    matched = match(ensemble, reference, member, extras)
    kept = _kept(matched, dims, keep)
    sampling = over or _times(matched, kept)
    if sampling is not None and sampling not in matched.dims:
        raise SciffusionError(f"there is no dim {sampling!r} to resample", f"the dims are {', '.join(matched.dims)}")
    area = matched.weights(weights)
    run = _Run(
        matched, measure, area, tuple(d for d in matched.dims if d in {*kept, sampling}), backend_of(backend, device)
    )
    words = weights if isinstance(weights, str) else "given"
    facts = {
        "long_name": measure.title,
        "units": UNITS[measure.units].format(matched.units) if matched.units else "",
        **measure.attributes(matched.members),
        "members": matched.members,
        "weights": {"area": "cell area", "equal": "equal"}.get(words, words),
        "averaged_over": ", ".join(dim for dim in matched.dims if dim not in kept),
    }
    sums = run.sums(byte_count(memory))
    name = None if ensemble.name is None else str(ensemble.name)
    return Totals(measure, sums, sampling, kept, matched.members, name, facts)


@dataclass(frozen=True)
class _Run:
    """``inner`` dims are not summed over in the totals: those kept, and the one that is resampled."""

    matched: Matched
    measure: Measure
    weights: xr.DataArray
    inner: tuple[str, ...]
    backend: Backend

    def sums(self, memory: int) -> xr.Dataset:
        """The totals of all blocks."""
        found: dict[str, np.ndarray] = {}
        sizes = {dim: self.matched.ensemble.sizes[dim] for dim in self.inner}
        for cut, parts in self._parts(memory):
            place = tuple(cut[dim] for dim in self.inner)
            for name, part in parts.items():
                own = part.shape[len(self.inner) :]
                total = found.setdefault(name, np.zeros((*sizes.values(), *own)))
                total[place] += part
        coords = {dim: self.matched.ensemble[dim] for dim in self.inner if dim in self.matched.ensemble.coords}
        arrays = {n: ((*self.inner, *self._own_dims(n, a)), a) for n, a in found.items()}
        return xr.Dataset(arrays, coords)

    def _own_dims(self, name: str, array: np.ndarray) -> tuple[str, ...]:
        return tuple(f"{name}_{i}" for i in range(array.ndim - len(self.inner)))

    def _parts(self, memory: int) -> Iterator[tuple[Slices, Mapping[str, np.ndarray]]]:
        if isinstance(self.measure, FieldMeasure):
            yield from self._fields(self.measure, memory)
        elif isinstance(self.measure, Streamed):
            for cut in self.matched.blocks(memory, members=self.measure.at_a_time):
                yield cut, self._streamed(self.measure, cut)
        else:
            for cut in self.matched.blocks(memory):
                yield cut, self.measure.sums(self._cells(cut, self.matched.read(cut)))

    def _cells(self, cut: Slices, members: np.ndarray) -> Cells:
        shape = members.shape[1:]
        dims = self.matched.dims
        weights = np.asarray(self.matched.spread(self.weights, cut), dtype=np.float64).reshape(-1)
        extras = {name: self.matched.extra(name, cut) for name in self.measure.extras}
        lead = {name: array.ndim - len(shape) for name, array in extras.items()}
        return Cells(
            members.reshape(len(members), -1),
            self.matched.truth(cut).reshape(-1),
            weights,
            shape,
            tuple(axis for axis, dim in enumerate(dims) if dim not in self.inner),
            self.matched.numbers(cut),
            self.backend,
            {name: array.reshape(*array.shape[: lead[name]], -1) for name, array in extras.items()},
        )

    def _streamed(self, measure: Streamed, cut: Slices) -> dict[str, np.ndarray]:
        state, truth = StreamedCRPS(), self.matched.truth(cut).reshape(-1)
        for start in range(0, self.matched.members, measure.at_a_time):
            members = self.matched.read(cut, slice(start, start + measure.at_a_time))
            state.update(members.reshape(len(members), -1), truth, self.backend)
        return measure.streamed_sums(self._cells(cut, members[:1]), *state.result())

    def _fields(self, measure: FieldMeasure, memory: int) -> Iterator[tuple[Slices, Mapping[str, np.ndarray]]]:
        grid = self.matched.grid
        if grid is None or set(grid.dims) & set(self.inner):
            raise SciffusionError(
                "the score is one of whole fields, and the grid is not known or not whole",
                "give data with one to three grid dims, and keep none of them",
            )
        single = {dim: [slice(i, i + 1) for i in range(n)] for dim, n in self.matched.ensemble.sizes.items()}
        cases = [single[dim] if dim not in grid.dims else [slice(None)] for dim in self.matched.dims]
        for corner in product(*cases):
            cut = dict(zip(self.matched.dims, corner, strict=True))
            members, truth = self._whole(cut, memory)
            weights = np.asarray(self.matched.spread(self.weights, cut), dtype=np.float64).reshape(truth.shape)
            pair = Pair.of(members, truth, backend=self.backend)
            sums = measure.field_sums(pair, weights, tuple(grid.periodic[grid.dims.index(d)] for d in self._space))
            shape = (1,) * len(self.inner)
            yield cut, {name: value.reshape(*shape, *value.shape) for name, value in sums.items()}

    @property
    def _space(self) -> list[str]:
        dims = () if self.matched.grid is None else self.matched.grid.dims
        return [dim for dim in self.matched.dims if dim in dims]

    def _whole(self, cut: Slices, memory: int) -> tuple[Members, np.ndarray]:
        """Members (member, *grid) of one case, on disk if they do not fit the memory allowed, and the truth."""
        truth = self.matched.truth(cut)
        shape = tuple(n for n, dim in zip(truth.shape, self.matched.dims, strict=True) if dim in self._space)
        count, size = self.matched.members, truth.size * self.matched.ensemble.dtype.itemsize
        if self.matched.in_memory or count * size <= memory // 2:
            return self.matched.read(cut).reshape(count, *shape), truth.reshape(shape)
        step = max(1, memory // 4 // size)
        blocks = (self.matched.read(cut, slice(i, i + step)) for i in range(0, count, step))
        return Spool(member.reshape(shape) for block in blocks for member in block), truth.reshape(shape)


def _names(dims: str | Sequence[str]) -> tuple[str, ...]:
    return (dims,) if isinstance(dims, str) else tuple(dims)


def _kept(matched: Matched, dims: str | Sequence[str] | None, keep: str | Sequence[str] | None) -> tuple[str, ...]:
    """Dims of the result, in the ensemble's order."""
    if dims is not None and keep is not None:
        raise SciffusionError("both dims to average over and dims to keep", "give one of dims and keep")
    given = _names(dims if dims is not None else keep if keep is not None else ())
    unknown = [dim for dim in given if dim not in matched.dims]
    if unknown:
        raise SciffusionError(f"there is no dim {unknown[0]!r}", f"the dims are {', '.join(matched.dims)}")
    chosen = set(matched.dims) - set(given) if dims is not None else set(given)
    return tuple(dim for dim in matched.dims if dim in chosen)


def _times(matched: Matched, kept: Sequence[str]) -> str | None:
    """The first dim of times that is averaged over."""
    ds = matched.ensemble.to_dataset(name="members")
    return next((dim for dim in matched.dims if role_of(ds, dim) == "time" and dim not in kept), None)
