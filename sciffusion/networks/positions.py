"""Rotary positions of patches on a grid (Su et al. 2021, arXiv:2104.09864; one share of each head per axis).

Attention then depends on differences of positions alone, so it commutes with shifts. On a periodic axis the
frequencies are rounded to whole wave numbers of the domain: positions close up, and the difference across the seam is
the short one. Where on the planet or in the domain a patch lies is for the context's position channels to say.
"""

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from sciffusion.boundary import Boundary

__all__ = ["angles", "rotate", "turns"]

SHORTEST, LONGEST = 4.0, 512.0  # wavelengths, in patches


def angles(size: Sequence[int], boundary: Sequence[Boundary], width: int, device: torch.device | None = None) -> Tensor:
    """Rotation angles (*size, width / 2) in radians, for heads of ``width``; pairs left over are not rotated."""
    rank, pairs = len(size), width // 2
    share = pairs // rank
    parts = [_axis(size, axis, boundary[axis], share, device) for axis in range(rank) if share]
    rest = torch.zeros(*size, pairs - share * len(parts), device=device)
    return torch.cat([*parts, rest], dim=-1)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def turns(
    size: tuple[int, ...], boundary: tuple[Boundary, ...], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of `angles`, (cells, 1, width / 2) each, made once.

    Compiled code takes them as constants; else it would work them out again for every head of every block.
    """
    return _turns(size, boundary, width, device)


@cache  # for good: recorded graphs read the tensors for as long as they are replayed
def _turns(
    size: tuple[int, ...], boundary: tuple[Boundary, ...], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.no_grad():
        angle = angles(size, boundary, width, device).reshape(math.prod(size), 1, -1)
        return angle.cos(), angle.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the pairs (x_i, x_{i + width/2}) of the last axis; ``turn``: their cosines and sines, which broadcast."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = (part.to(x.dtype) for part in turn)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def _axis(size: Sequence[int], axis: int, name: Boundary, count: int, device: torch.device | None) -> Tensor:
    """Angles (*size, count) along one axis."""
    frequencies = [2 * math.pi / wavelength for wavelength in _wavelengths(count)]
    if name == "periodic":
        unit = 2 * math.pi / size[axis]
        frequencies = [unit * max(1, round(frequency / unit)) for frequency in frequencies]
    position = torch.arange(size[axis], dtype=torch.float32, device=device)
    angle = torch.stack([position * frequency for frequency in frequencies], dim=-1)
    shape = [size[axis] if other == axis else 1 for other in range(len(size))]
    return angle.reshape(*shape, count).expand(*size, count)


def _wavelengths(count: int) -> list[float]:
    return [SHORTEST * (LONGEST / SHORTEST) ** (index / max(1, count - 1)) for index in range(count)]
