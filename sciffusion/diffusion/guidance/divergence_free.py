"""Divergence-free vectors on periodic planes and boxes: the Leray projection, mode by mode.

With d_j(k) the symbol of the derivative along axis j (i k_j, or that of a difference scheme), s_j the scale and b_j the
offset of component j (physical u_j = s_j z_j + b_j), the nearest field in network units with div u = 0 is

    z_k <- z_k - a* (a . z_k + d . b_k) / |a|^2,      a_j = s_j d_j                                (1)

Modes without a derivative (the mean; under spectral and centred derivatives also the shortest waves of even axes, whose
derivative is not representable) are left alone: their divergence is 0.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser, Wrapper
from sciffusion.errors import SciffusionError

__all__ = ["Derivative", "DivergenceFree", "divergence", "divergence_free"]

Derivative = Literal["spectral", "centred", "staggered"]


def divergence(u: Tensor, spacing: Sequence[float], derivative: Derivative = "spectral") -> Tensor:
    """Sum of d u_j / d axis_j of u (..., component, *grid), one component per grid axis: (..., *grid).

    ``derivative``: "spectral"; "centred" differences (u_{i+1} - u_{i-1}) / 2h; "staggered" ones (u_{i+1} - u_i) / h,
    for components on the faces before the cells. ``spacing`` of every axis, in units of length.
    """
    axes, shape = _grid(u, spacing)
    symbols = _symbols(shape, tuple(spacing), derivative, u.device, u.dtype)
    modes = (symbols * torch.fft.rfftn(u, dim=axes)).sum(axes[0] - 1)
    answer: Tensor = torch.fft.irfftn(modes, s=shape, dim=axes)
    return answer


def divergence_free(
    z: Tensor,
    spacing: Sequence[float],
    scale: Sequence[float] | Tensor | None = None,
    offset: Tensor | None = None,
    derivative: Derivative = "spectral",
) -> Tensor:
    """Equation (1) for z (..., component, *grid); ``scale`` (component,), ``offset`` broadcasts against z."""
    axes, shape = _grid(z, spacing)
    units = tuple(step / min(spacing) for step in spacing)  # (1) does not depend on the unit of length
    symbols = _symbols(shape, units, derivative, z.device, z.dtype)
    factors = z.new_ones(len(spacing)) if scale is None else torch.as_tensor(scale).to(z)
    factors = factors.reshape(-1, *[1] * len(spacing))
    physical = factors * z if offset is None else factors * z + offset.to(z)
    found = (symbols * torch.fft.rfftn(physical, dim=axes)).sum(axes[0] - 1, keepdim=True)
    gradient = factors * symbols
    square = (gradient.abs() ** 2).sum(0, keepdim=True)
    move = torch.where(square > 0, gradient.conj() * found / torch.where(square > 0, square, 1), 0)
    answer: Tensor = z - torch.fft.irfftn(move, s=shape, dim=axes)
    return answer


def _grid(z: Tensor, spacing: Sequence[float]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The grid axes of z (..., component, *grid) and their sizes."""
    axes, shape = tuple(range(-len(spacing), 0)), tuple(z.shape[z.ndim - len(spacing) :])
    if z.ndim <= len(spacing) or z.shape[axes[0] - 1] != len(spacing):
        raise SciffusionError(
            f"a velocity of shape {tuple(z.shape)} on {len(spacing)} axes", "give (..., component, *grid)"
        )
    return axes, shape


@lru_cache(maxsize=32)
def _symbols(
    shape: tuple[int, ...], spacing: tuple[float, ...], derivative: Derivative, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """d_j of every mode of rfftn, (component, *modes), kept on the device; complex of the precision of ``dtype``."""
    if derivative not in get_args(Derivative):
        raise SciffusionError(f"no derivative is called {derivative!r}", f"known: {', '.join(get_args(Derivative))}")
    symbols, modes = [], (*shape[:-1], shape[-1] // 2 + 1)
    for axis, (size, step) in enumerate(zip(shape, spacing, strict=True)):
        frequencies = torch.fft.rfftfreq if axis == len(shape) - 1 else torch.fft.fftfreq
        symbol = _symbol(2 * math.pi * frequencies(size, dtype=torch.float64), derivative) / step
        symbols.append(symbol.reshape(-1, *[1] * (len(shape) - axis - 1)))
    return torch.stack([symbol.expand(modes) for symbol in symbols]).to(
        device, torch.complex128 if dtype == torch.float64 else torch.complex64
    )


def _symbol(phase: Tensor, derivative: Derivative) -> Tensor:
    """The derivative over one cell of exp(i phase cell); 0 at the shortest wave unless staggered."""
    if derivative == "staggered":
        return torch.exp(1j * phase) - 1
    symbol = 1j * (phase if derivative == "spectral" else phase.sin())
    return torch.where(phase.abs() > math.pi - 1e-9, 0, symbol)


class DivergenceFree(Wrapper):
    """A denoiser whose velocity has no divergence on a periodic plane or box.

    The mean of divergence-free fields has no divergence, so the projection is right at every noise level.

    Parameters
    ----------
    channels : the velocity components, one per axis of the plane or box, in the order of the axes.
    spacing : of those axes, the last ones of the grid (a time axis may come before), in one unit of length.
    scale, offset : physical velocity = scale * z + offset (the sd and the mean of the codec): (component,), and (batch
        or 1, component, *grid). None: network units are physical up to one factor.
    derivative : as in `divergence`: that of the scheme in which the data have no divergence.
    """

    scale: Tensor | None
    offset: Tensor | None
    channels: Tensor

    def __init__(
        self,
        denoiser: Denoiser,
        channels: Sequence[int],
        spacing: Sequence[float],
        scale: Sequence[float] | None = None,
        offset: Tensor | None = None,
        derivative: Derivative = "spectral",
    ) -> None:
        super().__init__(denoiser)
        if len(channels) != len(spacing):
            raise SciffusionError(
                f"{len(channels)} velocity components on {len(spacing)} axes", "give one component per axis"
            )
        self.spacing, self.derivative = tuple(spacing), derivative
        self.register_buffer("scale", None if scale is None else torch.as_tensor(scale), persistent=False)
        self.register_buffer("channels", torch.as_tensor(list(channels)), persistent=False)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """The projected E[x0 | x]."""
        answer = self.denoiser(x, sigma, cond)
        axis = -1 - len(self.spacing)  # where `divergence_free` has the components
        offset = None if self.offset is None else self.offset.movedim(1, axis)
        part = answer.index_select(1, self.channels).movedim(1, axis)
        part = divergence_free(part, self.spacing, self.scale, offset, self.derivative).movedim(axis, 1)
        return answer.index_copy(1, self.channels, part)
