"""The rows of the speed table: which there are, and how one is measured. See speed.py."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle

import torch
from speed_networks import build, draw
from speed_timing import host_seconds, roofline, seconds, unavoidable_bytes
from speed_training import train_bare, train_lightning, train_package
from torch._dynamo.utils import counters

from sciffusion.diffusion import sigmas, solvers
from sciffusion.diffusion.denoiser import Preconditioned
from sciffusion.diffusion.sampling import integrate, levels
from sciffusion.diffusion.tiling import Tiled
from sciffusion.execution.accelerate import Execution, accelerate
from sciffusion.execution.graphs import Captured
from sciffusion.execution.memory import microbatch, peak_bytes
from sciffusion.execution.precision import autocast, resolve_precision
from sciffusion.networks.cost import flops, parameters

CALLS = 18
TILE, OVERLAP = 512, 64
LARGEST_CELLS = 64 * 256**2  # of the rows with the largest batch: rates no longer depend on it


@dataclass(frozen=True)
class Row:
    """One measurement; ``batch`` 0 stands for the largest power of two that fits, or that covers LARGEST_CELLS."""

    task: str
    network: str
    side: int
    batch: int
    mode: str

    @property
    def name(self) -> str:
        return f"{self.task}/{self.network}/{self.side}/b{self.batch or 'max'}/{self.mode}"

    @property
    def compiled(self) -> tuple | None:
        """What rows of the same compiled code have in common."""
        if self.task == "train":
            return ("train", self.network, self.side, self.batch) if self.mode == "bare" else None
        return (self.network, self.side, self.batch) if "compiled" in self.mode and self.batch else None


def rows(toy: bool, train: bool) -> Iterator[Row]:
    """All rows, the most telling first."""
    if toy:
        yield from (Row("call", network, 16, 2, "bf16") for network in ("unet-toy", "unet-toy-classic", "dit-toy"))
        yield Row("call", "unet-toy", 16, 0, "eager")
        yield Row("sample", "unet-toy", 16, 2, "loop")
        yield from (Row("grid", "unet-toy", 32, 1, mode) for mode in ("bf16", "tiled"))
        yield from (Row("train", "unet-toy", 16, 2, mode) for mode in ("bare", "lightning") if train)
        yield from (Row("train", "unet-toy", 64, 2, "sciffusion") for _ in range(train))
        return
    peers = ("physicsnemo-songunet", "diffusers-unet2d")
    unets, dits = ("unet-50", "unet-100", "unet-10"), ("dit-100", "dit-50", "dit-10")
    yield from (Row("call", n, 256, 16, "compiled") for n in ("unet-50", peers[0], "dit-100", peers[1], "unet-100"))
    yield from (Row("sample", "unet-50", 256, 1, mode) for mode in ("loop-compiled", "compiled", "loop", "bf16"))
    yield from (Row("sample", n, 256, 16, "compiled") for n in ("unet-50", peers[0], "unet-10", "dit-50", peers[1]))
    yield from (
        Row("call", n, 256, 16, "compiled") for n in ("dit-wide", "unet-10", "dit-50", "unet-classic-50", "dit-10")
    )
    yield from (Row("call", n, 256, 16, "compiled-search") for n in ("unet-50", *peers))
    yield from (Row("call", n, 256, 16, "bf16") for n in ("unet-50", "dit-100", *peers))
    yield Row("call", "unet-50", 256, 16, "eager")
    if train:
        modes = ("sciffusion", "bare", "lightning", "bare-graphs")
        yield from (Row("train", "unet-recipe", 64, 16, mode) for mode in modes)
        yield from (Row("train", n, 256, 16, mode) for n in ("unet-50", "dit-100") for mode in ("bare", "lightning"))
        yield from (Row("train", "unet-recipe", 64, 128, mode) for mode in modes[:3])
    yield from (Row("grid", "unet-50", side, 1, "bf16") for side in (512, 1024, 2048))
    yield from (Row("grid", "unet-50", side, 1, "tiled") for side in (1024, 2048))
    for batch, side in ((1, 256), (0, 256), (16, 128), (16, 512), (1, 128), (1, 512), (0, 128), (0, 512)):
        yield from (Row("call", n, side, batch, "compiled") for n in (*unets, *dits, *peers))


def prepare(row: Row, device: torch.device, graphs: bool) -> torch.nn.Module:
    """The row's network on the device in its mode."""
    torch.backends.cudnn.benchmark = "search" in row.mode
    torch.manual_seed(0)
    network = build(row.network, row.side)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    precision = "float32" if row.mode == "eager" or device.type == "cpu" else "bfloat16"
    prepared = accelerate(
        network, device, Execution(precision=precision, compile="compiled" in row.mode, graphs=graphs)
    )
    if device.type == "cuda" and row.mode != "eager":  # weights of other packages' networks, too, in their best layout
        network.to(memory_format=torch.channels_last)
    return prepared


