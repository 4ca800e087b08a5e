"""A coarse field as a condition: interpolated to the fine grid, as the baseline, and as the data of a constraint.

Its data are either on the coarse grid, or on the fine grid, and then coarsened conservatively case by case; a
window reads no more than it needs. Besides the interpolated field the network is told where in its coarse cell each
fine cell lies (cosine and sine of the phase), on which the spread of the residual depends.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, islice
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion import config
from sciffusion.conditioners.base import Conditioner, Inputs, Training, Window
from sciffusion.conditioners.coarse_source import CoarseSource
from sciffusion.conditioners.missing import fill, widened
from sciffusion.conditioners.phase import phases
from sciffusion.conditioners.ranges import Moments, beyond
from sciffusion.conditioners.reading import noted, read, told_names
from sciffusion.fields.cases import Case
from sciffusion.fields.coarsen import Interpolation, conservative, refine
from sciffusion.fields.conventions import harmonise
from sciffusion.fields.grid import Grid
from sciffusion.fields.resample import SeparableMap

__all__ = ["CoarseField"]

BLOCK = 4_000_000  # values read at a time when whole fields are measured
HEAD = 8  # blocks from which open parameters of transforms are chosen
BUDGET = 60  # blocks that the constants are measured on; a small data set has fewer


class CoarseField(Conditioner):
    """Coarse variables on the fine grid.

    source : what its data look like; coarse_grid : their grid; names : (variable, index) of their channels. The network
    sees a variable through the target's transform, where that has the same variable.
    """

    kind: ClassVar[str] = "coarse"
    settings_type: ClassVar[type[config.Settings]] = config.CoarseField
    needs_data: ClassVar[bool] = True
    settings: config.CoarseField
    low: Tensor
    high: Tensor
    mean: Tensor

    def __init__(self, name: str, settings: config.CoarseField, grid: Grid, source: CoarseSource) -> None:
        self.source, self.names, self.coarse_grid = source, source.names, source.grid
        self.phases = phases(grid, source.grid)
        super().__init__(name, settings, grid, channels=len(self.names) + 2 * len(self.phases) + source.gaps)
        for key in ("low", "high", "mean"):
            self.register_buffer(key, torch.zeros(len(self.names)))

    @classmethod
    def build(
        cls, name: str, settings: config.CoarseField, data: xr.Dataset | None, training: Training
    ) -> "CoarseField":
        """Measure the coarse values of the training cases; without source ``data`` is the target itself."""
        data = training.data if data is None else data
        reader = cls(name, settings, training.grid, CoarseSource.of(settings, data, training))
        blocks = reader._sample(data, training.cases)
        head = list(islice(blocks, HEAD))
        source = reader.source.fitted(head)
        plain, seen = Moments(len(source.names)), Moments(len(source.names))
        for block in chain(head, blocks):
            plain.update(block)
            seen.update(source.transformed(block))
        conditioner = cls(name, settings, training.grid, replace(source, gaps=plain.missing))
        conditioner._remember(plain, seen)
        return conditioner

    def _remember(self, plain: Moments, seen: Moments) -> None:
        """Range and mean in physical units; standardisation of what the network sees."""
        for key, values in (("low", plain.low), ("high", plain.high), ("mean", plain.mean)):
            getattr(self, key).copy_(torch.from_numpy(values))
        offset, scale = seen.standardisation([bool(self.source.odd.get(variable)) for variable, _ in self.names])
        self.offset[: len(offset)] = torch.from_numpy(offset)
        self.scale[: len(scale)] = torch.from_numpy(scale)

    @property
    def core_dims(self) -> tuple[str, ...]:
        """Grid dims and channel dims."""
        return (*self.grid.dims, *self.source.coarse.channel_dims)

    @cached_property
    def coarsening(self) -> SeparableMap:
        """Conservative means over the coarse cells."""
        return conservative(self.grid, self.coarse_grid)

    def interpolation(self, method: Interpolation | None = None) -> SeparableMap:
        """From the coarse grid to the fine one; None: the method of the settings."""
        method = method or self.settings.interpolation
        if method not in self._maps:
            self._maps[method] = refine(self.coarse_grid, self.grid, method)
        return self._maps[method]

    @cached_property
    def _maps(self) -> dict[str, SeparableMap]:
        return {}

    def coarse(self, dataset: xr.Dataset | None, case: Case, window: Window | None = None) -> np.ndarray:
        """The coarse field of one case, or a ``window`` of the coarse grid: float64 (channel, *coarse), NaN in gaps."""
        assert dataset is not None, f"{self.name}: no data"
        if not self.is_fine(dataset):
            return self._read(dataset, case, window)
        mapping, fine = self.coarsening, None
        if window is not None:
            mapping, fine = mapping.window(window)
        return mapping.masked(self._read(dataset, case, fine))

    def _read(self, dataset: xr.Dataset, case: Case, window: Window | None) -> np.ndarray:
        return read(
            dataset,
            case,
            self.settings.variables,
            self.grid.dims,
            self.source.coarse.channel_dims,
            align=self.settings.align,
            window=window,
            name=self.name,
        )

    def is_fine(self, dataset: xr.Dataset) -> bool:
        """Whether data in the terms of the target are on its grid: their conservative means are the condition then."""
        return self._are_fine([dataset.sizes[dim] for dim in self.grid.dims])

    def _are_fine(self, sizes: Sequence[int]) -> bool:
        return tuple(sizes) == self.grid.shape != self.coarse_grid.shape

    def prepare(self, dataset: xr.Dataset | None, case: Case, window: Window | None = None) -> Inputs:
        """Interpolated coarse variables, phases, and where the coarse field exists (if it had gaps in training)."""
        field, present = self._interpolated(dataset, case, window, None)
        shape = field.shape[1:]
        parts = [
            self.source.transformed(field),
            *(np.broadcast_to(phase, shape)[None] for phase in self._phases(window)),
        ]
        parts += [present] if self.source.gaps else []
        return {"channels": np.concatenate(parts).astype(np.float32)}

    def _interpolated(
        self, dataset: xr.Dataset | None, case: Case, window: Window | None, method: Interpolation | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The field (channel, *window) without gaps, and the share of it (1, *window) that exists."""
        mapping = self.interpolation(method)
        if window is None:
            values = self.coarse(dataset, case)
        else:
            mapping, needed = mapping.window(window)
            wide = widened(needed, self.coarse_grid.shape)
            values = self.coarse(dataset, case, wide)
        present = np.isfinite(values).all(axis=0, keepdims=True).astype(np.float64)
        values = fill(values, self.mean.double().cpu().numpy())
        if window is not None:
            inner = tuple(slice(n.start - w.start, n.stop - w.start) for n, w in zip(needed, wide, strict=True))
            values, present = values[(slice(None), *inner)], present[(slice(None), *inner)]
        return mapping(values), np.clip(mapping(present), 0, 1)

    def _phases(self, window: Window | None) -> Iterator[np.ndarray]:
        """Cosine and sine of the place within the coarse cell, per refined axis, shaped for broadcasting."""
        for axis, phase in self.phases.items():
            phase = phase if window is None else phase[window[axis]]
            shape = [-1 if other == axis else 1 for other in range(self.grid.rank)]
            yield np.cos(2 * np.pi * phase).reshape(shape)
            yield np.sin(2 * np.pi * phase).reshape(shape)

    def baseline(
        self,
        dataset: xr.Dataset | None,
        case: Case,
        window: Window | None = None,
        method: Interpolation | None = None,
    ) -> np.ndarray:
        """Interpolation as a first guess of the target: float32 (target channel, *window), physical units.

        NaN in channels of variables that the coarse field does not have.
        """
        field, _ = self._interpolated(dataset, case, window, method)
        guess = np.full((len(self.source.target), *field.shape[1:]), np.nan, np.float32)
        for place, source in self.matches():
            guess[place] = field[source]
        return guess

    def matches(self) -> list[tuple[int, int]]:
        """(target channel, coarse channel) of the same variable and level."""
        return [
            (place, self.names.index(channel))
            for place, channel in enumerate(self.source.target)
            if channel in self.names
        ]

    def parity(self, dim: str) -> np.ndarray:
        """-1 for components that are odd along ``dim``, and for the sine of the phase along it."""
        signs = [-1.0 if dim in self.source.odd.get(variable, []) else 1.0 for variable, _ in self.names]
        for axis in self.phases:
            signs += [1.0, -1.0 if self.grid.dims[axis] == dim else 1.0]
        return np.array(signs + [1.0] * self.source.gaps, np.float32)

    def accept(self, dataset: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
        """Rename, convert, reorder and regrid new data; on the fine grid they stay, and are coarsened case by case."""
        coarse, fine = self.source.coarse, self.source.fine
        told = told_names(self.settings.source, dataset)
        sizes = {told.get(str(dim), str(dim)): size for dim, size in dataset.sizes.items()}
        with noted("sciffusion.fields.conventions") as notes:
            accepted = harmonise(dataset, fine if self._looks_fine(sizes) else coarse, rename=told, name=self.name)
        return accepted, notes

    def _looks_fine(self, sizes: Mapping[str, int]) -> bool:
        """Whether data with dims of ``sizes`` are on the fine grid. Dims of cases may be as long as those of a grid."""
        if all(dim in sizes for dim in self.grid.dims):
            return self._are_fine([sizes[dim] for dim in self.grid.dims])
        there = Counter(sizes.values())
        return Counter(self.grid.shape) <= there and not Counter(self.coarse_grid.shape) <= there

    def outside(self, dataset: xr.Dataset | None, case: Case) -> list[str]:
        """Variables that pass their range over all training cases and cells, and gaps that training did not have."""
        moments = Moments.of(self._blocks(dataset, case), len(self.names))
        low, high = self.low.double().cpu().numpy(), self.high.double().cpu().numpy()
        notes = beyond([variable for variable, _ in self.names], low, high, moments.low, moments.high)
        return notes + ["missing values, there were none in training"] * (moments.missing and not self.source.gaps)

    def _blocks(self, dataset: xr.Dataset | None, case: Case) -> Iterator[np.ndarray]:
        """The coarse field of a case in slabs along the first axis, so that large fields fit in memory."""
        for slab in self._slabs():
            yield self.coarse(dataset, case, slab)

    def _slabs(self) -> list[Window]:
        shape = self.coarse_grid.shape
        values_per_row = np.prod(self.grid.shape, dtype=float) * len(self.names) / shape[0]
        rows = max(1, int(BLOCK / max(1.0, values_per_row)))
        rest = tuple(slice(0, size) for size in shape[1:])
        return [(slice(start, min(shape[0], start + rows)), *rest) for start in range(0, shape[0], rows)]

    def _sample(self, dataset: xr.Dataset, cases: Sequence[Case]) -> Iterator[np.ndarray]:
        """All of the cases where that is at most `BUDGET` blocks, else as many slabs, spread over cases and domain."""
        slabs = self._slabs()
        per_block = max(1, int(BLOCK / (np.prod(self.grid.shape, dtype=float) * len(self.names))))
        if len(cases) * len(slabs) <= BUDGET * per_block:
            yield from (block for case in cases for block in self._blocks(dataset, case))
            return
        count = BUDGET * per_block
        for index in range(count):
            # the golden ratio visits the slabs evenly, in no step with the cases
            slab = slabs[int(index * 0.6180339887 % 1 * len(slabs))]
            yield self.coarse(dataset, cases[index * len(cases) // count], slab)

    def description(self) -> dict[str, Any]:
        """What its data look like."""
        return self.source.to_json()

    @classmethod
    def restore(cls, name: str, settings: Any, grid: Grid, description: Mapping[str, Any]) -> Self:
        """The inverse of `description`."""
        return cls(name, settings, grid, CoarseSource.from_json(description))
