"""Speed of networks, samples and training against the device's ceilings. Rows are kept in a JSON file and not redone.

    python benchmarks/speed.py --list
    python benchmarks/speed.py --jobs 6                         # all rows that are missing, on the GPU if there is one
    python benchmarks/speed.py --rows call/unet-50/256 sample/  # those whose names contain one of these
    python benchmarks/speed.py --train --rows train/
    python benchmarks/speed.py --toy --out speed.json           # seconds, on any machine
    python benchmarks/speed.py --table                          # Markdown of what there is

A row's name is task/network/grid/batch/mode. Modes: eager (float32), bf16 (our default: bf16, baked weights in
channels_last, CUDA graph), compiled (the same, compiled), compiled-search (cuDNN tries its algorithms), loop and
loop-compiled (a whole sample as one graph), tiled (by tiles of 512). Nothing runs beyond ``--minutes``; call again to
go on. ``--jobs N`` first compiles rows in N processes at once, for at most half of the time, so that measuring finds
their code in the cache on disk.

A row has its share of the measured ceiling (FLOP of convolutions and products only), its share of the roofline floor
(FLOP/ceiling + unavoidable bytes/bandwidth), the share of the time that the host is busy, and for samples the share
that is not spent in network calls.
"""

import argparse
import fnmatch
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from speed_rows import Row, compile_ahead, compile_threads, measure, rows
from speed_timing import ceilings
from speed_workers import perform

from sciffusion.caches import cache_folder
from sciffusion.execution.device import describe_device, resolve_device


@dataclass(frozen=True)
class Task:
    """What a process is asked for: the ceilings (no row), a row, or only its compilation."""

    row: Row | None
    device: torch.device
    toy: bool
    ceiling: dict[str, float] | None = None
    ahead: bool = False


def work(task: Task) -> dict:
    """Perform a task."""
    if task.device.type == "cuda":
        torch.cuda.set_device(task.device)
    if task.row is None:
        return ceilings(task.device, task.toy)
    if task.ahead:
        return compile_ahead(task.row, task.device)
    return measure(task.row, task.device, task.ceiling, task.toy)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", nargs="+", default=["*"], help="parts of names, or patterns with *")
    add("--out", type=Path, default=Path("benchmarks/results/speed.json"))
    add("--device", default=None)
    add("--minutes", type=float, default=9.0, help="nothing runs beyond this time")
    add("--limit", type=float, default=120.0, help="seconds for one row; one that takes longer is an error")
    add("--jobs", type=int, default=0, help="processes that compile ahead; 0: none")
    add("--train", action="store_true", help="include training rows")
    add("--toy", action="store_true")
    add("--again", action="store_true", help="redo rows that are there, and those that failed")
    add("--list", action="store_true")
    add("--table", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    chosen = list(dict.fromkeys(row for row in rows(args.toy, args.train) if _matches(row.name, args.rows)))
    if args.list:
        print(*(row.name for row in chosen), sep="\n")
    elif args.table:
        print(table(json.loads(args.out.read_text())))
    else:
        run(chosen, args)


def _matches(name: str, patterns: list[str]) -> bool:
    return any(pattern in name or fnmatch.fnmatch(name, pattern) for pattern in patterns)


def run(chosen: list[Row], args: argparse.Namespace) -> None:
    """Measure what is missing, saving after every row."""
    device, start = resolve_device(args.device), time.monotonic()
    end = start + 60 * args.minutes
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder("inductor")))
    machine = f"{describe_device(device)}; torch {torch.__version__}; python {platform.python_version()}"
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    entry = known.setdefault(machine, {"rows": {}})
    if "ceilings" not in entry:
        ((_, entry["ceilings"]),) = perform(work, [Task(None, device, args.toy)], workers=1, limit=120, until=end)
        if "error" in entry["ceilings"]:
            sys.exit(f"the ceilings could not be measured: {entry['ceilings']['error']}")
    missing = [row for row in chosen if args.again or row.name not in entry["rows"]]
    if args.jobs:
        _compile(missing, device, args, start + 30 * args.minutes)
    compile_threads(1)
    tasks = [Task(row, device, args.toy, entry["ceilings"]) for row in missing]
    for task, result in perform(work, tasks, workers=1, limit=args.limit, until=end):
        entry["rows"][task.row.name] = result
        _save(args.out, known)
        print(task.row.name, json.dumps(result), flush=True)
    if left := [row for row in missing if row.name not in entry["rows"]]:
        print(f"out of time, {len(left)} rows left: the same command goes on")


def _compile(missing: list[Row], device: torch.device, args: argparse.Namespace, until: float) -> None:
    """Compile what the rows need, each code once, in several processes."""
    compile_threads(args.jobs)
    needed = {row.compiled: row for row in reversed(missing) if row.compiled}
    tasks = [Task(row, device, args.toy, ahead=True) for row in reversed(needed.values())]
    for task, result in perform(work, tasks, workers=args.jobs, limit=args.limit * 2, until=until):
        print("compiled ahead:", task.row.name, json.dumps(result), flush=True)


def table(known: dict) -> str:
    """Markdown, one table per machine."""
    lines = []
    for machine, entry in known.items():
        ceiling = entry["ceilings"]
        lines += [
            f"\n{machine}: {ceiling['flop_per_s'] / 1e12:.0f} TFLOP/s, {ceiling['bytes_per_s'] / 1e12:.2f} TB/s\n"
        ]
        lines += ["| row | parameters | TFLOP/field | ms | fields/s | of ceiling | of roofline |", f"|{'---|' * 7}"]
        lines += [_line(name, row) for name, row in entry["rows"].items()]
    return "\n".join(lines)


def _line(name: str, row: dict) -> str:
    if "error" in row:
        return f"| {name} | {row['error'][:60]} |"
    shares = f"{100 * row['ceiling_share']:.1f} % | {100 * row['roofline_share']:.1f} %"
    size = f"{row['parameters'] / 1e6:.1f} M | {row['tflop_per_field']:.3f}"
    return f"| {name} | {size} | {1e3 * row['seconds']:.2f} | {row['fields_per_s']:.1f} | {shares} |"


def _save(path: Path, known: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(known, indent=1))
    os.replace(part, path)


if __name__ == "__main__":
    main()
