"""How generation scales with processes: torchrun with 1, 2, 4, ... of them makes the same ensemble, timed.

    python benchmarks/scaling.py [--processes 1 2 4] [--members 16] [--steps 4] [--device cpu]

Samples the shipped emulator into a store, a fresh one for every number of processes. Beside the whole command, start-up
included, it gives the time between the first and the last completed item, which is the work alone. The bytes of all
stores are compared. On a CPU every process has one thread. Writes benchmarks/results/scaling.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

import sciffusion as sf

PACKAGE = Path(sf.__file__).parent
MODEL, DATA = PACKAGE / "pretrained" / "era5_week", PACKAGE / "datasets" / "data"
RESULTS = Path(__file__).parent / "results" / "scaling.json"


def contents(store: Path) -> dict[str, bytes]:
    """Bytes of all chunks and markers."""
    files = [
        file for file in store.rglob("*") if file.is_file() and file.name != "zarr.json" and "lock" not in file.name
    ]
    return {str(file.relative_to(store)): file.read_bytes() for file in files}


def generate(store: Path, processes: int, args: argparse.Namespace) -> float:
    """Make the ensemble; seconds of the whole command."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    words = ["sciffusion", "generate", str(MODEL), "--output", str(store), "--members", str(args.members), "--quiet"]
    words += ["--steps", str(args.steps), "--batch-size", str(args.batch_size), "--device", args.device]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE.parent)}
    begun = time.perf_counter()
    command = [sys.executable, *launcher, *words]
    subprocess.run(command, cwd=DATA, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def work_alone(store: Path, size: int) -> float:
    """Items per second between the first and the last marker, without the items of the first batches."""
    times = sorted(file.stat().st_mtime for file in store.rglob("complete/.markers/*/*.json") if file.stem.isdecimal())
    later = times[size:]
    return len(later) / (later[-1] - times[size - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    rows, stores = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for processes in args.processes:
            store = Path(folder) / f"{processes}.zarr"
            load = os.getloadavg()[0]
            seconds = generate(store, processes, args)
            stores[processes] = contents(store)
            rate = work_alone(store, processes * args.batch_size)
            rows.append({"processes": processes, "seconds": seconds, "items_per_second": rate, "load_before": load})
            print(f"{processes} processes: {seconds:.1f} s in all, {rate:.2f} items per second at work", flush=True)
    same = all(bytes_ == stores[args.processes[0]] for bytes_ in stores.values())
    print("all stores have the same bytes" if same else "THE STORES DIFFER")
    gpu = args.device.startswith("cuda")
    entry = {
        "date": str(date.today()),
        "command": " ".join(["python", "benchmarks/scaling.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {os.cpu_count()} cores, one thread per process",
        "torch": torch.__version__,
        "same_bytes": same,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(entry, indent=1) + "\n")
    sys.exit(not same)


if __name__ == "__main__":
    main()
