"""Clocks, the machine's ceilings, and the bytes that no implementation can avoid moving."""

import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
# Attention reads and writes what the neighbouring products write and read; its logits need not leave the chip.
HEAVY = {aten.convolution, aten.mm, aten.addmm}


def seconds(call: Callable[[], object], device: torch.device, budget: float, least: int = 3) -> float:
    """Median seconds of a call after two warm-up calls, over about ``budget`` seconds; of one that takes 2 s once."""
    call()
    once = _timed(call, device, 1)
    if once > 2:
        return once
    inner = max(1, int(0.02 / once)) if device.type == "cuda" else 1  # short calls are timed in groups
    rounds = min(50, max(least, int(budget / (once * inner))))
    return statistics.median(_timed(call, device, inner) for _ in range(rounds))


def ratio(part: Callable[[], object], whole: Callable[[], object], count: int, device: torch.device) -> float:
    """Median over rounds of the time of ``count`` calls of ``part`` over that of one of ``whole`` just after.

    Turn by turn, as the clock of a device that works hard sinks by some per cent within seconds.
    """
    for call in (part, whole):  # warm up
        call()
    once = _timed(whole, device, 1)
    inner = max(1, int(0.05 / once)) if device.type == "cuda" else 1
    rounds = max(1 if once > 1 else 3, min(25, int(2 / (once * inner))))
    return statistics.median(
        _timed(part, device, count * inner) * count / _timed(whole, device, inner) for _ in range(rounds)
    )


def _timed(call: Callable[[], object], device: torch.device, count: int) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - start) / count
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(count):
        call()
    last.record()
    wait(device)
    return first.elapsed_time(last) / 1e3 / count


def wait(device: torch.device) -> None:
    """Return when the device has nothing more to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def host_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds until a call returns to Python with its work still under way: what the host spends on launching."""
    call()
    spent = []
    for _ in range(5):
        wait(device)
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def ceilings(device: torch.device, toy: bool) -> dict[str, float]:
    """Measured FLOP/s of a large bf16 matrix product (float32 on CPUs) and bytes/s of a copy."""
    side, cells = (256, 2**20) if toy else (8192, 2**29)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.randn(cells, device=device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    return {
        "flop_per_s": 2 * side**3 / seconds(lambda: a @ b, device, 0.5),
        "bytes_per_s": 4 * cells / seconds(lambda: target.copy_(source), device, 0.5),
    }


def unavoidable_bytes(network: torch.nn.Module, *inputs: object) -> int:
    """Bytes in bf16 of the inputs, weights and outputs of all convolutions and matrix products."""
    shapes = copy.deepcopy(network).to("meta")
    with torch.no_grad(), _Traffic() as traffic:
        shapes(*tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), inputs))
    return 2 * traffic.elements


class _Traffic(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in HEAVY:
            self.elements += sum(leaf.numel() for leaf in tree_leaves((args, out)) if isinstance(leaf, torch.Tensor))
        return out


def roofline(flop: float, traffic: float, ceiling: dict[str, float]) -> float:
    """Seconds that a perfect implementation needs without overlap: FLOP/ceiling + bytes/bandwidth."""
    return flop / ceiling["flop_per_s"] + traffic / ceiling["bytes_per_s"]
