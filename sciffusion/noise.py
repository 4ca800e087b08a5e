"""Member noise: standard normals that depend on a key and a cell's index, on nothing else.

The noise of a member must be bitwise the same for any batch size, order, tiling, number of devices, machine and
library version. Generators of array libraries do not promise that, so the two halves are fixed here:

1. Words. numpy's Philox4x64-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405), a counter-based generator whose
   stream numpy guarantees, keyed by 128 bits hashed from the `NoiseKey`. Element ``i`` is the ``i``-th 64-bit word.
2. Normals. The top bit of the word is the sign; the next 52 bits, ``k``, give the tail probability
   ``p = (k + 1/2) 2^-53`` in (0, 1/2); the value is ``+-quantile(p)`` by Wichura's AS 241 (1988, doi:10.2307/2347330),
   evaluated in float64 by + - * / and sqrt alone, each of which IEEE 754 rounds correctly, and rounded to float32.
   The logarithm that AS 241 needs is a series of ours, because the C library's differs between machines.

`sciffusion.execution.normals` draws the same on GPUs, to the bit.

Largest possible magnitude: the quantile of 2^-54, 8.29.
"""

import hashlib
import json
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHUNK", "MemberNoise", "NoiseKey", "member_noise", "normal", "window_bounds", "window_normal"]

_VERSION = "sciffusion-noise-1"  # part of every key: another transform would be another stream
_LANES = 4  # 64-bit words per Philox counter
CHUNK = 1 << 16  # elements transformed at a time: the temporaries stay in the cache


