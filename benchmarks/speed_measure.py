"""How a row of the speed table is measured. See speed.py.

What has to be in a process's memory before it counts is collected first: garbage of the row before, freed during the
call, would hide as much of the call's own memory.
"""

import gc
import logging
import os
import time
from collections.abc import Callable
from functools import lru_cache
from itertools import cycle

import torch
from speed_networks import build, draw
from speed_rows import Row
from speed_timing import ceilings, host_seconds, ratio, roofline, seconds, unavoidable_bytes, wait
from speed_training import train_bare, train_lightning, train_package
from speed_workers import alone
from torch._dynamo.utils import counters

from sciffusion.diffusion import sigmas, solvers
from sciffusion.diffusion.denoiser import Preconditioned
from sciffusion.diffusion.sampling import integrate, levels
from sciffusion.diffusion.tiling import Tiled
from sciffusion.execution.accelerate import Accelerated, Execution, accelerate
from sciffusion.execution.graphs import Captured
from sciffusion.execution.memory import microbatch, peak_bytes
from sciffusion.execution.precision import autocast, resolve_precision
from sciffusion.networks.cost import flops, parameters

CALLS = 18
TILE, OVERLAP = 512, 64
LARGEST_CELLS = 64 * 256**2  # of the rows with the largest batch: rates no longer depend on it
SLOW = 0.5  # seconds of a call beside which the host's part of it is nothing


def prepare(row: Row, device: torch.device, *, whole: bool = False) -> Accelerated:
    """The row's network on the device in its mode, not recorded; ``whole``: the denoiser that it makes, as users do."""
    torch.backends.cudnn.benchmark = "search" in row.mode
    torch.manual_seed(0)
    network = build(row.network, row.side)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    half = "float32" if row.mode == "eager" or device.type == "cpu" else "bfloat16"
    execution = Execution(precision="fp8" if row.in_fp8 else half, compile="compiled" in row.mode, graphs=False)
    prepared = accelerate(network, device, execution, function=Preconditioned(network) if whole else None)
    if device.type == "cuda" and row.mode != "eager":  # weights of other packages' networks, too, in their best layout
        network.to(memory_format=torch.channels_last)
    return prepared


def compile_ahead(row: Row, device: torch.device) -> dict:
    """Leave the row's compiled code in the cache on disk."""
    start = time.perf_counter()
    if row.task == "train":
        _trained(row, device, (2, 1))
    else:
        with torch.no_grad():
            network, grid = prepare(row, device, whole=row.task == "sample"), (row.side, row.side)
            batch = row.batch or _largest(network, row, device)
            _maker(row)(network, batch, grid, device)()
            if row.task == "sample":  # what its time is compared with
                _call(prepare(row, device), batch, grid, device)()
    _clean(device)
    return {"compile_s": time.perf_counter() - start}


@lru_cache
def _ceilings(device: torch.device, toy: bool) -> dict[str, float]:
    with alone():
        return ceilings(device, toy)


def measure(row: Row, device: torch.device, toy: bool) -> dict:
    """The row's numbers; what the package says of fallbacks is among them."""
    ceiling, said, start = _ceilings(device, toy), _Said(), time.perf_counter()
    logging.getLogger("sciffusion").addHandler(said)
    counters.clear()
    flop, traffic, count = cost(row.network, row.side)
    result = {"parameters": count, "tflop_per_field": flop / 1e12}
    try:
        if row.task == "train":
            result |= _trained(row, device, (2, 2) if toy else (10, 40 if row.side > 64 else 200))
            calls = 3  # backward costs twice as much as forward
        else:
            with torch.no_grad():
                result |= _timed(row, device, 0.1 if toy else 0.8)
            calls = CALLS if row.task == "sample" else 1
    finally:
        logging.getLogger("sciffusion").removeHandler(said)
        _clean(device)
    fields = calls * result["batch"]
    result["ceiling_share"] = fields * flop / result["seconds"] / ceiling["flop_per_s"]
    result["roofline_share"] = roofline(fields * flop, fields * traffic, ceiling) / result["seconds"]
    result |= {"ceiling_tflop_per_s": ceiling["flop_per_s"] / 1e12, "copy_tb_per_s": ceiling["bytes_per_s"] / 1e12}
    result["row_s"] = time.perf_counter() - start
    return _rounded(result | _compilation() | ({"said": said.lines} if said.lines else {}))


def _trained(row: Row, device: torch.device, steps: tuple[int, int]) -> dict:
    if row.mode == "sciffusion":
        return train_package(row.network, row.batch, row.side, device, steps)
    network, grid = build(row.network, row.side), (row.side, row.side)
    if row.mode == "lightning":
        return train_lightning(network, row.batch, grid, device, steps)
    mode = "reduce-overhead" if row.mode == "bare-graphs" else None  # with CUDA graphs
    return train_bare(network, row.batch, grid, device, steps, mode)


