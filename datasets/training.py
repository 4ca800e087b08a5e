"""Training samples: one case, one window, one symmetry -> tensors, read in the worker that needs them."""

import copy
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from sciffusion import config
from sciffusion.conditioners.base import Conditioner, Window
from sciffusion.datasets.augment import OFF_GRID, augment, signs_of
from sciffusion.datasets.draws import Draw, DrawSpace
from sciffusion.datasets.pairs import ExperimentData
from sciffusion.fields.cases import select
from sciffusion.fields.codec import FieldCodec
from sciffusion.fields.statistics import fold_of
from sciffusion.memory import available_memory

__all__ = ["Cache", "TrainingCases"]

Arrays = dict[tuple[str, ...], np.ndarray]
Cache = Literal["auto", "memory", "none"]
SHARE = 4  # the cache may take 1/SHARE of the free memory
HALVES = 2  # folds of the training cases that a regression is trained out of


class TrainingCases(Dataset[dict[str, Any]]):
    """Samples of the cases of one split.

    ``self[draw]`` is a dict of tensors: z float32 (channel, *window), valid Bool (where z was observed), mask Bool (the
    cells that exist), area float32 (1, *window) of mean 1 over the grid, inputs {condition: {name: tensor}}, case, and
    fold (half of the training cases that it is in; -1 in other splits).
    ``self[i]`` is case i without symmetries. Cached whole or read by windows, the bytes are the same.

    baseline : the coarse condition that z is the residual to; workers : processes that would each hold a cache.
    """

    def __init__(
        self,
        data: ExperimentData,
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        target: config.Target,
        *,
        split: str = "train",
        baseline: str | None = None,
        crop: Mapping[str, int] | None = None,
        augment: config.Augment | None = None,
        cache: Cache = "auto",
        workers: int = 0,
    ) -> None:
        self.data, self.codec, self.baseline = data, codec, baseline
        # copies: the model's own may move to a GPU, which a forked worker must not touch
        self.conditioners = {name: copy.deepcopy(conditioner).cpu() for name, conditioner in conditioners.items()}
        self.split, self.cases = split, data.cases[split]
        self.space = DrawSpace.of(len(self.cases), data.grid, crop, augment)
        self.signs = signs_of(codec.channels, target.variables, self.conditioners, data.grid.dims)
        self.cached = cache == "memory" or (
            cache == "auto" and self.bytes * max(1, workers) <= available_memory() // SHARE
        )
        self._memory: dict[int | None, Arrays] = {}
        self._own = False

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, draw: Draw | int) -> dict[str, Any]:
        if isinstance(draw, int):
            draw = self.space.plain(draw)
        self._open()
        arrays = augment(self._window(draw), draw, self.data.grid.dims, self.signs)
        item = nested({key: torch.from_numpy(np.ascontiguousarray(array)) for key, array in arrays.items()})
        return item | {"case": torch.tensor(draw.case), "fold": torch.tensor(self.fold(draw.case))}

    def fold(self, number: int) -> int:
        """Half of the training cases that case ``number`` is in; -1 in other splits."""
        return fold_of(number, len(self), HALVES) if self.split == "train" else -1

    def whole(self, number: int | None) -> Arrays:
        """Arrays on the whole grid, without symmetries, of case ``number``; None: those that all cases share."""
        self._open()
        window = tuple(slice(0, n) for n in self.space.shape)
        return self._constant(window, True) if number is None else self._varying(number, window, True)

    @property
    def bytes(self) -> int:
        """Size of a cache of all cases."""
        cells = int(np.prod(self.data.grid.shape))
        varying = sum(4 * c.channels for c in self.conditioners.values() if c.varies)
        constant = sum(4 * c.channels for c in self.conditioners.values() if not c.varies) + len(self.codec.channels)
        return cells * (len(self.cases) * (5 * len(self.codec.channels) + varying) + constant)

    def _open(self) -> None:
        """In a worker, open the files anew before the first read."""
        if not self._own and get_worker_info() is not None:
            self.data = self.data.reopened()
        self._own = True

    def _window(self, draw: Draw) -> Arrays:
        """The arrays of a window, wrapped around the ends of periodic axes."""
        runs = [
            _runs(first, size, n) for first, size, n in zip(draw.corner, self.space.size, self.space.shape, strict=True)
        ]
        if not self.cached:
            whole = not self.space.cropped
            return _assembled(
                runs, lambda window: self._varying(draw.case, window, whole) | self._constant(window, whole)
            )
        for key in (draw.case, None):
            if key not in self._memory:
                self._memory[key] = self.whole(key)
        held = self._memory[draw.case] | self._memory[None]
        return _assembled(runs, lambda window: {key: _cut(key, array, window) for key, array in held.items()})

    def _varying(self, number: int, window: Window, whole: bool) -> Arrays:
        """What differs between cases: the target and most conditions."""
        case, place = self.cases[number], None if whole else window
        first_guess = None
        if self.baseline is not None:
            coarse: Any = self.conditioners[self.baseline]
            first_guess = coarse.baseline(self.data.conditions[self.baseline], case, place)
        codec = self.codec.of_training_case(number, len(self.cases)) if self.split == "train" else self.codec
        z, valid = codec.encode(select(self.data.target, case), first_guess, place)
        return {("z",): z.numpy(), ("valid",): valid.numpy()} | self._inputs(number, place, varies=True)

    def _constant(self, window: Window, whole: bool) -> Arrays:
        """What is the same in every case: mask, cell areas, static fields and positions."""
        grid, place = self.data.grid, None if whole else window
        area = np.ones((1,) * (1 + grid.rank))
        for axis, cut in enumerate(window):
            measure = grid.axis_measure(axis)
            area = area * (measure / measure.mean())[cut].reshape(
                [-1 if i == axis + 1 else 1 for i in range(1 + grid.rank)]
            )
        masks: Arrays = {("mask",): self.codec.valid_cells(place).numpy(), ("area",): area.astype(np.float32)}
        return masks | self._inputs(0, place, varies=False)

    def _inputs(self, number: int, window: Window | None, *, varies: bool) -> Arrays:
        chosen = {name: c for name, c in self.conditioners.items() if c.varies == varies}
        return {
            ("inputs", name, key): array
            for name, c in chosen.items()
            for key, array in c.prepare(self.data.conditions.get(name), self.cases[number], window).items()
        }


