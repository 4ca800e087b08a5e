"""Padding of fields by the names of their boundary conditions, in one, two and three dimensions.

Everything is slices and concatenations: no index tensor is made on the device, so the functions trace, compile and
capture; gradients flow through them.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sciffusion.boundary import NAMES, Boundary
from sciffusion.errors import SciffusionError

__all__ = ["check", "half_turn", "pad"]

Width = int | tuple[int, int]


def pad(x: Tensor, widths: Sequence[Width], boundary: Sequence[Boundary]) -> Tensor:
    """Extend each grid axis of ``x`` (batch, channel, *grid) by ``widths`` cells (both sides, or before and after).

    periodic : what lies on the other side; reflect : mirrored about the edge cell, which is not repeated;
    pole : mirrored about the edge row (the pole's own, as on a 181-row grid) and rolled by half a turn along the last
    axis; constant : zeros. A mirrored axis of a single cell repeats that cell. Corners follow from treating the poles
    first, then the other axes in order.

    Raises SciffusionError when the boundary does not fit the grid or a width reaches further than the axis.
    """
    check(boundary, x.ndim - 2)
    pairs = [(width, width) if isinstance(width, int) else width for width in widths]
    for axis in sorted(range(len(pairs)), key=lambda axis: boundary[axis] != "pole"):
        before, after = pairs[axis]
        if before or after:
            x = _pad_axis(x, axis + 2, before, after, boundary[axis])
    return x


def check(boundary: Sequence[Boundary], rank: int) -> None:
    """Raise SciffusionError unless ``boundary`` has one known name per axis and poles have a periodic last axis."""
    unknown = [name for name in boundary if name not in NAMES]
    if unknown or len(boundary) != rank:
        raise SciffusionError(
            f"boundary {tuple(boundary)} does not describe a grid of rank {rank}",
            f"give one of {', '.join(NAMES)} for each of the {rank} axes",
        )
    if "pole" in boundary and (boundary[-1] != "periodic" or rank < 2):
        raise SciffusionError(
            f"boundary {tuple(boundary)}: a pole needs a periodic last axis (longitude) to cross it along",
            "order the dims so that longitude is last and periodic, or use 'reflect' for latitude (regional windows)",
        )


def half_turn(x: Tensor) -> Tensor:
    """Roll by half the last axis: what lies on the opposite meridian.

    With an odd number of columns the opposite meridian falls between two of them: their mean.
    """
    half = x.shape[-1] // 2
    opposite = x.roll(half, dims=-1)
    return opposite if x.shape[-1] % 2 == 0 else (opposite + x.roll(half + 1, dims=-1)) / 2


def _pad_axis(x: Tensor, axis: int, before: int, after: int, name: Boundary) -> Tensor:
    if name == "constant":
        return F.pad(x, [0, 0] * (x.ndim - 1 - axis) + [before, after])
    size = x.shape[axis]
    if max(before, after) > (size if name == "periodic" or size == 1 else size - 1):
        raise SciffusionError(
            f"{name} padding by {max(before, after)} cells needs an axis longer than {size}",
            "use a larger window, or a network with a smaller patch or fewer levels",
        )
    if name == "periodic":
        left, right = x.narrow(axis, size - before, before), x.narrow(axis, 0, after)
    else:
        edge = min(1, size - 1)
        left = x.narrow(axis, edge, before).flip(axis)
        right = x.narrow(axis, size - edge - after, after).flip(axis)
    if name == "pole":
        left, right = half_turn(left), half_turn(right)
    return torch.cat([part for part in (left, x, right) if part.shape[axis]], dim=axis)
