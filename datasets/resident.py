"""Training samples kept whole on the training's device, so that a batch is a few gathers there and no host work.

Batches are bitwise those that a DataLoader collates from `TrainingCases`: along every axis, window, shift and mirror
image are one list of cells, and mirrored components take their signs. Cases are read when they are first drawn.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.datasets.augment import OFF_GRID
from sciffusion.datasets.draws import Draw
from sciffusion.datasets.training import TrainingCases, nested
from sciffusion.execution.memory import free_bytes
from sciffusion.execution.transfer import to_device

__all__ = ["Resident"]

SHARE = 4  # the samples may take 1/SHARE of the device's free memory
Key = tuple[str, ...]


class Resident:
    """The samples of ``cases`` on ``device``; iterating yields the batches of ``order``."""

    def __init__(self, cases: TrainingCases, device: torch.device, order: Iterable[list[Draw]] = ()) -> None:
        self.cases, self.device, self.order = cases, device, order
        self._varying: dict[Key, Tensor] = {}  # (case, ...)
        self._constant: dict[Key, Tensor] = {}
        self._present: set[int] = set()
        self._fold = torch.tensor([cases.fold(number) for number in range(len(cases))], device=device)
        self._signs = {key: torch.from_numpy(sign).to(device) for key, sign in cases.signs.items() if (sign < 0).any()}

    @staticmethod
    def fits(cases: TrainingCases, device: torch.device) -> bool:
        """Whether ``cases`` would be kept in memory anyway, and the device has room for them."""
        return cases.cached and cases.bytes <= free_bytes(device) // SHARE

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.batch, self.order)

    def batch(self, draws: Sequence[Draw]) -> dict[str, Any]:
        """The samples ``draws`` as one batch of tensors on the device."""
        for missing in {draw.case for draw in draws} - self._present:
            self._read(missing)
        number = self._sent([draw.case for draw in draws])
        cells, mirrors = self._cells(draws), self._mirrors(draws)
        batch = {}
        for key, held in (self._varying | self._constant).items():
            own = number if key in self._varying else None
            values = _gathered(held, own, None if key[-1] in OFF_GRID else cells, len(draws))
            batch[key] = self._signed(key, values, mirrors)
        return nested(batch) | {"case": number, "fold": self._fold.index_select(0, number)}

    def _read(self, number: int) -> None:
        """Put a case on the device, and with the first one what all have in common."""
        arrays = {key: _tensor(array) for key, array in self.cases.whole(number).items()}
        if not self._varying:
            for key, one in arrays.items():
                self._varying[key] = torch.empty(len(self.cases), *one.shape, dtype=one.dtype, device=self.device)
            shared = self.cases.whole(None)
            self._constant = {key: _tensor(array).to(self.device) for key, array in shared.items()}
        for key, one in arrays.items():
            self._varying[key][number].copy_(one)
        self._present.add(number)

    def _cells(self, draws: Sequence[Draw]) -> list[Tensor] | None:
        """Per grid axis the cells of every sample, (sample, cell); None where all are the whole grid as it is."""
        space = self.cases.space
        if not space.cropped and not any(any(draw.roll) or any(draw.mirror) for draw in draws):
            return None
        axes = [np.stack([_along(draw, axis, size, n) for draw in draws])
                for axis, (size, n) in enumerate(zip(space.size, space.shape, strict=True))]  # fmt: skip
        sent, ends = self._sent(np.concatenate(axes, axis=1)), np.cumsum([0, *space.size])
        return [sent[:, start:stop] for start, stop in pairwise(ends)]

    def _mirrors(self, draws: Sequence[Draw]) -> dict[str, Tensor]:
        """Per grid dim along which any sample is mirrored: which are, Bool (sample, 1)."""
        flags = {dim: [draw.mirror[axis] for draw in draws] for axis, dim in enumerate(self.cases.data.grid.dims)}
        return {dim: self._sent(flag)[:, None] for dim, flag in flags.items() if any(flag)}

    def _signed(self, key: Key, values: Tensor, mirrors: Mapping[str, Tensor]) -> Tensor:
        """Components that are odd along an axis change sign in the samples that are mirrored along it."""
        for dim, mirrored in mirrors.items():
            if (key, dim) in self._signs:
                factor = torch.where(mirrored, self._signs[key, dim], 1.0)
                values = values * factor.reshape(*factor.shape, *[1] * (values.ndim - 2))
        return values

    def _sent(self, values: Any) -> Tensor:
        return to_device(torch.from_numpy(np.asarray(values)), self.device)


def _along(draw: Draw, axis: int, size: int, n: int) -> NDArray[np.int64]:
    """Cells along an axis: a window from its first cell, rolled, then mirrored."""
    place = np.arange(size)
    place = place[::-1] if draw.mirror[axis] else place
    return (draw.corner[axis] + (place - draw.roll[axis]) % size) % n


def _gathered(held: Tensor, number: Tensor | None, cells: Sequence[Tensor] | None, count: int) -> Tensor:
    """Of (case, ...), or (...) common to all, the cases ``number``, and of those on the grid the ``cells``."""
    if cells is None:
        return held.expand(count, *held.shape) if number is None else held.index_select(0, number)
    rank = len(cells)
    channel = torch.arange(held.shape[-rank - 1], device=held.device).reshape(-1, *[1] * rank)
    index = [at.reshape(count, *[1] * (axis + 1), -1, *[1] * (rank - 1 - axis)) for axis, at in enumerate(cells)]
    return held[(channel, *index) if number is None else (number.reshape(-1, *[1] * (rank + 1)), channel, *index)]


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