def _runs(first: int, size: int, n: int) -> list[slice]:
    """The cells first ... first + size - 1, modulo n, as slices."""
    return [slice(first, first + size)] if first + size <= n else [slice(first, n), slice(0, first + size - n)]


def _assembled(runs: list[list[slice]], read: Callable[[Window], Arrays]) -> Arrays:
    """Read every combination of runs and join them along the grid axes."""
    parts = {index: read(tuple(r[i] for r, i in zip(runs, index, strict=True)))
             for index in product(*(range(len(r)) for r in runs))}  # fmt: skip
    for axis in reversed(range(len(runs))):
        joined: dict[tuple[int, ...], Arrays] = {}
        for index in dict.fromkeys(key[:axis] for key in parts):
            row = [parts[(*index, i)] for i in range(len(runs[axis]))]
            joined[index] = (
                row[0] if len(row) == 1 else {key: _join(key, [r[key] for r in row], axis) for key in row[0]}
            )
        parts = joined
    return parts[()]


def _join(key: tuple[str, ...], row: list[np.ndarray], axis: int) -> np.ndarray:
    return row[0] if key[-1] in OFF_GRID else np.concatenate(row, axis=1 + axis)


def _cut(key: tuple[str, ...], array: np.ndarray, window: Window) -> np.ndarray:
    return array if key[-1] in OFF_GRID else array[(slice(None), *window)]


def nested(tensors: Mapping[tuple[str, ...], torch.Tensor]) -> dict[str, Any]:
    """Keys ("inputs", name, key) as nested dicts."""
    item: dict[str, Any] = {"inputs": {}}
    for key, tensor in tensors.items():
        if key[0] == "inputs":
            item["inputs"].setdefault(key[1], {})[key[2]] = tensor
        else:
            item[key[0]] = tensor
    return item
