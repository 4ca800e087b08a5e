"""Which case, window and symmetry each sample of each training step gets: a pure function of (seed, step, slot).

So a run that is resumed, or spread over another number of processes, sees the same samples.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler

from sciffusion import config
from sciffusion.errors import SciffusionError
from sciffusion.fields.grid import Grid

__all__ = ["Draw", "DrawSpace", "StepSampler"]

_ORDER, _PLACE = 0, 1  # streams: the order of the cases; windows and symmetries


@dataclass(frozen=True)
class Draw:
    """One sample: a case by position, the first cell of its window, and symmetries per grid axis.

    A window runs on at the other end of a periodic axis. ``roll`` cells are shifted, on whole periodic axes only.
    """

    case: int
    corner: tuple[int, ...]
    roll: tuple[int, ...]
    mirror: tuple[bool, ...]


@dataclass(frozen=True)
class DrawSpace:
    """What may be drawn: ``cases``; per axis the size of the grid and the window, what wraps, rolls, mirrors."""

    cases: int
    shape: tuple[int, ...]
    size: tuple[int, ...]
    periodic: tuple[bool, ...]
    rolls: tuple[bool, ...]
    mirrors: tuple[bool, ...]

    @classmethod
    def of(
        cls, cases: int, grid: Grid, crop: Mapping[str, int] | None = None, augment: config.Augment | None = None
    ) -> "DrawSpace":
        """The space of ``cases`` on ``grid``; a crop larger than the grid is the grid."""
        augment = augment or config.Augment()
        size = tuple(min(n, (crop or {}).get(dim, n)) for dim, n in zip(grid.dims, grid.shape, strict=True))
        return cls(
            cases,
            grid.shape,
            size,
            grid.periodic,
            tuple(
                dim in augment.roll and whole for dim, whole in zip(grid.dims, _whole(grid.shape, size), strict=True)
            ),
            tuple(dim in augment.mirror for dim in grid.dims),
        )

    @property
    def cropped(self) -> bool:
        """Whether windows are smaller than the grid."""
        return self.size != self.shape

    def draw(self, seed: int, step: int, count: int) -> list[Draw]:
        """The ``count`` samples of a step; every case comes once in the run before any comes again."""
        cases = [self._case(seed, step * count + slot) for slot in range(count)]
        rng, axes = np.random.default_rng([seed, _PLACE, step]), len(self.shape)
        starts = [n if wraps and n > size else n - size + 1
                  for n, size, wraps in zip(self.shape, self.size, self.periodic, strict=True)]  # fmt: skip
        corners, rolls = rng.integers(starts, size=(count, axes)), rng.integers(self.shape, size=(count, axes))
        mirrors = rng.integers(2, size=(count, axes), dtype=bool) & self.mirrors
        placed = (map(tuple, found.tolist()) for found in (corners, rolls * self.rolls, mirrors))
        return [Draw(*found) for found in zip(cases, *placed, strict=True)]

    def _case(self, seed: int, index: int) -> int:
        """That of sample number ``index`` of the run."""
        epoch, place = divmod(index, self.cases)
        return int(_order(seed, epoch, self.cases)[place])

    def plain(self, case: int) -> Draw:
        """``case`` without symmetries, in the middle of the domain: for validation."""
        corner = tuple((n - size) // 2 for n, size in zip(self.shape, self.size, strict=True))
        return Draw(case, corner, (0,) * len(corner), (False,) * len(corner))


def _whole(shape: tuple[int, ...], size: tuple[int, ...]) -> list[bool]:
    return [n == m for n, m in zip(shape, size, strict=True)]


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, cases: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(cases)


class StepSampler(Sampler[list[Draw]]):
    """Batches of `Draw` for the steps from ``start_step`` to ``steps``; a ``batch_sampler`` of a DataLoader.

    ``batch_size`` counts the samples of all ``world`` processes; process ``rank`` gets every world-th of them.
    """

    def __init__(
        self,
        space: DrawSpace,
        batch_size: int,
        seed: int,
        steps: int,
        rank: int = 0,
        world: int = 1,
        start_step: int = 0,
    ) -> None:
        if batch_size % world:
            raise SciffusionError(
                f"train.batch_size {batch_size} is not a multiple of {world} processes", "choose one that is"
            )
        if space.cases < 1:
            raise SciffusionError("there is no training case", "check split.train")
        self.space, self.batch_size, self.seed, self.steps = space, batch_size, seed, steps
        self.rank, self.world, self.start_step = rank, world, start_step

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start_step, self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[Draw]:
        """The samples of one step that this process takes."""
        return self.space.draw(self.seed, step, self.batch_size)[self.rank :: self.world]
