"""Speed of networks, samples and training against the device's ceilings. Rows are kept in a JSON file and not redone.

    python benchmarks/speed.py --list
    python benchmarks/speed.py                                  # all rows that are missing, on the GPU if there is one
    python benchmarks/speed.py --rows call/unet-50/256 sample/  # those whose names contain one of these
    python benchmarks/speed.py --train --rows train/
    python benchmarks/speed.py --toy --out speed.json           # seconds, on any machine

A row's name is task/network/grid/batch/mode. Modes: eager (float32), bf16 (our default: bf16, baked weights in
channels_last, CUDA graph), compiled (the same, compiled). ``--minutes`` stops in time; call again to go on.
"""

import argparse
import fnmatch
import gc
import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from speed_networks import NETWORKS, draw
from speed_timing import ceilings, host_seconds, roofline, seconds, unavoidable_bytes
from speed_training import train_bare, train_lightning

from sciffusion.diffusion import sigmas, solvers
from sciffusion.diffusion.denoiser import Preconditioned
from sciffusion.diffusion.sampling import integrate, levels
from sciffusion.execution.accelerate import Execution, accelerate
from sciffusion.execution.device import describe_device, resolve_device
from sciffusion.execution.graphs import Captured
from sciffusion.execution.memory import peak_bytes
from sciffusion.networks.cost import flops, parameters

CALLS = 18


@dataclass(frozen=True)
class Row:
    """One measurement; ``batch`` 0 stands for the largest power of two that fits."""

    task: str
    network: str
    side: int
    batch: int
    mode: str

    @property
    def name(self) -> str:
        return f"{self.task}/{self.network}/{self.side}/b{self.batch or 'max'}/{self.mode}"


def rows(toy: bool, train: bool) -> Iterator[Row]:
    """All rows, the most telling first."""
    if toy:
        yield from (Row("call", network, 16, 2, "bf16") for network in ("unet-toy", "unet-toy-classic", "dit-toy"))
        yield Row("call", "unet-toy", 16, 0, "eager")
        yield Row("sample", "unet-toy", 16, 2, "loop")
        yield from (Row("train", "unet-toy", 16, 2, mode) for mode in ("bare", "lightning") if train)
        return
    peers = ("physicsnemo-songunet", "diffusers-unet2d")
    unets, dits = ("unet-50", "unet-100", "unet-10"), ("dit-50", "dit-100", "dit-10")
    yield from (Row("call", n, 256, 16, "compiled") for n in (*unets, "dit-100", "dit-50", *peers, "unet-classic-50"))
    yield from (Row("call", n, 256, 16, "bf16") for n in ("unet-50", "dit-100", *peers))
    yield from (Row("sample", "unet-50", 256, 1, mode) for mode in ("bf16", "compiled", "loop", "loop-compiled"))
    yield from (Row("sample", n, 256, 16, "compiled") for n in ("unet-50", "unet-10", "dit-100", *peers))
    yield Row("call", "unet-50", 256, 16, "eager")
    for side in (256, 128, 512):
        for batch in (1, 16, 0):
            yield from (Row("call", n, side, batch, "compiled") for n in (*unets, *dits, *peers))
    yield from (Row("grid", "unet-50", side, 1, "bf16") for side in (128, 256, 512, 1024, 2048))
    if train:
        yield from (Row("train", n, 256, 16, mode) for n in ("unet-50", "dit-100") for mode in ("bare", "lightning"))


def measure(row: Row, device: torch.device, ceiling: dict[str, float], toy: bool) -> dict:
    """The row's numbers."""
    torch.manual_seed(0)
    grid, budget = (row.side, row.side), 0.2 if toy else 3.0
    network = NETWORKS[row.network](grid)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    flop = flops(network.eval(), *draw(1, grid, torch.device("cpu")))
    traffic = unavoidable_bytes(network, *draw(1, grid, torch.device("cpu")))
    result = {"parameters": parameters(network), "tflop_per_field": flop / 1e12}
    if row.task == "train":
        train = {"bare": train_bare, "lightning": train_lightning}[row.mode]
        return result | train(network, row.batch, grid, device, toy)
    network = _prepared(network, row.mode, device)
    make = _loop if row.task == "sample" else _call
    with torch.no_grad():
        batch = row.batch or _largest(network, row, device, 4 if toy else 512)
        call, calls = make(network, batch, grid, device, row.mode)
        start = time.perf_counter()
        call()
        result |= {"first_call_s": time.perf_counter() - start, "batch": batch}
        time_s = seconds(call, device, budget)
        result |= {"peak_mib": peak_bytes(call, device) / 2**20, "host_s": host_seconds(call, device)}
    floor = calls * roofline(batch * flop, batch * traffic, ceiling)
    return result | {
        "seconds": time_s,
        "fields_per_s": batch / time_s,
        "ceiling_share": calls * batch * flop / time_s / ceiling["flop_per_s"],
        "roofline_share": floor / time_s,
    }


