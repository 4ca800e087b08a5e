"""The noise of `sciffusion.noise` as one Triton kernel: the same words, the same transform, to the bit.

To be imported where Triton is installed only. Whoever launches it says ``enable_fp_fusion=False``, so that every
product is rounded before it is added to something; quotients and roots of float64 are rounded as IEEE 754 demands
without a word. Every cell computes its own Philox counter, so that windows are no special case.
"""

import triton
import triton.language as tl

from sciffusion import noise

__all__ = ["draw", "transform", "word"]

_A, _B, _C = tl.constexpr(noise.A), tl.constexpr(noise.B), tl.constexpr(noise.C)
_D, _E, _F = tl.constexpr(noise.D), tl.constexpr(noise.E), tl.constexpr(noise.F)
_ATANH = tl.constexpr(noise.ATANH)
_LN2, _SQRT_HALF = tl.constexpr(noise.LN2), tl.constexpr(noise.SQRT_HALF)


@triton.jit(do_not_specialize=["cells", "depth", "height", "width", "channel", "plane", "row"])
def draw(
    out,
    table,
    cells: tl.int32,
    depth: tl.int32,
    height: tl.int32,
    width: tl.int32,
    channel: tl.int64,
    plane: tl.int64,
    row: tl.int64,
    terms: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Noise of every item, into ``out`` (item, cells): windows (channel, depth, height, width), flat.

    ``channel``, ``plane`` and ``row`` are words of the stream from one channel, plane or row of the window to the next.
    ``table`` has a row of int64 per item: the place in the stream of the window's first cell, the bits of the divisor,
    and for each of ``terms`` the key's two words and the bits of the weight.
    """
    blocks = tl.cdiv(cells, BLOCK)
    item = tl.program_id(0) // blocks
    cell = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    line = cell // width
    level = line // height
    entry = table + item * (2 + 3 * terms)
    place = tl.load(entry) + (level // depth) * channel + (level % depth) * plane + (line % height) * row + cell % width
    total = tl.zeros([BLOCK], tl.float64)
    for term in range(terms):
        at = entry + 2 + 3 * term
        first, second = tl.load(at).to(tl.uint64, bitcast=True), tl.load(at + 1).to(tl.uint64, bitcast=True)
        weight = tl.load(at + 2).to(tl.float64, bitcast=True)
        total += transform(word(first, second, place.to(tl.uint64))).to(tl.float64) * weight
    divisor = tl.load(entry + 1).to(tl.float64, bitcast=True)
    value = total.to(tl.float32).to(tl.float64) / divisor
    tl.store(out + item.to(tl.int64) * cells + cell, value.to(tl.float32), mask=cell < cells)


@triton.jit
def word(first, second, place):
    """Word number ``place`` of numpy's Philox4x64-10 with these key words, whose first counter is 1."""
    zero = place * 0
    c0, c1, c2, c3 = tl.philox_impl(place // 4 + 1, zero, zero, zero, first, second)
    lane = place % 4
    return tl.where(lane < 2, tl.where(lane == 0, c0, c1), tl.where(lane == 2, c2, c3))


@triton.jit
def transform(word):
    """The normal of a word, float32; see `sciffusion.noise`."""
    p = (((word >> 11) & 0xFFFFFFFFFFFFF).to(tl.float64) + 0.5) * 1.1102230246251565e-16
    q = 0.5 - p
    value = tl.where(q > _like(q, 0.425), _tail(p), _central(q)).to(tl.float32)
    return tl.where((word >> 63) == 1, -value, value)


@triton.jit
def _central(q):
    r = 0.180625 - q * q
    return _polynomial(r, _A, 8) / _polynomial(r, _B, 8) * q


@triton.jit
def _tail(p):
    r = tl.sqrt(-_log(p))
    near = _polynomial(r - 1.6, _C, 8) / _polynomial(r - 1.6, _D, 8)
    return tl.where(r > 5.0, _polynomial(r - 5.0, _E, 8) / _polynomial(r - 5.0, _F, 8), near)


@triton.jit
def _log(p):
    bits = p.to(tl.int64, bitcast=True)
    half = (bits & 0xFFFFFFFFFFFFF) | 0x3FE0000000000000  # the mantissa, in [1/2, 1)
    m = half.to(tl.float64, bitcast=True)
    low = m < _like(m, _SQRT_HALF)
    exponent = (bits >> 52) - 1022 - low.to(tl.int64)
    m = tl.where(low, 2.0 * m, m)
    s = (m - 1.0) / (m + 1.0)
    return 2.0 * s * _polynomial(s * s, _ATANH, 12) + exponent.to(tl.float64) * _LN2


@triton.jit
def _polynomial(x, coefficients: tl.constexpr, count: tl.constexpr):
    value = x * coefficients[count - 1]
    for n in tl.static_range(2, count):
        value = (value + coefficients[count - n]) * x
    return value + coefficients[0]


@triton.jit
def _like(x, number: tl.constexpr):
    """The number in float64: what is compared with a number by itself, Triton 3.6 rounds that to float32."""
    return tl.full(x.shape, number, tl.float64)
