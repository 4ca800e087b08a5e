"""What the demo costs: seconds per member, network calls, GFLOP, peak memory.

    python benchmarks/demo.py [--members 8] [--times 3] [--device cpu] [--model FOLDER]

Samples the shipped emulator, or another of the same experiment, in memory, without baselines, scores and report.
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import sciffusion as sf
from sciffusion.diffusion import Preconditioned
from sciffusion.generation import held_out

MODEL = Path(sf.__file__).parent / "pretrained" / "era5_week"
EXPERIMENT = Path(sf.__file__).parent / "datasets" / "era5_week.yaml"


class Calls:
    """Counts the calls of a module and the samples in them."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.calls = self.samples = 0
        module.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.calls += 1
        self.samples += len(inputs[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--device")
    parser.add_argument("--model", type=Path, default=MODEL)
    args = parser.parse_args()
    emulator = sf.load(args.model)
    conditions, cases = held_out(EXPERIMENT)
    chosen = {"time": cases["time"][: args.times]}
    network = next(part.network for part in emulator.stage.modules() if isinstance(part, Preconditioned))
    with FlopCounterMode(display=False) as flops:
        emulator.sample(conditions, [0], cases={"time": chosen["time"][:1]}, batch_size=1, device=args.device)
    counted = Calls(network)
    started = time.perf_counter()
    emulator.sample(conditions, args.members, cases=chosen, device=args.device)
    seconds = time.perf_counter() - started
    members = args.members * len(chosen["time"])
    single = counted.samples / members
    threads = f"{torch.get_num_threads()} threads"
    print(f"{members} members in {seconds:.1f} s: {seconds / members:.2f} s per member on {threads}")
    print(f"{counted.calls} network calls on batches; {single:.0f} per member, the last batch's padding included")
    print(f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters")
    print(f"{flops.get_total_flops() / 1e9:.0f} GFLOP for one member")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
