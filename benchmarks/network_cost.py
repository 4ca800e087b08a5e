"""What one call of a network costs: FLOP, parameters, receptive field, seconds and peak activations.

python benchmarks/network_cost.py                                   # the demo's candidates on 181 x 360
python benchmarks/network_cost.py --grid 64 64 --set channels=32 --set multipliers=[1,2]
"""

import argparse
import json
import time
from collections.abc import Sequence

import torch
import yaml

from sciffusion.context import Context
from sciffusion.networks.cost import flops, parameters, reach
from sciffusion.networks.unet import UNet
from sciffusion.stage_settings import UNetSettings

CANDIDATES = {
    "full-resolution": {"channels": 32, "multipliers": [1, 2, 4, 8], "blocks": 1},
    "patched": {"channels": 64, "multipliers": [1, 2, 4], "blocks": 1, "patch": 2},
    "patched-narrow": {"channels": 48, "multipliers": [1, 2, 4], "blocks": 2, "patch": 2},
    "patched-largest": {"channels": 52, "multipliers": [1, 2, 4], "blocks": 2, "patch": 2},
}


def measure(settings: UNetSettings, grid: Sequence[int], channels: int, context: int, repeats: int, bf16: bool) -> dict:
    boundary = ("pole", "periodic") if len(grid) == 2 else ("periodic",) * len(grid)
    torch.manual_seed(0)
    network = UNet(
        channels,
        channels,
        rank=len(grid),
        boundary=boundary,
        context_channels=context,
        vector_features=4,
        settings=settings,
    )
    inputs = torch.randn(1, channels, *grid), torch.zeros(1)
    cond = Context(channels=torch.randn(1, context, *grid), vector=torch.zeros(1, 4))
    row = {
        "gflop": flops(network, *inputs, cond) / 1e9,
        "parameters": parameters(network),
        "reach_cells": reach(network, axis=-1, grid=grid),
    }
    for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        if dtype is None or bf16:
            for layout in (torch.contiguous_format, torch.channels_last)[: 2 if len(grid) == 2 else 1]:
                label = "channels_last" if layout == torch.channels_last else "contiguous"
                row[f"{name}_{label}"] = time_call(network, inputs, cond, dtype, layout, repeats)
    return row


def time_call(network, inputs, cond, dtype, layout, repeats) -> dict:
    """Seconds of wall time and of CPU time (all threads) per call; the latter does not depend on who else computes."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is not None):
        network.bake(dtype)
        x = inputs[0].to(memory_format=layout)
        network(x, inputs[1], cond)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            network(x, inputs[1], cond)
        return {
            "wall_s": round((time.perf_counter() - wall) / repeats, 3),
            "cpu_s": round((time.process_time() - cpu) / repeats, 3),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, nargs="+", default=[181, 360])
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--context", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="time bfloat16 too (slow on CPUs without bf16 units)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    own = {key: yaml.safe_load(value) for key, value in (entry.split("=", 1) for entry in args.set)}
    candidates = {"own": own} if own else CANDIDATES
    for name, settings in candidates.items():
        row = measure(UNetSettings(**settings), args.grid, args.channels, args.context, args.repeats, args.bf16)
        print(json.dumps({"name": name, **settings, **row}), flush=True)


if __name__ == "__main__":
    main()
