"""Means over blocks of cells, and linear interpolation back, in any rank and for any size."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from sciffusion.boundary import Boundary
from sciffusion.networks.padding import pad

__all__ = ["enlarge", "pool"]

_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def pool(x: Tensor, factor: int) -> Tensor:
    """Means of (batch, channel, *grid) over blocks of ``factor`` cells a side; a last block may be incomplete."""
    if factor == 1:
        return x
    return _POOLS[x.ndim - 2](x, factor, ceil_mode=True, count_include_pad=False)


def enlarge(x: Tensor, factor: int, size: Sequence[int], boundary: Sequence[Boundary]) -> Tensor:
    """Interpolate block means to ``size``, linearly between the middles of blocks, across the boundary where there is.

    Past an edge where zeros are padded the field is mirrored.
    """
    if factor == 1:
        return x
    names: list[Boundary] = ["reflect" if name == "constant" else name for name in boundary]
    wide = F.interpolate(pad(x, [1] * len(names), names), scale_factor=factor, mode=_MODES[x.ndim - 2])
    for axis, cells in enumerate(size, start=2):
        wide = wide.narrow(axis, factor, cells)
    return wide
