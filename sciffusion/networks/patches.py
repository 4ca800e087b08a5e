"""Patches of cells folded into channels and back (pixel-unshuffle in any rank and for any size)."""

from collections.abc import Sequence

from torch import Tensor

from sciffusion.boundary import Boundary
from sciffusion.networks.padding import pad

__all__ = ["fold", "unfold"]


def fold(x: Tensor, patch: int, boundary: Sequence[Boundary]) -> Tensor:
    """(batch, channel, *grid) to (batch, channel * patch^rank, *ceil(grid / patch)).

    An axis that is no multiple of ``patch`` is continued at its end by its boundary.
    """
    if patch == 1:
        return x
    rank = x.ndim - 2
    x = pad(x, [(0, -size % patch) for size in x.shape[2:]], boundary)
    for axis in range(rank):  # (batch, channel, n_1, patch, n_2, patch, ...)
        at = 2 + 2 * axis
        x = x.reshape(*x.shape[:at], -1, patch, *x.shape[at + 1 :])
    cells = range(2, 2 + 2 * rank, 2)
    return x.permute(0, 1, *(cell + 1 for cell in cells), *cells).flatten(1, 1 + rank)


def unfold(x: Tensor, patch: int, size: Sequence[int]) -> Tensor:
    """Invert ``fold``, cropping to ``size``."""
    if patch == 1:
        return x
    rank = x.ndim - 2
    x = x.reshape(x.shape[0], -1, *[patch] * rank, *x.shape[2:])
    order = [dim for axis in range(rank) for dim in (2 + rank + axis, 2 + axis)]
    x = x.permute(0, 1, *order)
    for axis in range(rank):
        x = x.flatten(2 + axis, 3 + axis)
    for axis, cells in enumerate(size):
        x = x.narrow(2 + axis, 0, cells)
    return x