def _prepared(network: torch.nn.Module, mode: str, device: torch.device) -> torch.nn.Module:
    compiled = "always" if "compiled" in mode else "never"
    precision = "float32" if mode == "eager" or device.type == "cpu" else "bfloat16"
    graphs = mode != "eager" and not mode.startswith("loop")
    prepared = accelerate(network, device, Execution(precision=precision, compile=compiled, graphs=graphs))
    if device.type == "cuda" and mode != "eager":  # weights of other packages' networks, too, in their best layout
        prepared.network.to(memory_format=torch.channels_last)
    return prepared


def _call(network, batch, grid, device, mode) -> tuple[Callable[[], object], int]:
    inputs = draw(batch, grid, device)
    return lambda: network(*inputs), 1


def _loop(network, batch, grid, device, mode) -> tuple[Callable[[], object], int]:
    """A whole sample; in the modes ``loop*`` recorded as one graph."""
    x, _, cond = draw(batch, grid, device)
    denoiser = Preconditioned(network)
    plan = solvers.plan("dpmpp-2m", sigmas.karras(CALLS, 0.002, 80.0, 7.0))
    sigma = levels(plan, x)

    def run(x, sigma, cond):
        return integrate(denoiser, x, plan, sigma, cond)

    run = Captured(run) if mode.startswith("loop") else run
    return lambda: run(x, sigma, cond), plan.calls


def _largest(network, row: Row, device: torch.device, most: int) -> int:
    """The largest power of two that runs: tried, as compiled networks use less than any estimate."""
    from sciffusion.execution.memory import microbatch

    grid = (row.side, row.side)
    plain = network.network
    return microbatch(lambda count: plain(*draw(count, grid, device)), device, most=most, share=0.6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["*"], help="parts of names, or patterns with *")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/speed.json"))
    parser.add_argument("--device", default=None)
    parser.add_argument("--minutes", type=float, default=9.0, help="start no row after this time")
    parser.add_argument("--train", action="store_true", help="include training rows")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--again", action="store_true", help="redo rows that are there")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    chosen = list(dict.fromkeys(row for row in rows(args.toy, args.train) if _matches(row.name, args.rows)))
    if args.list:
        print(*(row.name for row in chosen), sep="\n")
        return
    run(chosen, args)


def _matches(name: str, patterns: list[str]) -> bool:
    return any(pattern in name or fnmatch.fnmatch(name, pattern) for pattern in patterns)


def run(chosen: list[Row], args: argparse.Namespace) -> None:
    """Measure what is missing, saving after every row."""
    device, start = resolve_device(args.device), time.monotonic()
    machine = f"{describe_device(device)}; torch {torch.__version__}; python {platform.python_version()}"
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    table = known.setdefault(machine, {"rows": {}})
    if "ceilings" not in table:
        table["ceilings"] = ceilings(device, args.toy)
    for row in chosen:
        if not args.again and "seconds" in table["rows"].get(row.name, {}):
            continue
        if time.monotonic() - start > 60 * args.minutes:
            print("out of time: the same command goes on")
            break
        table["rows"][row.name] = _attempt(row, device, table["ceilings"], args.toy)
        _save(args.out, known)
        print(row.name, json.dumps(table["rows"][row.name]), flush=True)


def _attempt(row: Row, device: torch.device, ceiling: dict[str, float], toy: bool) -> dict:
    try:
        result = measure(row, device, ceiling, toy)
    except Exception as error:  # a row that fails is a result: out of memory, a peer that is not installed
        traceback.print_exc(limit=-3)
        result = {"error": f"{type(error).__name__}: {error}"[:300]}
    gc.collect()
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in result.items()}


def _save(path: Path, known: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(known, indent=1))
    os.replace(part, path)


if __name__ == "__main__":
    main()
