"""Layers of the convolutional networks, general in grid rank, with boundaries by name.

Two styles. *Magnitude-preserving* (Karras et al. 2024, arXiv:2312.02696, appendix B): weights of unit norm per output
channel, activations rescaled so that uncorrelated unit-variance features stay so, no normalisation over the grid; every
operation is local, so a network trained on windows is the same network on the whole domain. *Classic*: group
normalisation, biases, ordinary initialisation. Constant factors of activations and sums are folded into the weights.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.boundary import Boundary
from sciffusion.networks import fp8
from sciffusion.networks.padding import pad

__all__ = [
    "SILU_RMS",
    "Conv",
    "Fourier",
    "Linear",
    "bake",
    "fp8_layers",
    "lay_out",
    "lengthen",
    "normalise",
    "pixel_norm",
    "sum_weights",
    "unbake",
    "upsample",
]

SILU_RMS = 0.596  # root mean square of silu(z), z ~ N(0, 1); EDM2 eq. 81
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def normalise(weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Scale each output row of ``weight`` (out, ...) to unit norm (EDM2 eq. 66, up to the factor sqrt(fan-in)).

    The norm of a stored row does not act on the answer, but on how fast it is trained: see `lengthen`.
    """
    norm = _norm(weight, list(range(1, weight.ndim)))
    unit: Tensor = weight / (norm + eps).to(weight.dtype)
    return unit


def pixel_norm(x: Tensor, eps: float = 1e-4) -> Tensor:
    """Scale the channels of each cell to unit root mean square (EDM2 eq. 30)."""
    norm = _norm(x, [1])
    scale: Tensor = math.sqrt(x.shape[1]) / (norm + eps)
    return x * scale.to(x.dtype)


def _norm(x: Tensor, dims: list[int]) -> Tensor:
    """Euclidean norm over ``dims``, in float32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    norm: Tensor = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=dtype)
    return norm


def sum_weights(share: float) -> tuple[float, float]:
    """Weights (a, b) of a magnitude-preserving sum a x + b y in which y has the given share (EDM2 eq. 88)."""
    scale = math.hypot(1 - share, share)
    return (1 - share) / scale, share / scale


class _Weighted(nn.Module):
    """A weight (out, ...) used as it is, or normalised by rows; then scaled by a constant gain.

    Normalising is idempotent, so ``bake`` may cache the result for inference and stored weights may be of any norm.
    """

    def __init__(self, shape: Sequence[int], normalised: bool, zero: bool, gain: float) -> None:
        super().__init__()
        rows = torch.zeros(*shape) if zero else torch.randn(*shape) / math.sqrt(math.prod(shape[1:]))
        self.weight = nn.Parameter(rows)
        self.bias = None if normalised else nn.Parameter(torch.zeros(shape[0]))
        self.normalised, self.gain = normalised, gain
        self.baked: Tensor | None
        self.register_buffer("baked", None, persistent=False)

    def effective(self) -> Tensor:
        """The weight that acts."""
        return self.exact() if self.baked is None else self.baked

    def exact(self) -> Tensor:
        """The weight that acts, in the precision of the parameter."""
        weight = normalise(self.weight) if self.normalised else self.weight
        return weight if self.gain == 1.0 else weight * self.gain

    def unbake(self) -> None:
        """Drop what `bake` cached."""
        self.baked = None

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        """New weights end the baked one."""
        self.unbake()
        super()._load_from_state_dict(*args, **options)

    def train(self, mode: bool = True) -> "_Weighted":
        """Training drops the baked weight: it would hide the updates."""
        if mode:
            self.unbake()
        super().train(mode)
        return self


class Linear(_Weighted):
    """Affine map of vectors by ``gain`` times the (normalised) weight: (batch, features) to (batch, out).

    ``roundable`` says that it may be computed in fp8, if its shape fits.
    """

    def __init__(
        self,
        features: int,
        out: int,
        normalised: bool,
        zero: bool = False,
        gain: float = 1.0,
        *,
        roundable: bool = False,
    ) -> None:
        super().__init__((out, features), normalised, zero, gain)
        self.roundable = roundable and fp8.fits(out, features)
        self.rounded: fp8.Product | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map; where a derivative is wanted, not in fp8."""
        if self.rounded is None or (torch.is_grad_enabled() and x.requires_grad):
            return F.linear(x, self.effective(), self.bias)
        answer: Tensor = self.rounded(x)
        return answer

    def unbake(self) -> None:
        """Drop what `bake` cached."""
        self.rounded = None
        super().unbake()


