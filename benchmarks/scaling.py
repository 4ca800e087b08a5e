"""How generation scales with processes: torchrun with 1, 2, 4, ... of them makes the same ensemble, timed.

    python benchmarks/scaling.py                                                  # the shipped emulator, on a CPU
    python benchmarks/scaling.py --device cuda --processes 1 2 --model 50 --members 96 --batch-size 32 --steps 18

Samples into a store, a fresh one for every number of processes: the shipped emulator, or 8 cases of 6 x 256 x 256 with
the 50 M parameters of `generation.py` (``--model 50``). Beside the whole command, start-up included, it gives the time
between the first and the last completed item, which is the work alone. The bytes of all stores are compared. On a CPU
every process has one thread, on GPUs each has one of them. Rows are saved to ``--out`` as they are made, beside those
of other models and devices.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
from generation_job import TRAINING, prepare

import sciffusion as sf

PACKAGE = Path(sf.__file__).parent
MODEL, DATA = PACKAGE / "pretrained" / "era5_week", PACKAGE / "datasets" / "data"
RESULTS = Path(__file__).parent / "results" / "scaling.json"
CASES = 8  # of the 50 M job
SHAPES = {"50": (256, 6), "tiny": (32, 2)}  # cells per side, variables


def digests(store: Path) -> dict[str, str]:
    """Digests of all chunks and markers."""
    files = [
        file for file in store.rglob("*") if file.is_file() and file.name != "zarr.json" and "lock" not in file.name
    ]
    return {str(file.relative_to(store)): hashlib.blake2b(file.read_bytes()).hexdigest() for file in files}


def job(folder: Path, args: argparse.Namespace) -> list[str]:
    """Words of the command that say what is made."""
    if args.model == "shipped":
        return [str(MODEL)]
    side, variables = SHAPES[args.model]
    prepare(folder, side, variables, CASES, args.model, args.steps)
    first, last = (f"2001-01-{TRAINING + day:02d}" for day in (1, CASES))
    words = [str(folder / "emulator"), "--conditions", str(folder / "fields.nc")]
    return [*words, "--select", f"time={first}/{last}"]


def generate(store: Path, processes: int, what: list[str], args: argparse.Namespace) -> float:
    """Make the ensemble; seconds of the whole command."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    words = ["sciffusion", "generate", *what, "--output", str(store), "--members", str(args.members), "--quiet"]
    words += ["--steps", str(args.steps), "--batch-size", str(args.batch_size), "--device", args.device]
    paths = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    threads = {"OMP_NUM_THREADS": "1"} if args.device == "cpu" else {}
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *launcher, *words],
        cwd=DATA,
        env=os.environ | {"PYTHONPATH": paths} | threads,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            _, errors = run.communicate(timeout=args.limit)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, 9)
            sys.exit(f"{processes} processes: not done after {args.limit:g} s")
    if run.returncode:
        sys.exit(f"{processes} processes: exit {run.returncode}\n{errors}")
    return time.perf_counter() - begun


def work_alone(store: Path, size: int) -> float:
    """Items per second between the first and the last marker, without the items of the first batches."""
    times = sorted(file.stat().st_mtime for file in store.rglob("complete/.markers/*/*.json") if file.stem.isdecimal())
    later = times[size:]
    return len(later) / (later[-1] - times[size - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--model", default="shipped", choices=["shipped", *SHAPES])
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that one command may take")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    gpu = args.device.startswith("cuda")
    device = torch.cuda.get_device_name() if gpu else f"CPU, {os.cpu_count()} cores, one thread per process"
    entry = {
        "date": str(date.today()),
        "command": " ".join(["python", "benchmarks/scaling.py", *sys.argv[1:]]),
        "torch": torch.__version__,
        "same_bytes": True,
        "rows": [],
    }
    made: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        what = job(Path(folder), args)
        for processes in args.processes:
            store = Path(folder) / f"{processes}.zarr"
            load = os.getloadavg()[0]
            seconds = generate(store, processes, what, args)
            made = made or digests(store)
            entry["same_bytes"] &= digests(store) == made
            rate = work_alone(store, processes * args.batch_size)
            shutil.rmtree(store)
            row = {"processes": processes, "seconds": seconds, "items_per_second": rate, "load_before": load}
            entry["rows"].append(row)
            known = json.loads(args.out.read_text()) if args.out.is_file() else {}
            args.out.write_text(json.dumps(known | {f"{args.model} on {device}": entry}, indent=1) + "\n")
            print(f"{processes} processes: {seconds:.1f} s in all, {rate:.2f} items per second at work", flush=True)
    print("all stores have the same bytes" if entry["same_bytes"] else "THE STORES DIFFER")
    sys.exit(not entry["same_bytes"])


if __name__ == "__main__":
    main()
