"""Matrix products of 8-bit floating-point numbers for inference: e4m3, 4 bits of exponent and 3 of mantissa.

x w^T for rows x_i and w_j: each row is divided by its scale s = max|row| / 448, which makes its largest element the
largest number of the format, and rounded to the nearest. Tensor cores sum the products, and s_i s_j multiplies the sum.

A rounded element is off by at most 2^-4 of itself, and by 2^-10 s where it is below 2^-6 s. The rms of the relative
error, for magnitudes that are spread evenly over an octave, is 2^-4 / sqrt(3) * sqrt(3 / (8 ln 2)) = 2.65 %, so that a
sum of products of independent signs is off by 3.75 % of its own rms.
"""

import math

import torch
from torch import Tensor, nn

__all__ = ["LARGEST", "Product", "fits", "quantise", "refusal"]

LARGEST = 448.0  # of e4m3
_MULTIPLE, _LEAST = 16, 64  # of the sides of a weight
_CAPABILITY = (8, 9)  # of GPUs with units for it
_SMALLEST = 1e-30  # of the largest of a row; smaller ones become zeros, without a division by zero


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of ``x`` (row, feature) in e4m3, and the scale (row, 1) in float32 that they are to be multiplied by.

    No element of a row changes if the row is multiplied by a power of two; a compiler makes one pass of it, joined to
    whatever computes ``x``.
    """
    largest = torch.linalg.vector_norm(x, math.inf, dim=-1, keepdim=True).float().clamp(min=_SMALLEST)
    return (x * (LARGEST / largest)).to(torch.float8_e4m3fn), largest / LARGEST


class Product(nn.Module):
    """An affine map by a weight (out, feature), rounded once; what it is applied to is rounded at every call."""

    rows: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        rows, scale = quantise(weight)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("scale", scale.t(), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach().bfloat16(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., feature) to (..., out) in bfloat16. It has no derivative."""
        values, scale = quantise(x.flatten(0, -2))
        return _scaled_product(values, self.rows, scale, self.scale, self.bias).reshape(*x.shape[:-1], -1)


def fits(out: int, features: int) -> bool:
    """Whether a weight may be rounded: tensor cores take multiples of 16, and narrow products gain nothing."""
    return all(side % _MULTIPLE == 0 and side >= _LEAST for side in (out, features))


def refusal(device: torch.device) -> str | None:
    """Why ``device`` has no such products; None where it has. On a CPU they are those of the rounded numbers."""
    if device.type != "cuda":
        return None
    if torch.cuda.get_device_capability(device) < _CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} has no units for it"
    try:
        with torch.no_grad():
            ones = torch.ones(_LEAST, _LEAST, device=device)
            Product(ones, ones[0])(ones)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        return (str(error).splitlines() or [""])[0][:200]
    return None


def _scaled_product(x: Tensor, w: Tensor, x_scale: Tensor, w_scale: Tensor, bias: Tensor | None) -> Tensor:
    """(x x_scale) (w w_scale)^T + bias: on GPUs the one call of a function that torch keeps private.

    The public ``torch.nn.functional.scaled_mm`` is younger, and not tried with the compiler of torch 2.11. On CPUs that
    torch has scales of whole matrices only, and no CPU gains by it.
    """
    if x.is_cuda:
        return torch._scaled_mm(x, w.t(), x_scale, w_scale, bias=bias, out_dtype=torch.bfloat16, use_fast_accum=True)
    with torch.autocast(x.device.type, enabled=False):  # the rounded factors are exact in float32
        answer = (x.float() @ w.float().t()) * x_scale * w_scale
    return (answer if bias is None else answer + bias).to(torch.bfloat16)