def _timed(row: Row, device: torch.device, budget: float) -> dict:
    """Seconds and memory of what the row says.

    ``peak_mib`` is what the tensors of a call take that is not recorded, beyond weights and inputs; ``graph_mib`` what
    the recorded graph keeps reserved for its own.
    """
    network = prepare(row, device, whole=row.task == "sample")
    batch, grid = row.batch or _largest(network, row, device), (row.side, row.side)
    call, start = _maker(row)(network, batch, grid, device), time.perf_counter()
    call()
    wait(device)
    result = {"batch": batch, "first_call_s": time.perf_counter() - start}
    result["peak_mib"] = peak_bytes(call, device) / 2**20
    if row.mode != "eager":
        call = _maker(row)(network, batch, grid, device, recorded=True, whole="loop" in row.mode)
        before = _reserved(device)
        call()
        result["graph_mib"] = (_reserved(device) - before) / 2**20
    with alone():
        time_s = seconds(call, device, budget)
        result |= {"seconds": time_s, "fields_per_s": batch / time_s}
        if time_s < SLOW:
            result["host_share"] = host_seconds(call, device) / time_s
    if row.task == "sample":
        one = _call(prepare(row, device), batch, grid, device, recorded=True)
        one()
        with alone():  # of the time, what is not spent in network calls
            result["loop_share"] = 1 - ratio(one, call, CALLS, device)
    return result


def _maker(row: Row) -> Callable[..., Callable[[], object]]:
    return {"sample": _sample, "call": _call, "grid": _tiled if row.mode == "tiled" else _call}[row.task]


def _call(network, batch, grid, device, *, recorded=False, whole=False) -> Callable[[], object]:
    """Calls with one condition and x from a few tensors in turn, as in sampling."""
    function, (_, noise, cond) = Captured(network) if recorded else network, draw(batch, grid, device)
    several = 3 if batch * grid[0] * grid[1] <= LARGEST_CELLS else 1
    fields = cycle([draw(batch, grid, device)[0] for _ in range(several)])
    return lambda: function(next(fields), noise, cond)


def _sample(denoiser, batch, grid, device, *, recorded=False, whole=False) -> Callable[[], object]:
    """A whole sample, its calls recorded or, if ``whole``, all of it as one graph."""
    x, _, cond = draw(batch, grid, device)
    plan = solvers.plan("dpmpp-2m", sigmas.karras(CALLS, 0.002, 80.0, 7.0))
    sigma, denoise = levels(plan, x), Captured(denoiser) if recorded and not whole else denoiser

    def run(x, sigma, cond):
        return integrate(denoise, x, plan, sigma, cond)

    function = Captured(run) if recorded and whole else run
    return lambda: function(x, sigma, cond)


def _tiled(network, batch, grid, device, *, recorded=False, whole=False) -> Callable[[], object]:
    """One call on the whole domain, by tiles."""
    tile = [min(TILE, cells // 2) for cells in grid]
    denoiser = Preconditioned(Captured(network) if recorded else network)
    tiled = Tiled(denoiser, tile, OVERLAP if tile[0] == TILE else 4, ("periodic",) * len(grid))
    x, noise, cond = draw(batch, grid, device)
    return lambda: tiled(x, noise + 1.0, cond)


def _largest(network: Accelerated, row: Row, device: torch.device) -> int:
    """The largest batch, from the memory of two eager calls: compiled networks use less."""
    grid, dtype = (row.side, row.side), resolve_precision(network.execution.precision, device)

    def call(count: int) -> object:
        with autocast(dtype, device):
            return network.function(*draw(count, grid, device))

    most = max(1, LARGEST_CELLS // row.side**2) if device.type == "cuda" else 4
    return microbatch(call, device, most=most, share=0.4)


@lru_cache
def cost(name: str, side: int) -> tuple[float, float, int]:
    """FLOP, unavoidable bytes, and parameters of a call."""
    network, inputs = build(name, side).eval(), draw(1, (side, side), torch.device("meta"))
    return flops(network, *inputs), unavoidable_bytes(network, *inputs), parameters(network)


def _compilation() -> dict:
    """How much was compiled, and what of it came from the cache; nothing where nothing was."""
    graphs = counters["stats"]["unique_graphs"]
    hits = counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"]
    breaks = sum(counters["graph_break"].values())
    return {"compiled_graphs": graphs, "graph_breaks": breaks, "from_cache": hits} if graphs else {}


class _Said(logging.Handler):
    """Collects warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage()[:200])


def _reserved(device: torch.device) -> int:
    """Bytes that are kept from others on the device once its work is done and what nobody uses has been given back."""
    gc.collect()
    if device.type != "cuda":
        return 0
    wait(device)
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device)


def _clean(device: torch.device) -> None:
    torch._dynamo.reset()
    _reserved(device)


def _rounded(result: dict) -> dict:
    return {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in result.items()}


def compile_threads(processes: int) -> None:
    """Share the cores among ``processes`` that compile at once; for processes that are started later."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // processes))