@dataclass(frozen=True)
class NoiseKey:
    """Name of one noise field.

    ``case`` is the label of the case (encoded coordinate values, () when there is none), ``stage`` the stage of the
    emulator, ``step`` the step of a stochastic solver, ``stream`` the use ("start", "churn", ...).
    """

    seed: int
    case: tuple[str | int | float, ...]
    member: int
    stage: str = ""
    step: int = 0
    stream: str = "start"

    def words(self) -> tuple[int, int]:
        """The 128-bit Philox key: blake2b of the fields as canonical JSON. Raises ValueError for a NaN label."""
        fields = [
            _VERSION,
            operator.index(self.seed),
            [_plain(label) for label in self.case],
            operator.index(self.member),
            self.stage,
            operator.index(self.step),
            self.stream,
        ]
        text = json.dumps(fields, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        digest = hashlib.blake2b(text.encode("ascii"), digest_size=16).digest()
        return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


@dataclass(frozen=True)
class MemberNoise:
    """What the noise field of one member is: the sum of weight * `normal` over ``terms``, divided by ``divisor``.

    Sum and quotient are made in float64, in the order of the terms, and each is rounded to float32. ``window`` is the
    part of the grid that is wanted (see `window_normal`), None all of it.
    """

    terms: tuple[tuple[float, NoiseKey], ...]
    window: tuple[slice, ...] | None = None
    divisor: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether it is one field as it is drawn: nothing is summed or divided."""
        return len(self.terms) == 1 and self.terms[0][0] == 1 and self.divisor == 1


def normal(key: NoiseKey, shape: Sequence[int], *, start: int = 0) -> NDArray[np.float32]:
    """Standard normals of ``shape`` in C order; element ``i`` is element ``start + i`` of the key's endless stream.

    Hence ``normal(key, (n,))`` is a prefix of ``normal(key, (n + m,))``.
    """
    return _transform(_raw(key.words(), start, prod(shape))).reshape(tuple(shape))


def window_normal(key: NoiseKey, shape: Sequence[int], slices: Sequence[slice]) -> NDArray[np.float32]:
    """``normal(key, shape)[:, *slices]`` for ``shape`` (channel, *grid), one unit-step slice per grid axis.

    Only the rows of the window are drawn, and only its cells are transformed.
    """
    words = _window(key.words(), shape, slices)
    return _transform(words.ravel()).reshape(words.shape)


def member_noise(members: Sequence[MemberNoise], shape: Sequence[int]) -> NDArray[np.float32]:
    """The noise (member, channel, *window) of fields of ``shape`` (channel, *grid): windows of one size, as many terms.

    Small fields of several members cost less together than one by one.
    """
    total: Any = 0.0
    for terms in zip(*(member.terms for member in members), strict=True):
        keys = [key for _, key in terms]
        words = [_window(key.words(), shape, own.window) for key, own in zip(keys, members, strict=True)]
        joined = words[0] if len(words) == 1 else np.concatenate(words)
        drawn = _transform(joined.ravel()).reshape(len(members), *words[0].shape)
        if all(member.plain for member in members):
            return drawn
        total = total + drawn * _column((weight for weight, _ in terms), drawn)
    total = np.asarray(total, np.float32)
    return np.asarray(total / _column((member.divisor for member in members), total), np.float32)


def window_bounds(shape: Sequence[int], slices: Sequence[slice]) -> list[tuple[int, int]]:
    """First cell and end of a window on each axis of the grid of ``shape`` (channel, *grid)."""
    grid = tuple(shape[1:])
    if len(slices) != len(grid) or any(window.step not in (None, 1) for window in slices):
        raise ValueError(f"a window of {grid} needs {len(grid)} slices of step 1, not {tuple(slices)}")
    bounds = [window.indices(size)[:2] for window, size in zip(slices, grid, strict=True)]
    return [(first, max(first, last)) for first, last in bounds]


def _column(values: Iterable[float], like: NDArray[Any]) -> NDArray[np.float64]:
    """One number per row of ``like``."""
    return np.array(list(values), np.float64).reshape(-1, *[1] * (like.ndim - 1))


def _plain(label: str | int | float) -> str | int | float:
    """A label as plain Python, so that numpy scalars and Python numbers make the same key."""
    if isinstance(label, str):
        return str(label)
    return float(label) if isinstance(label, (float, np.floating)) else operator.index(label)


def _raw(words: tuple[int, int], start: int, count: int) -> NDArray[np.uint64]:
    """Words ``start`` to ``start + count`` of the stream; a Philox counter gives four of them."""
    block, skip = divmod(start, _LANES)
    generator = np.random.Philox(key=np.array(words, np.uint64), counter=block)
    return np.asarray(generator.random_raw(skip + count), np.uint64)[skip:]


def _window(words: tuple[int, int], shape: Sequence[int], slices: Sequence[slice] | None = None) -> NDArray[np.uint64]:
    """The words of a window's cells, (channel, *window); None: of all."""
    if slices is None:
        return _raw(words, 0, prod(shape)).reshape(tuple(shape))
    if len(shape) == 2:
        return _window(words, (*shape, 1), (*slices, slice(None)))[..., 0]
    *outer, (top, bottom), columns = window_bounds(shape, slices)
    height, width = shape[-2:]
    planes = [range(shape[0]), *(range(*bounds) for bounds in outer)]  # one run of neighbouring rows in each
    picked = np.empty((*map(len, planes), bottom - top, columns[1] - columns[0]), np.uint64)
    for place, index in zip(np.ndindex(picked.shape[:-2]), product(*planes), strict=True):
        start = (int(np.ravel_multi_index(index, shape[:-2])) * height + top) * width
        picked[place] = _raw(words, start, (bottom - top) * width).reshape(-1, width)[:, slice(*columns)]
    return picked


def _transform(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Sign bit and 52-bit tail probability of words to normals: in chunks that fit the cache, the tails at once."""
    out = np.empty(words.shape, np.float32)
    places, tails = [np.empty(0, np.int64)], [np.empty(0)]
    for first in range(0, words.size, CHUNK):
        probability = _probability(words[first : first + CHUNK])
        central = 0.5 - probability  # exact: both are multiples of 2^-54
        out[first : first + CHUNK] = _central(central)
        tail = np.flatnonzero(central > 0.425)
        places.append(tail + first)
        tails.append(probability[tail])
    out[np.concatenate(places)] = _tail(np.concatenate(tails))
    return np.negative(out, out=out, where=(words >> np.uint64(63)).astype(bool))


def _probability(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Tail probability of each word, in (0, 1/2)."""
    probability = ((words >> np.uint64(11)) & np.uint64(2**52 - 1)).astype(np.float64)
    probability += 0.5
    probability *= 2.0**-53
    return probability


# Coefficients of AS 241, algorithm PPND16 (relative accuracy 1e-16), lowest power first: numerators and denominators of
# its three parts. The GPU's kernel reads them here.
A = (
    3.3871328727963666080e0,
    1.3314166789178437745e2,
    1.9715909503065514427e3,
    1.3731693765509461125e4,
    4.5921953931549871457e4,
    6.7265770927008700853e4,
    3.3430575583588128105e4,
    2.5090809287301226727e3,
)
B = (
    1.0,
    4.2313330701600911252e1,
    6.8718700749205790830e2,
    5.3941960214247511077e3,
    2.1213794301586595867e4,
    3.9307895800092710610e4,
    2.8729085735721942674e4,
    5.2264952788528545610e3,
)
C = (
    1.42343711074968357734e0,
    4.63033784615654529590e0,
    5.76949722146069140550e0,
    3.64784832476320460504e0,
    1.27045825245236838258e0,
    2.41780725177450611770e-1,
    2.27238449892691845833e-2,
    7.74545014278341407640e-4,
)
D = (
    1.0,
    2.05319162663775882187e0,
    1.67638483018380384940e0,
    6.89767334985100004550e-1,
    1.48103976427480074590e-1,
    1.51986665636164571966e-2,
    5.47593808499534494600e-4,
    1.05075007164441684324e-9,
)
E = (
    6.65790464350110377720e0,
    5.46378491116411436990e0,
    1.78482653991729133580e0,
    2.96560571828504891230e-1,
    2.65321895265761230930e-2,
    1.24266094738807843860e-3,
    2.71155556874348757815e-5,
    2.01033439929228813265e-7,
)
F = (
    1.0,
    5.99832206555887937690e-1,
    1.36929880922735805310e-1,
    1.48753612908506148525e-2,
    7.86869131145613259100e-4,
    1.84631831751005468180e-5,
    1.42151175831644588870e-7,
    2.04426310338993978564e-15,
)
LN2 = 0.6931471805599453
SQRT_HALF = 0.7071067811865476
ATANH = tuple(1.0 / (2 * n + 1) for n in range(12))  # atanh(s) / s in powers of s^2


def _central(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantile of 1/2 + q for 0 <= q <= 0.425; any other q gives a finite number that nobody uses."""
    r = 0.180625 - q * q
    value: NDArray[np.float64] = _polynomial(A, r) / _polynomial(B, r)
    value *= q
    return value


def _tail(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Magnitude of the quantile of p for 2^-54 <= p < 0.075."""
    r = np.sqrt(-_log(p))
    value = _polynomial(C, r - 1.6) / _polynomial(D, r - 1.6)
    far = np.flatnonzero(r > 5.0)
    value[far] = _polynomial(E, r[far] - 5.0) / _polynomial(F, r[far] - 5.0)
    return value


def _log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm: p = m 2^e with sqrt(1/2) <= m < sqrt(2), log m = 2 atanh((m - 1) / (m + 1))."""
    m, e = np.frexp(p)
    low = m < SQRT_HALF
    m = np.where(low, 2.0 * m, m)
    s = (m - 1.0) / (m + 1.0)  # |s| < 0.172: twelve terms leave less than 1e-19
    return 2.0 * s * _polynomial(ATANH, s * s) + (e - low.astype(np.int32)).astype(np.float64) * LN2


def _polynomial(coefficients: Sequence[float], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Horner's scheme, one correctly rounded operation at a time (no fused multiply-add)."""
    value = coefficients[-1] * x
    value += coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value *= x
        value += coefficient
    return value