class Conv(_Weighted):
    """Convolution of (batch, channel, *grid) with boundary padding; ``stride`` keeps cells 0, stride, ... of each axis.

    The output has ceil(size / stride) cells per axis. Kernels are odd; ``gain`` scales the (normalised) weight.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        rank: int,
        kernel: int = 3,
        *,
        normalised: bool,
        stride: int = 1,
        zero: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__((out, channels, *[kernel] * rank), normalised, zero, gain)
        self.stride, self.reach, self.rank = stride, kernel // 2, rank

    def forward(self, x: Tensor, boundary: Sequence[Boundary]) -> Tensor:
        """Pad by ``boundary``, convolve."""
        zeros = [self.reach if name == "constant" else 0 for name in boundary]
        if self.reach:
            x = pad(x, [self.reach - zero for zero in zeros], boundary)
        return _CONVOLUTIONS[self.rank](x, self.effective(), self.bias, stride=self.stride, padding=zeros)


class Fourier(nn.Module):
    """Features sqrt(2) cos(2 pi (f c + p)) of scalars (EDM2 eq. 75).

    Frequencies are the quantiles of a standard normal and phases a golden-ratio sequence instead of random draws, so
    that they do not depend on a seed.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        rank = torch.arange(features, dtype=torch.float64)
        frequency = torch.special.ndtri((rank + 0.5) / features)
        self.frequency: Tensor
        self.phase: Tensor
        self.register_buffer("frequency", frequency.float(), persistent=False)
        self.register_buffer("phase", torch.remainder(rank * (math.sqrt(5) - 1) / 2, 1).float(), persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        """(...) to (..., features), in float32."""
        angle = c.float()[..., None] * self.frequency + self.phase
        return math.sqrt(2) * torch.cos(2 * math.pi * angle)


@torch.no_grad()
def lengthen(module: nn.Module, most: float) -> None:
    """Give the rows of the normalised layers of ``module`` the norm max(1, n / most), n their number of inputs.

    Adam at rate r changes every entry of a row w by about r, so one step changes the answer w x / |w| of inputs of unit
    root mean square by up to r n / |w|, where they are aligned with the step. For rows of unit norm this grows with the
    width; now it is at most r ``most``. That the rate must fall as 1 / n is what Yang et al. 2022 (arXiv:2203.03466)
    derive for hidden layers; here it is done in the parameters, so that one rate fits all widths. Nothing changes for
    an answer, nor for layers of up to ``most`` inputs.
    """
    for layer in module.modules():
        if isinstance(layer, _Weighted) and layer.normalised:
            layer.weight.copy_(normalise(layer.weight) * max(1.0, math.prod(layer.weight.shape[1:]) / most))


def upsample(x: Tensor, size: Sequence[int], boundary: Sequence[Boundary]) -> Tensor:
    """Interpolate linearly to ``size`` (the finer grid of a stride-2 convolution, whose cells 0, 2, ... ``x`` holds).

    Past an edge where zeros are padded the field is mirrored, so that it does not fade there.
    """
    boundary = ["reflect" if name == "constant" else name for name in boundary]
    for axis, cells in enumerate(size):
        if x.shape[axis + 2] == cells:
            continue
        widths = [(0, int(other == axis)) for other in range(len(size))]
        following = pad(x, widths, boundary).narrow(axis + 2, 1, x.shape[axis + 2])
        pairs = torch.stack([x, (x + following) / 2], dim=axis + 3)
        x = pairs.flatten(axis + 2, axis + 3).narrow(axis + 2, 0, cells)
    return x


@torch.no_grad()
def lay_out(network: nn.Module) -> None:
    """Keep the weights of convolutions with their channels innermost, as the tensor cores of GPUs take them.

    So are their gradients and averages, and the answers of the convolutions. Values do not change.
    """
    for module in network.modules():
        if isinstance(module, Conv):
            module.weight.data = _channels_last(module.weight.data)


def _channels_last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=_LAYOUTS.get(weight.ndim, torch.contiguous_format))


@torch.no_grad()
def bake(
    network: nn.Module, dtype: torch.dtype | None = None, *, channels_last: bool = False, in_fp8: bool = False
) -> nn.Module:
    """Cache the normalised weights of ``network`` for inference, optionally in a lower precision or another layout.

    A convolution whose weight is in channels_last makes its answer so, and what follows keeps it. With ``in_fp8`` the
    layers that may be are computed so, to bfloat16.

    The parameters stay as they are; `unbake` and ``network.train()`` drop the cache.
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, _Weighted):
            module.unbake()
            weight = module.effective().to(dtype=dtype).clone()
            module.baked = _channels_last(weight) if channels_last else weight
    for layer in fp8_layers(network) if in_fp8 else []:
        layer.rounded = fp8.Product(layer.exact(), layer.bias)
    return network


def unbake(network: nn.Module) -> None:
    """Drop what `bake` cached."""
    for module in network.modules():
        if isinstance(module, _Weighted):
            module.unbake()


def fp8_layers(network: nn.Module) -> list[Linear]:
    """The layers that may be computed in fp8."""
    return [module for module in network.modules() if isinstance(module, Linear) and module.roundable]