def compile_ahead(row: Row, device: torch.device) -> dict:
    """Leave the row's compiled code in the cache on disk."""
    start = time.perf_counter()
    if row.task == "train":
        train_bare(build(row.network, row.side), row.batch, (row.side, row.side), device, steps=(2, 1))
    else:
        with torch.no_grad():
            prepare(row, device, graphs=False)(*draw(row.batch, (row.side, row.side), device))
    _clean(device)
    return {"compile_s": time.perf_counter() - start}


def measure(row: Row, device: torch.device, ceiling: dict[str, float], toy: bool) -> dict:
    """The row's numbers; what the package says of fallbacks is among them."""
    said = _Said()
    logging.getLogger("sciffusion").addHandler(said)
    counters.clear()
    flop, traffic, count = cost(row.network, row.side)
    result = {"parameters": count, "tflop_per_field": flop / 1e12}
    if row.task == "train":
        result |= _trained(row, device, (2, 2) if toy else (10, 40 if row.side > 64 else 200))
        floor = 3 * roofline(row.batch * flop, row.batch * traffic, ceiling)  # backward costs twice as much as forward
        shares = {"ceiling_share": 3 * row.batch * flop / result["seconds"] / ceiling["flop_per_s"]}
    else:
        with torch.no_grad():
            result |= _timed(row, device, 0.1 if toy else 1.5)
        calls = CALLS if row.task == "sample" else 1
        floor = calls * roofline(result["batch"] * flop, result["batch"] * traffic, ceiling)
        shares = {"ceiling_share": calls * result["batch"] * flop / result["seconds"] / ceiling["flop_per_s"]}
    shares["roofline_share"] = floor / result["seconds"]
    logging.getLogger("sciffusion").removeHandler(said)
    _clean(device)
    return _rounded(result | shares | _compilation() | ({"said": said.lines} if said.lines else {}))


def _trained(row: Row, device: torch.device, steps: tuple[int, int]) -> dict:
    if row.mode == "sciffusion":
        return train_package(row.network, row.batch, row.side, device, steps)
    network, grid = build(row.network, row.side), (row.side, row.side)
    if row.mode == "lightning":
        return train_lightning(network, row.batch, grid, device, steps)
    mode = "reduce-overhead" if row.mode == "bare-graphs" else None  # with CUDA graphs
    return train_bare(network, row.batch, grid, device, steps, mode)


def _timed(row: Row, device: torch.device, budget: float) -> dict:
    grid, graphs = (row.side, row.side), row.mode != "eager" and not row.mode.startswith("loop")
    network = prepare(row, device, graphs)
    batch = row.batch or _largest(network, row, device)
    make = {"sample": _sample, "call": _call, "grid": _tiled if row.mode == "tiled" else _call}[row.task]
    call = make(network, batch, grid, device, row.mode)
    start, before = time.perf_counter(), _allocated(device)
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    first = time.perf_counter() - start
    time_s = seconds(call, device, budget)
    result = {"seconds": time_s, "batch": batch, "fields_per_s": batch / time_s, "first_call_s": first}
    # Replays of graphs allocate nothing: what the warm-up and the recording held is their memory.
    peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else peak_bytes(call, device)
    result |= {"peak_mib": peak / 2**20, "host_share": host_seconds(call, device) / time_s}
    if row.task == "sample":
        one = seconds(_call(Captured(network) if not graphs else network, batch, grid, device, ""), device, budget / 2)
        result["loop_share"] = 1 - CALLS * one / time_s  # of the time, not spent in network calls
    return result


def _call(network, batch, grid, device, mode) -> Callable[[], object]:
    """Calls with one condition and x from a few tensors in turn, as in sampling."""
    _, noise, cond = draw(batch, grid, device)
    fields = cycle([draw(batch, grid, device)[0] for _ in range(3)])
    return lambda: network(next(fields), noise, cond)


def _sample(network, batch, grid, device, mode) -> Callable[[], object]:
    """A whole sample; in the modes ``loop*`` recorded as one graph."""
    x, _, cond = draw(batch, grid, device)
    denoiser = Preconditioned(network)
    plan = solvers.plan("dpmpp-2m", sigmas.karras(CALLS, 0.002, 80.0, 7.0))
    sigma = levels(plan, x)

    def run(x, sigma, cond):
        return integrate(denoiser, x, plan, sigma, cond)

    run = Captured(run) if mode.startswith("loop") else run
    return lambda: run(x, sigma, cond)


def _tiled(network, batch, grid, device, mode) -> Callable[[], object]:
    """One call on the whole domain, by tiles."""
    tile = [min(TILE, cells // 2) for cells in grid]
    denoiser = Tiled(Preconditioned(network), tile, OVERLAP if tile[0] == TILE else 4, ("periodic",) * len(grid))
    x, noise, cond = draw(batch, grid, device)
    return lambda: denoiser(x, noise + 1.0, cond)


def _largest(network, row: Row, device: torch.device) -> int:
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
    network, inputs = build(name, side).eval(), draw(1, (side, side), torch.device("cpu"))
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


def _allocated(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _clean(device: torch.device) -> None:
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _rounded(result: dict) -> dict:
    return {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in result.items()}


def compile_threads(processes: int) -> None:
    """Share the cores among ``processes`` that compile at once; for processes that are started later."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // processes))
