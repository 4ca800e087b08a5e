"""Time and memory of the evaluation layer beside other packages: one table, in one run.

    python benchmarks/evaluation.py                              # all rows whose package is installed
    python benchmarks/evaluation.py --tasks crps ranks --repeats 3
    python benchmarks/evaluation.py --stream                     # 1000 members of 721 x 1440 from Zarr
    python benchmarks/evaluation.py --gpu --out gpu.json         # ours on one GPU, under a minute
    python benchmarks/evaluation.py --merge gpu.json             # takes what another machine measured, into docs/ too
    python benchmarks/evaluation.py --small --out small.json     # seconds, for a test

Other packages: pip install scores scoringrules numba xskillscore pysteps xrft numpy_groupies. Each row runs in a
process of its own, on one thread, after a warm-up at small size. Memory is the highest resident set during its first
full run, less that before it, when the data were there already. Time is the least of the runs: CPU seconds, which other
work on the machine hardly changes, and seconds by the clock. How a GPU is measured: see ``evaluation_gpu.py``; it needs
no other package, and ends with 1 when a number is not numpy's.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import date
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import evaluation_stream
from evaluation_rows import ARRANGED, SMALL, TASKS, Size

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "evaluation.json"
DOCS = HERE.parent / "docs" / "scores.md"
MARKS = ("<!-- gpu: written by benchmarks/evaluation.py --merge -->\n", "<!-- /gpu -->")
PACKAGES = ("numpy", "torch", "scores", "scoringrules", "numba", "xskillscore", "pysteps", "xrft")
THREADS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
SLOWED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # some machines set them for old builds; they slow current ones
BUDGET = 60.0  # seconds of repeats of a row


def resident(kind: str) -> int:
    """Bytes: ``VmRSS``, the resident set now, or ``VmHWM``, the highest since it was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def measure(call, repeats: int) -> dict:
    """Least CPU and clock seconds of a call, memory of the first one, and its number."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the highest resident set
    spent, start = [], time.perf_counter()
    while len(spent) < repeats and (not spent or time.perf_counter() - start < BUDGET):
        clock, cpu = time.perf_counter(), time.process_time()
        value = call()
        spent.append((time.process_time() - cpu, time.perf_counter() - clock))
        if len(spent) == 1:
            extra = resident("VmHWM") - before
    least = [min(column) for column in zip(*spent, strict=True)]
    return {"cpu_s": least[0], "clock_s": least[1], "extra_mb": extra / 1e6, "value": value, "runs": len(spent)}


def row(task: str, name: str, size: Size, repeats: int) -> dict:
    """One row, in this process."""
    data, run = ARRANGED.get((task, name), TASKS[task].data), TASKS[task].rows[name]
    run(*data(SMALL))
    given = data(size)
    return measure(lambda: run(*given), repeats)


def installed(name: str) -> bool:
    package = "numba" if "numba" in name else name.split()[0]
    return package == "ours" or (find_spec(package) is not None and find_spec(name.split()[0]) is not None)


def in_process(arguments: list[str]) -> dict:
    """The last line that a new process of this script prints, as JSON."""
    kept = {name: value for name, value in os.environ.items() if name not in SLOWED} | {"CUDA_VISIBLE_DEVICES": ""}
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, str(HERE / "evaluation.py"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=kept | THREADS | {"PYTHONPATH": path}, check=False
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES if find_spec(name) is not None}


def table(results: dict) -> str:
    """The results as Markdown."""
    lines = ["| task | package | CPU s | clock s | MB above the data | number | |", "|---|---|---|---|---|---|---|"]
    for task, rows in results["tasks"].items():
        words = TASKS[task].words.format(**results["size"])
        for name, found in rows.items():
            note = found.get("error", TASKS[task].notes.get(name, ""))
            if "error" in found:
                lines.append(f"| {words} | {name} | | | | | {note} |")
                continue
            seconds = f"{found['cpu_s']:.2f} | {found['clock_s']:.2f}"
            lines.append(f"| {words} | {name} | {seconds} | {found['extra_mb']:.0f} | {found['value']:.6g} | {note} |")
            words = ""
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="tiny data")
    parser.add_argument("--stream", action="store_true", help="members from Zarr instead of the table")
    parser.add_argument("--gpu", action="store_true", help="ours on one GPU instead of the table")
    parser.add_argument("--device", default="cuda", help="the GPU")
    parser.add_argument("--merge", type=Path, help="add the rows on a GPU that this file holds, and measure nothing")
    parser.add_argument("--docs", type=Path, default=DOCS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--row", nargs=2, metavar=("TASK", "PACKAGE"), help=argparse.SUPPRESS)
    parser.add_argument("--stream-row", nargs=2, metavar=("STORE", "WAY"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    size = SMALL if args.small else Size()
    if args.row:
        print(json.dumps(row(*args.row, size, args.repeats)))
        return
    if args.stream_row:
        print(json.dumps(measure(lambda: evaluation_stream.WAYS[args.stream_row[1]](args.stream_row[0]), 1)))
        return
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    about = {"date": str(date.today()), "machine": platform.processor() or platform.machine(), "versions": versions()}
    if args.merge:
        results["gpu"] = json.loads(args.merge.read_text())["gpu"]
        into_docs(results["gpu"], args.docs)
    elif args.gpu:
        sys.exit(gpu(args, size, results, about))
    elif args.stream:
        results["stream"] = about | stream(args.small)
        print(json.dumps(results["stream"], indent=1))
    else:
        results |= about | {"size": asdict(size), "tasks": results.get("tasks", {})}
        results["tasks"] |= {task: rows(task, args) for task in args.tasks}
        print(table(results))
    write(results, args.out)


def write(results: dict, path: Path) -> None:
    path.write_text(json.dumps(results, indent=1) + "\n")


def gpu(args: argparse.Namespace, size: Size, results: dict, about: dict) -> int:
    """Rows on a GPU, saved one by one; how many of ours are wrong, as an exit code."""
    from evaluation_gpu import measured, table, wrong

    def save(found: dict) -> None:
        write(results | {"gpu": about | found}, args.out)

    found = measured(size, args.repeats, args.device, save)
    print(table(found), *wrong(found), sep="\n")
    return min(1, len(wrong(found)))


def into_docs(results: dict, path: Path) -> None:
    """The table between the marks of the page."""
    from evaluation_gpu import table

    about = "On {device}, torch {torch}, {date}, after one run that is not counted:".format(**results)
    before, _, rest = path.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    path.write_text(f"{before}{MARKS[0]}{about}\n\n{table(results)}\n{MARKS[1]}{after}")
    print(table(results))


def rows(task: str, args: argparse.Namespace) -> dict:
    """All rows of a task whose package is installed."""
    found = {}
    for name in filter(installed, TASKS[task].rows):
        flags = ["--repeats", str(args.repeats), *(["--small"] if args.small else [])]
        found[name] = in_process(["--row", task, name, *flags])
        print(task, name, found[name], file=sys.stderr, flush=True)
    return found


def stream(small: bool) -> dict:
    """Every way of scoring members that do not fit memory, from one store."""
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "ensemble.zarr")
        shape = evaluation_stream.write(store, small)
        ways = {way: in_process(["--stream-row", store, way]) for way in evaluation_stream.WAYS}
        return {"shape": shape, "ways": ways}


if __name__ == "__main__":
    main()
