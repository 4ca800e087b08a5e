"""Member noise: normals per second on the host and on a GPU, and the share of bits that are the same.

    python benchmarks/noise.py                              # some 10 s
    python benchmarks/noise.py --threads 1 --out noise.json

For fields of 64 x 64 (batches of 64) and 256 x 256 (batches of 16), one channel each:

alone : threads draw an item at a time, as `sciffusion generate` did until small fields were drawn together.
together : as it does now where no GPU draws.
gpu : as it does where a GPU draws, with all that the host does for it; `host_ms` is what that takes per batch. `equal`
    is the share of normals whose bits are numpy's.
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciffusion.execution.cpu import physical_cores
from sciffusion.execution.device import describe_device, resolve_device
from sciffusion.execution.normals import drawn_on, draws_noise
from sciffusion.noise import CHUNK, MemberNoise, NoiseKey, member_noise
from sciffusion.stages import ahead

BATCHES = ((64, 64), (256, 16))  # cells of a side, items


@dataclass(frozen=True)
class Fields:
    """What stands for a stage: fields of one channel and their noise."""

    side: int
    device = torch.device("cpu")

    @property
    def output_shape(self) -> tuple[int, int, int]:
        return (1, self.side, self.side)

    def item_noise(self, member: int, step: int) -> MemberNoise:
        return MemberNoise(((1.0, NoiseKey(0, ("2026-11-26T00:00:00",), member, "denoiser", step, "solver")),))

    def host_noise(self, items: list[int], seed: int, step: int, stream: str) -> np.ndarray:
        return member_noise([self.item_noise(item, step) for item in items], self.output_shape)


def main() -> None:
    args = arguments()
    device = resolve_device(args.device)
    rows = {f"{side}x{side} by {items}": measured(Fields(side), items, args, device) for side, items in BATCHES}
    made = {"device": describe_device(device), "torch": torch.__version__, "threads": args.threads, "rows": rows}
    print(json.dumps(made, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(made, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--threads", type=int, default=min(8, physical_cores()), help="of the host; default: as generate has")
    add("--seconds", type=float, default=0.7, help="of every measurement")
    add("--device", help="cpu or cuda; default: a GPU where there is one")
    add("--out", type=Path)
    return parser.parse_args()


def measured(fields: Fields, items: int, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    count, row = items * fields.side**2, {}
    for name, chunk in (("alone", 1), ("together", CHUNK)):
        ahead.CHUNK = chunk
        with ThreadPoolExecutor(args.threads) as pool:
            row[f"{name}_normals_per_s"] = count / seconds(lambda step: host(fields, items, pool, step), args.seconds)
    if draws_noise(device):
        draw = partial(gpu, fields, items, device)
        row["gpu_normals_per_s"] = count / seconds(draw, args.seconds)
        row["host_ms"] = 1000 * min(seconds(draw, 0.0, wait=False) for _ in range(50))
        row["equal"] = equal(fields, items, device)
    return row


def host(fields: Fields, items: int, pool: ThreadPoolExecutor, step: int) -> torch.Tensor:
    batch: Any = ahead.Batch(range(items), ahead.Ahead(pool, 0))
    return batch.noise(fields, seed=0, step=step, stream="solver")


def gpu(fields: Fields, items: int, device: torch.device, step: int) -> torch.Tensor:
    return drawn_on(device, [fields.item_noise(item, step) for item in range(items)], fields.output_shape)


def seconds(draw: Callable[[int], torch.Tensor], budget: float, *, wait: bool = True) -> float:
    """Of a call, on average over ``budget`` seconds, one call at least; of a GPU, whether its answer is waited for."""
    finish(draw(0))
    step, began = 0, time.perf_counter()
    while step == 0 or time.perf_counter() - began < budget:
        step += 1
        drawn = draw(step)
        if wait and step % 20 == 0:
            finish(drawn)
    if wait:
        finish(drawn)
    return (time.perf_counter() - began) / step


def finish(drawn: torch.Tensor) -> None:
    if drawn.is_cuda:
        torch.cuda.synchronize(drawn.device)


def equal(fields: Fields, items: int, device: torch.device) -> float:
    """Of the first 32 steps."""
    shares = []
    for step in range(32):
        there = gpu(fields, items, device, step).cpu().numpy()
        here = fields.host_noise(list(range(items)), 0, step, "solver")
        shares.append(np.mean(there.view(np.int32) == here.view(np.int32)))
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
