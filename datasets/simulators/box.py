"""A periodic box in Fourier space: wavenumbers, dealiasing, change of resolution, random fields.

Notation: u (..., *shape) is real, its modes u^ = rfftn(u) are (..., *modes); k_j are angular wavenumbers along axis j,
in radians per unit of length. Products of two fields are free of aliasing when modes with 3 |index| >= n are dropped
(Orszag 1971, doi:10.1175/1520-0469(1971)028<1074:OTEOAI>2.0.CO;2).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sciffusion.noise import NoiseKey, normal

__all__ = ["Box", "block_means", "random_field", "resample"]


class Box:
    """Grid of ``shape`` over ``lengths``: ``k`` (one per axis, broadcastable), ``k2`` = |k|^2, ``keep`` (*modes)."""

    def __init__(
        self,
        shape: Sequence[int],
        lengths: Sequence[float],
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape, self.lengths = tuple(shape), tuple(lengths)
        self.dtype, self.device = dtype, torch.device(device)
        self.axes = tuple(range(-len(self.shape), 0))
        whole = [torch.fft.fftfreq(n, 1 / n, dtype=dtype, device=device) for n in self.shape]
        whole[-1] = torch.fft.rfftfreq(self.shape[-1], 1 / self.shape[-1], dtype=dtype, device=device)
        index = torch.meshgrid(*whole, indexing="ij")
        self.k = tuple(2 * math.pi / length * i for i, length in zip(index, self.lengths, strict=True))
        self.k2 = torch.stack([k**2 for k in self.k]).sum(0)
        self.keep = torch.stack([3 * i.abs() < n for i, n in zip(index, self.shape, strict=True)]).all(0)

    def modes(self, u: Tensor) -> Tensor:
        """The modes (..., *modes) of a field (..., *shape)."""
        modes: Tensor = torch.fft.rfftn(u, dim=self.axes)
        return modes

    def field(self, modes: Tensor) -> Tensor:
        """The field (..., *shape) of modes (..., *modes)."""
        u: Tensor = torch.fft.irfftn(modes, s=self.shape, dim=self.axes)
        return u

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Modes of the product of two fields (..., *shape) with modes in ``keep`` only: exact there, else 0."""
        return self.modes(a * b) * self.keep


def resample(u: Tensor, shape: Sequence[int]) -> Tensor:
    """The trigonometric interpolant of u (..., *grid) on a grid of ``shape``; modes that do not fit are dropped."""
    rank = len(shape)
    axes, old = tuple(range(-rank, 0)), u.shape[u.ndim - rank :]
    modes = torch.fft.fftn(u, dim=axes) * (math.prod(shape) / math.prod(old))
    for axis, before, after in zip(axes, old, shape, strict=True):
        reach = (min(before, after) - 1) // 2  # the mode at half the sampling rate has no sign and is left out
        inner = torch.arange(-reach, reach + 1, device=u.device)
        size = [*modes.shape[: modes.ndim + axis], after, *modes.shape[modes.ndim + axis + 1 :]]
        picked = modes.index_select(modes.ndim + axis, inner % before)
        modes = modes.new_zeros(size).index_copy(modes.ndim + axis, inner % after, picked)
    answer: Tensor = torch.fft.ifftn(modes, dim=axes).real
    return answer


def block_means(u: Tensor, factor: int, rank: int) -> Tensor:
    """Means of u (..., *grid) over blocks of ``factor`` cells along each of the last ``rank`` axes."""
    for axis in range(u.ndim - rank, u.ndim):
        u = u.reshape(*u.shape[:axis], -1, factor, *u.shape[axis + 1 :]).mean(axis + 1)
    return u


def random_field(
    cases: Sequence[int],
    box: Box,
    spectrum: Callable[[Tensor], Tensor],
    *,
    seed: int,
    name: str,
    modes: Sequence[int] | None = None,
) -> Tensor:
    """Gaussian fields (case, *shape) whose modes have the variance ``spectrum(|k|)``, up to a factor.

    A field depends on (``seed``, ``name``, case) alone. Noise drawn on the coarser grid ``modes`` gives the same field
    at every resolution.
    """
    drawn = tuple(modes or box.shape)
    keys = [NoiseKey(seed, (int(case),), 0, stage=name) for case in cases]
    noise = torch.stack([torch.from_numpy(normal(key, drawn)) for key in keys]).to(box.device, box.dtype)
    noise = noise if drawn == box.shape else resample(noise, box.shape)
    return box.field(box.modes(noise) * spectrum(box.k2.sqrt()).sqrt())
