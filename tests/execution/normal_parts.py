"""Kernels of the parts of `sciffusion.execution.normal_kernel`, for words and counters of any choice."""

import triton
import triton.language as tl

from sciffusion.execution import normal_kernel


@triton.jit
def philox(given, out, BLOCK: tl.constexpr):
    """Rows of counter and key, 6 words; rows of 4 words."""
    at, to = given + 6 * tl.arange(0, BLOCK), out + 4 * tl.arange(0, BLOCK)
    c0, c1, c2, c3 = tl.philox_impl(load(at), load(at + 1), load(at + 2), load(at + 3), load(at + 4), load(at + 5))
    tl.store(to, c0.to(tl.int64, bitcast=True))
    tl.store(to + 1, c1.to(tl.int64, bitcast=True))
    tl.store(to + 2, c2.to(tl.int64, bitcast=True))
    tl.store(to + 3, c3.to(tl.int64, bitcast=True))


@triton.jit
def words(key, places, out, BLOCK: tl.constexpr):
    row = tl.arange(0, BLOCK)
    word = normal_kernel.word(load(key), load(key + 1), load(places + row))
    tl.store(out + row, word.to(tl.int64, bitcast=True))


@triton.jit
def transform(given, out, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + row, normal_kernel.transform(load(given + row)))


@triton.jit
def load(place):
    return tl.load(place).to(tl.uint64, bitcast=True)
