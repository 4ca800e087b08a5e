"""End-to-end members per second beside what the network alone could do; a cold start; memory; the obvious way.

    python benchmarks/generation.py                  # on a GPU: 50 M parameters, 6 x 256 x 256, 64 members x 32 cases
    python benchmarks/generation.py --network tiny --side 32 --members 12 --cases 4 --one-case 40 --device cpu
    python benchmarks/generation.py --memory         # 1000 members of 1 and of 4 cases of 4 x 64 x 64 on the CPU

Rows: ``engine`` (members per second, writing included, beside those of the network's calls alone in the same process),
``cold`` (seconds from `python -m sciffusion generate` to a verified store of one case), ``obvious`` (diffusers'
sampler, a loop, xarray.to_zarr), ``memory`` (peak resident MiB of whole processes). Results go to ``--out`` as JSON.

A machine without the packages needs their wheels: zarr, numcodecs, donfig, google-crc32c, netCDF4, cftime, xarray,
dask, pydantic, safetensors, and diffusers for the obvious way (`pip download`, then `pip install --no-index`).
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = ("zarr", "xarray", "netCDF4", "dask", "pydantic", "safetensors")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="50", choices=["50", "tiny"])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--variables", type=int, default=6)
    parser.add_argument("--members", type=int, default=64)
    parser.add_argument("--cases", type=int, default=32)
    parser.add_argument("--one-case", type=int, default=1000, help="members of the cold start; 0 leaves it out")
    parser.add_argument("--obvious-cases", type=int, default=4, help="cases made the obvious way; 0 leaves it out")
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--batch", type=int, help="items per network call (default: as `generate` chooses)")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for each measurement of the network alone")
    parser.add_argument("--device")
    parser.add_argument("--folder", type=Path, help="scratch folder (default: a temporary one)")
    parser.add_argument("--memory", action="store_true", help="the memory rows only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=["engine", "obvious"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"not installed here: {', '.join(missing)}; carry their wheels, see the top of this file", file=sys.stderr
        )
        return 2
    if args.part:
        print(json.dumps({"engine": engine, "obvious": obvious}[args.part](args)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        args.folder = args.folder or Path(scratch)
        rows = memory(args) if args.memory else everything(args)
    print(json.dumps(rows, indent=1))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def everything(args: argparse.Namespace) -> dict:
    """All rows but those of memory, each in a process of its own."""
    import torch
    from generation_job import prepare

    from sciffusion.execution.device import describe_device, resolve_device

    prepare(args.folder, args.side, args.variables, args.cases, args.network, args.steps)
    device = resolve_device(args.device)
    rows = {
        "machine": f"{describe_device(device)}; torch {torch.__version__}; python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
        "job": {name: getattr(args, name) for name in ("network", "side", "variables", "members", "cases", "steps")},
        "engine": child(args, "engine"),
    }
    if args.one_case:
        rows["cold"] = cold(args)
    if args.obvious_cases:
        rows["obvious"] = child(args, "obvious") if find_spec("diffusers") else {"error": "diffusers is not installed"}
    return rows


def child(args: argparse.Namespace, part: str, **changes: object) -> dict:
    """This script's ``part`` in a new process."""
    values = {name: value for name, value in (vars(args) | {"part": part} | changes).items() if value is not None}
    values = {name: value for name, value in values.items() if name not in ("memory", "out")}
    options = [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    done = subprocess.run([sys.executable, __file__, *options], env=environment(), capture_output=True, text=True)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def engine(args: argparse.Namespace) -> dict:
    """`generate` against the network alone."""
    from generation_job import job, network_only

    from sciffusion.execution.device import resolve_device
    from sciffusion.fields.ensemble import EnsembleStore
    from sciffusion.generation import generate

    emulator, conditions, cases = job(args.folder, args.cases)
    device, store = resolve_device(args.device), args.folder / "engine.zarr"
    shutil.rmtree(store, ignore_errors=True)
    options = {"cases": cases, "device": str(device), "batch_size": args.batch, "progress": False}
    warm = generate(emulator, conditions, args.folder / "warm.zarr", 1, **{**options, "batch_size": args.batch or 4})
    shutil.rmtree(warm)
    start = time.perf_counter()
    generate(emulator, conditions, store, args.members, **options)
    seconds, peak = time.perf_counter() - start, peak_mib()
    size, check = EnsembleStore(store).execution["batch_size"], emulator.check(conditions, cases)
    alone = network_only(emulator, check, size, device, args.budget)
    rate = args.members * args.cases / seconds
    return {
        "batch": size,
        "seconds": round(seconds, 3),
        "members_per_s": round(rate, 3),
        "network_members_per_s": round(alone, 3),
        "share": round(rate / alone, 3),
        "peak_rss_mib": peak,
        "faults": len(EnsembleStore(store).verify()),
    }


def cold(args: argparse.Namespace) -> dict:
    """Seconds from starting the program to a verified store of one case."""
    import numpy as np
    from generation_job import FIRST, TRAINING

    store, day = args.folder / "cold.zarr", str(FIRST + np.timedelta64(TRAINING, "D"))[:10]
    shutil.rmtree(store, ignore_errors=True)
    command = [sys.executable, "-m", "sciffusion", "generate", str(args.folder / "emulator"), "--output", str(store)]
    command += ["--conditions", str(args.folder / "fields.nc"), "--select", f"time={day}", "--quiet"]
    command += ["--members", str(args.one_case), *(["--device", args.device] if args.device else [])]
    command += ["--batch-size", str(args.batch)] if args.batch else []
    start = time.perf_counter()
    subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL)
    made = time.perf_counter() - start
    inspect = [sys.executable, "-m", "sciffusion", "inspect", str(store), "--verify"]
    subprocess.run(inspect, env=environment(), check=True, stdout=subprocess.DEVNULL)
    verified = time.perf_counter() - start
    return {"members": args.one_case, "generate_s": round(made, 2), "verified_s": round(verified, 2)}


def obvious(args: argparse.Namespace) -> dict:
    """The same job for fewer cases, written as it usually is."""
    from generation_job import job, the_obvious_way

    from sciffusion.execution.device import resolve_device

    count = min(args.obvious_cases, args.cases)
    emulator, conditions, cases = job(args.folder, count)
    check, device = emulator.check(conditions, cases), resolve_device(args.device)
    size, store = args.batch or (16 if device.type == "cuda" else 4), args.folder / "obvious.zarr"
    the_obvious_way(
        emulator, emulator.check(conditions, {"time": check.cases[0].values["time"]}), size, size, store, device
    )
    start = time.perf_counter()
    the_obvious_way(emulator, check, args.members, size, store, device)
    seconds = time.perf_counter() - start
    rate = args.members * count / seconds
    return {"cases": count, "batch": size, "members_per_s": round(rate, 3), "peak_rss_mib": peak_mib()}


def memory(args: argparse.Namespace) -> dict:
    """Peak memory of processes that make 1000 members of one case and of four."""
    from generation_job import prepare

    prepare(args.folder, 64, 4, 4, "tiny", 2)
    job = {"network": "tiny", "side": 64, "variables": 4, "steps": 2, "device": "cpu", "batch": 16, "budget": 0.1}
    members = 1000 if args.members == 64 else args.members
    rows = {n: child(args, "engine", **job, members=members, cases=n) for n in (1, 4)}
    return {"memory": {"members": members, **{f"{n}_cases_mib": row["peak_rss_mib"] for n, row in rows.items()}}}


if __name__ == "__main__":
    sys.exit(main())
