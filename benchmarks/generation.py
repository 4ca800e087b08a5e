"""End-to-end members per second beside what the network alone could do; a cold start; memory; the obvious way.

    python benchmarks/generation.py                  # on a GPU: 50 M parameters, 6 x 256 x 256, 64 members x 32 cases
    python benchmarks/generation.py --network tiny --side 32 --members 12 --cases 4 --one-case 40 --device cpu
    python benchmarks/generation.py --memory         # 1000 members of 1 and of 4 cases of 4 x 64 x 64 on the CPU

Rows, each measured in a process of its own and saved to ``--out`` as it is made; what is there already is kept:

engine : members per second of `generate`, writing included, beside those of the network's calls alone (before and
    after, in the same process) and of sampling without writing. Fewer cases are made where ``--seconds`` are too few.
one, one_compiled : members per second of ``--one-case`` members of one case, in a process that has made some before.
cold : seconds from `python -m sciffusion generate` to a verified store of one case, as many members.
host : the host's part alone: the device is pretended, and takes no time (the most that the host can do) or
    ``--pretend`` ms per member; the share is that of the time in which such a device is busy.
obvious, obvious_bfloat16 : diffusers' sampler, a loop, xarray.to_zarr; for as many members as take some seconds.
memory : peak resident MiB of whole processes.

A machine without the packages needs their wheels: zarr, numcodecs, donfig, google-crc32c, netCDF4, cftime, xarray,
dask, pydantic, safetensors, and diffusers for the obvious way (`pip download`, then `pip install --no-index`).
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from generation_rows import PARTS, run

NEEDED = ("zarr", "xarray", "netCDF4", "dask", "pydantic", "safetensors")
OBVIOUS = ("obvious", "obvious_bfloat16")
JOB = ("network", "side", "variables", "members", "cases", "steps")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="50", choices=["50", "tiny"])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--variables", type=int, default=6)
    parser.add_argument("--members", type=int, default=64)
    parser.add_argument("--cases", type=int, default=32)
    parser.add_argument("--one-case", type=int, default=1000, help="members of the rows of one case")
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--batch", type=int, help="items per network call (default: as `generate` chooses)")
    parser.add_argument("--seconds", type=float, default=75.0, help="that the engine's job may take, about")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds of each measurement of the network alone")
    parser.add_argument("--pretend", type=float, default=20.0, help="ms per member of the pretended device")
    parser.add_argument("--limit", type=float, default=235.0, help="seconds in all; what is not reached is left out")
    parser.add_argument(
        "--rows", nargs="+", choices=[*PARTS, "cold"], default=["engine", "one", "cold", "host", *OBVIOUS]
    )
    parser.add_argument("--device")
    parser.add_argument("--folder", type=Path, help="scratch folder (default: a temporary one)")
    parser.add_argument("--memory", action="store_true", help="the memory rows only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.until = time.monotonic() + args.limit
    return args


def main() -> int:
    args = arguments()
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f"not installed here: {', '.join(missing)}; carry their wheels, see {__file__}", file=sys.stderr)
        return 2
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        args.folder = args.folder or Path(scratch)
        rows = memory(args) if args.memory else everything(args)
    print(json.dumps(rows, indent=1))
    return int(any("error" in row for row in rows.values() if isinstance(row, dict)))


def everything(args: argparse.Namespace) -> dict:
    """All rows but those of memory."""
    import torch
    from generation_job import prepare

    from sciffusion.execution.device import describe_device, resolve_device

    device, job = resolve_device(args.device), {name: getattr(args, name) for name in JOB}
    machine = f"{describe_device(device)}; {os.cpu_count()} cores; torch {torch.__version__}; "
    rows = {"machine": machine + f"python {platform.python_version()}", "date": time.strftime("%Y-%m-%d"), "job": job}
    rows = made(args, rows) | rows
    start = time.perf_counter()
    prepare(args.folder, args.side, args.variables, args.cases, args.network, args.steps)
    print(f"prepared in {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    for name in args.rows:
        if name not in rows:
            row = run(args, name)
            print(f"{name}: {json.dumps(row)}", file=sys.stderr, flush=True)
            save(args, rows | {name: row})
            rows[name] = row
    return rows


def made(args: argparse.Namespace, rows: dict) -> dict:
    """The rows of this very job on this machine that ``--out`` has already, without errors."""
    known = json.loads(args.out.read_text()) if args.out and args.out.is_file() else {}
    same = all(known.get(name) == rows[name] for name in ("machine", "job"))
    return {name: row for name, row in known.items() if same and "error" not in row}


def save(args: argparse.Namespace, rows: dict) -> None:
    from sciffusion.fields.output import write_text

    if args.out:
        write_text(args.out, json.dumps(rows, indent=1) + "\n")


def memory(args: argparse.Namespace) -> dict:
    """Peak memory of processes that make 1000 members of one case and of four."""
    from generation_job import prepare

    prepare(args.folder, 64, 4, 4, "tiny", 2)
    members, args.until = 1000 if args.members == 64 else args.members, float("inf")
    rows = {n: run(args, "footprint", batch=16, members=members, cases=n) for n in (1, 4)}
    peaks = {f"{n}_cases_mib": row.get("peak_rss_mib", row) for n, row in rows.items()}
    found = {"memory": {"members": members, **peaks}}
    save(args, found)
    return found


if __name__ == "__main__":
    sys.exit(main())
