"""Speed of networks, samples and training against the device's ceilings. Rows are kept in a JSON file and not redone.

    python benchmarks/speed.py --list                           # with the seconds that each is expected to take
    python benchmarks/speed.py --jobs 6                         # all rows that are missing, on the GPU if there is one
    python benchmarks/speed.py --rows call/unet-50/256 sample/  # those whose names contain one of these
    python benchmarks/speed.py --train --again sample/unet-50   # those with training; what contains this once more
    python benchmarks/speed.py --toy --out speed.json           # seconds, on any machine
    python benchmarks/speed.py --table                          # Markdown of what there is

Two processes on two GPUs share the rows, and the third command puts together what they have found:

    CUDA_VISIBLE_DEVICES=0 python benchmarks/speed.py --train --jobs 6 --part 0/2 &
    CUDA_VISIBLE_DEVICES=1 python benchmarks/speed.py --train --jobs 6 --part 1/2; wait
    python benchmarks/speed.py --merge

A row's name is task/network/grid/batch/mode. Modes: eager (float32), bf16 (our default: bf16, baked weights in
channels_last, CUDA graph), compiled (the same, compiled), compiled-search (cuDNN tries its algorithms), loop and
loop-compiled (a whole sample as one graph), fp8 and compiled-fp8 (a transformer's perceptrons in 8 bits), tiled (by
tiles of 512). Rows are measured in the order of their worth; those that need all of the memory go first. One that does
not fit into what is left of ``--minutes`` is left out, and what was left out is printed: call again to go on.
``--jobs N`` compiles rows in N processes beside, so that measuring finds their code in the cache on disk; they are
stopped while a clock runs.

A row has its share of the ceiling measured in the same run (FLOP of convolutions and products only), its share of the
roofline floor (FLOP/ceiling + unavoidable bytes/bandwidth), the share of the time that the host is busy, for samples
the share that is not spent in network calls, the memory of a call beyond weights and inputs (peak_mib), and what its
CUDA graph keeps reserved (graph_mib).
"""

import argparse
import fnmatch
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from speed_measure import compile_ahead, compile_threads, measure
from speed_plan import compile_seconds, expected, merge, part_file, read, save, share
from speed_rows import Row, rows
from speed_workers import perform

from sciffusion.caches import cache_folder
from sciffusion.execution.device import describe_device, resolve_device


@dataclass(frozen=True)
class Task:
    """What a process is asked for: a row, or only its compilation."""

    row: Row
    device: torch.device
    toy: bool
    ahead: bool = False


def work(task: Task) -> dict:
    """Perform a task."""
    if task.device.type == "cuda":
        torch.cuda.set_device(task.device)
    return compile_ahead(task.row, task.device) if task.ahead else measure(task.row, task.device, task.toy)


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
    add("--again", nargs="*", metavar="PART", help="redo rows that are there: all, or those named so")
    add("--part", type=_part, default=(0, 1), metavar="I/N", help="the I-th of N shares of the rows, counted from 0")
    add("--merge", action="store_true", help="put together what parts have measured")
    add("--list", action="store_true")
    add("--table", action="store_true")
    return parser.parse_args()


def _part(text: str) -> tuple[int, int]:
    part, parts = map(int, text.split("/"))
    if not 0 <= part < parts:
        raise argparse.ArgumentTypeError(f"no part {text}: parts are counted from 0")
    return part, parts


def main() -> None:
    args = arguments()
    chosen = list(dict.fromkeys(row for row in rows(args.toy, args.train) if _matches(row.name, args.rows)))
    if args.list:
        known = {name: row for entry in read(args.out).values() for name, row in entry["rows"].items()}
        print(*(f"{row.name} {expected(row, known):.0f} s" for row in chosen), sep="\n")
    elif args.table:
        print(table(read(args.out)))
    elif args.merge:
        print(f"{args.out}: {merge(args.out)} rows")
    else:
        run(chosen, args)


