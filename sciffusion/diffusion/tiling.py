"""Domains larger than training: the denoiser works on overlapping tiles, whose answers are fused at every call.

Since all tiles see the one field x and their answers are merged before the solver goes on, members have no seams, and
solvers, constraints and guidance see an ordinary denoiser of the whole domain. The idea: Bar-Tal et al. 2023
(MultiDiffusion, arXiv:2302.08113, eq. 3), with smooth weights.

Along an axis a tile's weight is, from each edge at which the domain was cut,

    0 on the margin, sin^2 over the rest of the overlap, then 1,                                (1)

divided by the sum over tiles; weights of cells are products over the axes. So they sum to one everywhere, and answers
that depend on cells at most ``margin`` away are those of the whole domain. What a network knows of its place it knows
from ``cond.channels`` (position, orography, ...), which are cropped with x.
"""

import math
from collections.abc import Sequence
from functools import reduce
from itertools import product
from operator import itemgetter

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sciffusion.boundary import Boundary
from sciffusion.context import Context, window
from sciffusion.diffusion.denoiser import Denoiser, Wrapper
from sciffusion.errors import SciffusionError

__all__ = ["Tiled", "profiles", "starts", "tile_boundary"]

Slices = tuple[slice, ...]


def starts(cells: int, tile: int, overlap: int, periodic: bool) -> tuple[int, ...]:
    """First cells of the fewest evenly spread tiles that cover an axis and overlap by at least ``overlap``."""
    if cells <= tile:
        return (0,)
    if periodic:
        count = math.ceil(cells / (tile - overlap))
        return tuple(i * cells // count for i in range(count))
    gaps = math.ceil((cells - tile) / (tile - overlap))
    return tuple(i * (cells - tile) // gaps for i in range(gaps + 1))


def profiles(cells: int, tile: int, overlap: int, margin: int, periodic: bool) -> Tensor:
    """Weights (1) of all tiles along an axis, (tiles, cells of a tile), float64; where they lie they add up to 1."""
    first = starts(cells, tile, overlap, periodic)
    if len(first) == 1:
        return torch.ones(1, cells, dtype=torch.float64)
    ramp = overlap - 2 * margin
    rise = torch.ones(tile, dtype=torch.float64)
    rise[:margin] = 0
    rise[margin : margin + ramp] = torch.sin(math.pi / 2 * (torch.arange(ramp, dtype=torch.float64) + 0.5) / ramp) ** 2
    weights = (rise * rise.flip(0)).repeat(len(first), 1)
    if not periodic:
        weights[0], weights[-1] = rise.flip(0), rise
    placed = [F.pad(w, (0, cells - tile)).roll(s) for s, w in zip(first, weights, strict=True)]
    total = torch.stack(placed).sum(0)
    return torch.stack([w / total.roll(-s)[:tile] for s, w in zip(first, weights, strict=True)])


def tile_boundary(shape: Sequence[int], tile: Sequence[int], boundary: Sequence[Boundary]) -> tuple[Boundary, ...]:
    """Boundary names for the network inside: the domain's on axes that one tile covers, "reflect" on cut axes.

    "pole" padding turns the last axis by half, so cutting any axis of a lat-lon grid replaces it.
    """
    cut = [n > size for n, size in zip(shape, tile, strict=True)]
    pairs = zip(cut, boundary, strict=True)
    return tuple("reflect" if here or (name == "pole" and any(cut)) else name for here, name in pairs)


class Tiled(Wrapper):
    """``denoiser`` of tiles as a denoiser of domains of any size.

    Parameters
    ----------
    tile : cells of a tile per grid axis; an axis with no more cells than that is not cut.
    overlap : cells shared by neighbours at least, for all axes or per axis; wider than the correlation length.
    boundary : names of the domain's boundaries per grid axis; tiles wrap around on "periodic" axes. The network inside
        pads its tiles as it was told itself: see `tile_boundary`.
    margin : cells at a cut edge that are not used, for all axes or per axis; None: a quarter of the overlap.
    batch : fields of tile size per call of ``denoiser`` at most. With it memory does not grow with the domain beyond a
        few fields; if gradients are wanted tiles are computed again on the way back, so neither does it then.

    A sample's answer depends on neither ``batch`` nor its batch-mates.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tile: Sequence[int],
        overlap: int | Sequence[int],
        boundary: Sequence[Boundary],
        *,
        margin: int | Sequence[int] | None = None,
        batch: int = 8,
    ) -> None:
        super().__init__(denoiser)
        rank = len(tile)
        self.tile, self.batch = tuple(tile), batch
        self.overlap = _per_axis(overlap, rank)
        self.margin = tuple(o // 4 for o in self.overlap) if margin is None else _per_axis(margin, rank)
        self.periodic = tuple(name == "periodic" for name in boundary)
        self._profiles: dict[tuple[object, ...], Tensor] = {}
        self._check()

    def _check(self) -> None:
        axes = (self.overlap, self.margin, self.periodic)
        fits = all(len(values) == len(self.tile) for values in axes) and self.batch >= 1
        if not fits or any(
            not 0 <= 2 * m <= o < t for t, o, m in zip(self.tile, self.overlap, self.margin, strict=True)
        ):
            raise SciffusionError(
                f"tiles of {self.tile} cells cannot overlap by {self.overlap} with margins of {self.margin}",
                "give per grid axis 0 <= 2 * margin <= overlap < tile and one boundary, and batch >= 1",
            )

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """E[x0 | x] of x (batch, channel, *grid), each cell from the tiles around it."""
        if x.ndim != len(self.tile) + 2:
            raise SciffusionError(f"a field of shape {tuple(x.shape)}", f"tiles are {len(self.tile)}-dimensional")
        parts = [slice(i, i + self.batch) for i in range(0, len(x), self.batch)]
        return torch.cat([self._fused(x[at], sigma[at], cond and cond.map(itemgetter(at))) for at in parts])

    def _fused(self, x: Tensor, sigma: Tensor, cond: Context | None) -> Tensor:
        """The weighted sum over tiles, each added in the order of `_tiles` whatever the batch."""
        tiles, size = self._tiles(x), max(1, self.batch // len(x))
        ends = (max(slices[axis].stop for slices, _ in tiles) for axis in range(len(self.tile)))
        total = x.new_zeros(*x.shape[:2], *ends)
        for group in (tiles[i : i + size] for i in range(0, len(tiles), size)):
            answers = self._answers(x, sigma, cond, [slices for slices, _ in group])
            for (slices, weights), answer in zip(group, torch.split(answers, len(x)), strict=True):
                weight = reduce(lambda one, other: one[..., None] * other, weights)
                total[(slice(None), slice(None), *slices)] += weight * answer
        return _folded(total, x.shape[2:])

    def _answers(self, x: Tensor, sigma: Tensor, cond: Context | None, group: Sequence[Slices]) -> Tensor:
        """The denoiser's answers on the tiles of ``group``, one after the other along the batch."""
        tiles = torch.cat([window(x, slices) for slices in group])
        conds = None if cond is None else Context.stack([cond.crop(slices) for slices in group])
        if torch.is_grad_enabled() and x.requires_grad:
            answer: Tensor = checkpoint(self.denoiser, tiles, sigma.repeat(len(group)), conds, use_reentrant=False)
            return answer
        return self.denoiser(tiles, sigma.repeat(len(group)), conds)

    def _tiles(self, x: Tensor) -> list[tuple[Slices, tuple[Tensor, ...]]]:
        """Window of every tile (it may stop beyond a periodic end) and its weights along the axes."""
        axes = []
        settings = zip(x.shape[2:], self.tile, self.overlap, self.margin, self.periodic, strict=True)
        for n, size, overlap, margin, periodic in settings:
            weights = self._weights((n, size, overlap, margin, periodic), x)
            first = starts(n, size, overlap, periodic)
            axes.append([(slice(s, s + len(w)), w) for s, w in zip(first, weights, strict=True)])
        return [(tuple(s for s, _ in tile), tuple(w for _, w in tile)) for tile in product(*axes)]

    def _weights(self, axis: tuple[int, int, int, int, bool], like: Tensor) -> Tensor:
        """`profiles` as a tensor: copied to the device once, so that a loop of calls waits for nothing."""
        key = (*axis, like.dtype, like.device)
        if key not in self._profiles:
            with torch.inference_mode(False):
                self._profiles[key] = profiles(*axis).to(like.device, like.dtype)
        return self._profiles[key]


def _per_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _folded(total: Tensor, cells: Sequence[int]) -> Tensor:
    """Add what lies beyond the end of periodic axes to their beginning."""
    for axis, n in enumerate(cells, start=2):
        tail = total.shape[axis] - n
        folded = total.narrow(axis, 0, tail) + total.narrow(axis, n, tail)
        total = torch.cat([folded, total.narrow(axis, tail, n - tail)], dim=axis) if tail else total
    return total
