"""Member noise made on the GPU that uses it, by one kernel, bitwise that of `sciffusion.noise`.

A kernel is believed on a device after it has drawn there, once per process, what numpy draws: tails, windows, sums and
quotients. Where Triton is missing or fails, or a single bit differs, the log says so and the host goes on drawing.
"""

import logging
import threading
from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.errors import reason
from sciffusion.execution.transfer import to_device
from sciffusion.noise import MemberNoise, NoiseKey, member_noise, window_bounds

__all__ = ["drawn_on", "draws_noise"]

log = logging.getLogger("sciffusion")
BLOCK = 256  # cells of a program
_checked: dict[torch.device, bool] = {}
_one_at_a_time = threading.Lock()

_KEYS = [NoiseKey(seed, ("2026-11-26", 0.5), 7, "check", seed, "self") for seed in range(3)]
_FAR = (NoiseKey(0, (), 0), (101435460464, 164245774098))  # a stream, and places of its numbers 6.85 and -6.95
_PROBES = (  # what a kernel has to draw as numpy does
    ((2, 67, 61), [MemberNoise(((1.0, key),)) for key in _KEYS]),
    ((1, 50, 41), [MemberNoise(((0.8, _KEYS[i]), (0.6, _KEYS[i - 1])), divisor=0.7 + i) for i in range(3)]),
    ((2, 9, 8, 7), [MemberNoise(((1.0, _KEYS[0]),), (slice(i, i + 5), slice(3, 8), slice(2, 7))) for i in (1, 4)]),
    ((1, 1 << 38), [MemberNoise(((1.0, _FAR[0]),), (slice(place - 3, place + 6),)) for place in _FAR[1]]),
)


def draws_noise(device: torch.device) -> bool:
    """Whether `drawn_on` works on ``device`` and can be trusted; found out when it is first asked for."""
    if device.type != "cuda":
        return False
    with _one_at_a_time:
        if device not in _checked:
            refusal = _refusal(device)
            _checked[device] = refusal is None
            if refusal is not None:
                log.warning("no noise is drawn on %s (%s): the host draws it", device, refusal)
        return _checked[device]


def drawn_on(device: torch.device, members: Sequence[MemberNoise], shape: Sequence[int]) -> Tensor:
    """What `sciffusion.noise.member_noise` returns, made on ``device`` without waiting for it."""
    from sciffusion.execution.normal_kernel import draw  # Triton is not everywhere

    grid, bounds = _window(shape, members[0].window)
    lengths = [last - first for first, last in bounds]
    sizes = shape[1:] if members[0].window is None else lengths[4 - len(shape) :]
    out = torch.empty(len(members), shape[0], *sizes, device=device)
    cells = out[0].numel()
    blocks = -(-cells // BLOCK)
    if blocks:
        with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]  # it need not be the current one
            table = to_device(torch.from_numpy(_table(members, shape)), device)
            strides = prod(grid), grid[1] * grid[2], grid[2]
            options = {"BLOCK": BLOCK, "enable_fp_fusion": False}  # a product is rounded before it is added to
            draw[(len(members) * blocks,)](out, table, cells, *lengths, *strides, len(members[0].terms), **options)
    return out


def _refusal(device: torch.device) -> str | None:
    """Why the noise of ``device`` is not to be used; None where it is."""
    try:
        for shape, members in _PROBES:
            there, here = drawn_on(device, members, shape).cpu().numpy(), member_noise(members, shape)
            if not np.array_equal(there.view(np.int32), here.view(np.int32)):
                return "some bits are not the host's"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of an import, a compiler, a driver
        return reason(error)
    return None


def _window(shape: Sequence[int], window: Sequence[slice] | None) -> tuple[Sequence[int], Sequence[tuple[int, int]]]:
    """Three axes of the grid, and what is wanted of each; a whole grid is one axis."""
    if window is None:
        return (1, 1, prod(shape[1:])), ((0, 1), (0, 1), (0, prod(shape[1:])))
    missing = 4 - len(shape)
    return (*[1] * missing, *shape[1:]), (*[(0, 1)] * missing, *window_bounds(shape, window))


def _table(members: Sequence[MemberNoise], shape: Sequence[int]) -> NDArray[np.int64]:
    """What the kernel is told of every member: see there."""
    starts = [_start(*_window(shape, member.window)) for member in members]
    divisors = np.array([member.divisor for member in members], np.float64)
    keys = np.array([[key.words() for _, key in member.terms] for member in members], np.uint64)
    weights = np.array([[[weight] for weight, _ in member.terms] for member in members], np.float64)
    terms = np.concatenate([keys.view(np.int64), weights.view(np.int64)], axis=2)
    return np.column_stack([starts, divisors.view(np.int64), terms.reshape(len(members), -1)])


def _start(grid: Sequence[int], bounds: Sequence[tuple[int, int]]) -> int:
    """Place of a window's first cell among those of the grid."""
    (top, _), (upper, _), (left, _) = bounds
    return (top * grid[1] + upper) * grid[2] + left