def _matches(name: str, patterns: list[str]) -> bool:
    return any(pattern in name or fnmatch.fnmatch(name, pattern) for pattern in patterns)


def run(chosen: list[Row], args: argparse.Namespace) -> None:
    """Measure what is missing, saving after every row."""
    device, end, (part, parts) = resolve_device(args.device), time.monotonic() + 60 * args.minutes, args.part
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder("inductor")))
    compile_threads(parts * max(1, args.jobs))
    machine = f"{describe_device(device)}; torch {torch.__version__}; python {platform.python_version()}"
    known = read(args.out).get(machine, {"rows": {}})["rows"]
    path = part_file(args.out, part, parts) if parts > 1 else args.out
    found = read(path)
    entry = found.setdefault(machine, {"rows": {}})
    missing = [row for row in chosen if row.name not in known or _again(row, args)]
    mine = share(missing, part, parts, known, args.jobs)
    if parts > 1:  # what is there has been measured by this very command
        mine = [row for row in mine if row.name not in entry["rows"]]
    left = {row.name: row for row in mine}
    for task, result in _results(mine, device, known, end, args):
        print(*["compiled ahead:"] * task.ahead, task.row.name, json.dumps(result), flush=True)
        if not task.ahead:
            entry["rows"][task.row.name] = result
            save(path, found)
            del left[task.row.name]
    if left:
        print(f"left out, {len(left)} rows: the same command goes on")
        print(*(f"  {row.name} {expected(row, known):.0f} s" for row in left.values()), sep="\n")


def _again(row: Row, args: argparse.Namespace) -> bool:
    return args.again is not None and _matches(row.name, args.again or ["*"])


def _results(
    mine: list[Row], device: torch.device, known: dict, end: float, args: argparse.Namespace
) -> Iterator[tuple[Task, dict]]:
    """What `perform` gives of the rows and, with ``--jobs``, of compiling what they need, each code once."""
    needed = {row.compiled: row for row in reversed(mine) if row.compiled} if args.jobs else {}
    ahead = {code: Task(row, device, args.toy, ahead=True) for code, row in reversed(needed.items())}

    def fits(task: Task, left: float) -> bool:
        return left > (compile_seconds(task.row) if task.ahead else expected(task.row, known))

    for solo in (True, False):
        yield from perform(
            work,
            [Task(row, device, args.toy) for row in mine if row.solo == solo],
            limit=args.limit,
            until=end,
            ahead=[] if solo else list(ahead.values()),
            jobs=args.jobs,
            needs=lambda task: ahead.get(task.row.compiled),
            fits=fits,
        )


def table(known: dict) -> str:
    """Markdown, one table per machine."""
    lines = []
    for machine, entry in known.items():
        good = [row for row in entry["rows"].values() if "error" not in row]
        rates, copies = (_range(row[name] for row in good) for name in ("ceiling_tflop_per_s", "copy_tb_per_s"))
        lines += [f"\n{machine}: {rates} TFLOP/s, {copies} TB/s\n"]
        lines += ["| row | parameters | TFLOP/field | ms | fields/s | of ceiling | of roofline |", f"|{'---|' * 7}"]
        lines += [_line(name, row) for name, row in entry["rows"].items()]
    return "\n".join(lines)


def _range(values: Iterable[float]) -> str:
    seen = sorted(f"{value:.3g}" for value in values)
    return " to ".join(dict.fromkeys([seen[0], seen[-1]])) if seen else "no"


def _line(name: str, row: dict) -> str:
    if "error" in row:
        return f"| {name} | {row['error'][:60]} |"
    shares = f"{100 * row['ceiling_share']:.1f} % | {100 * row['roofline_share']:.1f} %"
    size = f"{row['parameters'] / 1e6:.1f} M | {row['tflop_per_field']:.3f}"
    return f"| {name} | {size} | {1e3 * row['seconds']:.2f} | {row['fields_per_s']:.1f} | {shares} |"


if __name__ == "__main__":
    main()
