"""The family table: every recipe trained with the same budget on the same problem, and judged by the same scores.

    python benchmarks/families.py --problem grf --recipes edm,flow       # rows that are missing; call again to go on
    python benchmarks/families.py --problem kolmogorov --recipes edm --seeds 0,1,2 --minutes 3
    python benchmarks/families.py --problem grf --recipes all --jobs 3 --until 560
    python benchmarks/families.py --problem grf --table                  # Markdown
    python benchmarks/families.py --page docs                            # docs/families.md and its pictures
    python benchmarks/families.py --problem gcm --gcm gcm.nc --recipes forecast
    python benchmarks/families.py --problem grf --recipes edm --toy      # a minute, on any machine

A row is one recipe, trained for ``--minutes`` of a device that it has to itself, all of its stages in equal parts,
then ``--members`` members of ``--cases`` test cases. Each is a JSON file in ``--out``, which is not made again, with
the fields of one case beside it as NetCDF. Gaussian problems are compared with draws of the exact posterior on the same
truths, others with the linear-Gaussian regression of the run. A distilled recipe needs the ``edm`` row of the same
seed, or its emulator in ``--keep``, where every row leaves its own.

``--jobs`` rows are in the making at once, each in its own process with its own log: one trains or samples, while
others read data, compile and compute scores. A row that fails leaves the reason in ``--out``/failed, and the others go
on. With ``--until`` no row is begun that would not end in time, and what still runs then is ended. Data and runs stay
in ``--work``. Needs zarr, netCDF4 and dask: carry their wheels where they are not.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from families_gcm import GCM
from families_page import write_page
from families_row import DISTILLED, Row, measure, problem_path
from families_table import line, read, table

from sciffusion import recipes
from sciffusion.datasets import PROBLEMS
from sciffusion.execution.device import resolve_device

OVERHEAD = 50  # seconds of a row before its training, and after it
GRACE = 5  # seconds to end in after a signal


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--problem", default="grf", choices=[*PROBLEMS, "era5", *GCM])
    add("--gcm", type=Path, help="of the problems gcm and gcm-window: gcm_speedy_t31_400days.nc")
    add("--recipes", default="edm", help="comma-separated; all: every recipe there is")
    add("--seeds", default="0", help="comma-separated seeds of training")
    add("--minutes", type=float, default=2.0, help="training time of a row, all stages")
    add("--members", type=int, default=50)
    add("--cases", type=int, default=64, help="test cases")
    add("--device", help="cpu or cuda; default: a GPU where there is one")
    add("--jobs", type=int, default=1, help="rows in the making at once")
    add("--until", type=float, default=float("inf"), help="seconds after which everything has ended")
    add("--out", type=Path, default=Path(__file__).parent / "results" / "families")
    add("--work", type=Path, default=Path("families-work"))
    add("--keep", type=Path, help="folder for trained emulators, and where teachers are looked for")
    add("--commit", help="written into rows; default: that of the checkout")
    add("--set", action="append", default=[], metavar="A.B=VALUE", help="override a setting of every row")
    add("--toy", action="store_true", help="few cases, steps and members: does it run?")
    add("--table", action="store_true", help="print the rows of the problem")
    add("--page", type=Path, help="write families.md and its pictures from all rows to this folder")
    return parser.parse_args()


def wanted(args: argparse.Namespace) -> Iterator[Row]:
    """The rows that are asked for and not there, teachers before those that they teach."""
    names = list(recipes.names()) if args.recipes == "all" else args.recipes.split(",")
    for name in sorted(names, key=lambda name: name in DISTILLED):
        for seed in args.seeds.split(","):
            row = Row(args.problem, name, int(seed))
            if not (args.out / f"{row.name}.json").is_file():
                yield row


def make(row: Row, args: argparse.Namespace) -> None:
    """One row in this process; its failure is written down, and costs the others nothing."""
    failed = args.out / "failed" / f"{row.name}.json"
    try:
        result = measure(row, args)
    except Exception as error:
        print(f"{row.name}: failed\n{traceback.format_exc()}", flush=True)
        note_failure(failed, row, f"{type(error).__name__}: {error}")
        return
    (args.out / f"{row.name}.json").write_text(json.dumps(result, indent=1))
    failed.unlink(missing_ok=True)
    print(line([result]), flush=True)


def note_failure(path: Path, row: Row, why: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {"problem": row.problem, "recipe": row.recipe, "seed": row.seed, "why": why}
    path.write_text(json.dumps(entry | {"date": datetime.now(UTC).date().isoformat()}, indent=1))


class Crew:
    """Rows in processes of their own, ``args.jobs`` at a time, none beyond ``args.until``."""

    def __init__(self, rows: list[Row], args: argparse.Namespace, began: float) -> None:
        self.waiting, self.args, self.began = rows, args, began
        self.running: dict[Row, subprocess.Popen] = {}

    def work(self) -> None:
        while (self.waiting or self.running) and self.elapsed < self.args.until:
            while len(self.running) < self.args.jobs and (row := self._next()):
                self.running[row] = self._start(row)
            time.sleep(0.2)
            self._collect()
            if not self.running and self._next() is None:
                break
        for row in self.waiting:
            print(f"{row.name}: not begun, the time is over", flush=True)
        self._end()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def _next(self) -> Row | None:
        """The first row whose teacher is trained or will not be, if it can still end in time."""
        unfinished = {row for row in (*self.waiting, *self.running) if not row.trained(self.args)}
        row = next((row for row in self.waiting if row.teacher not in unfinished), None)
        return row if row and self.elapsed + self._ahead(row) <= self.args.until else None

    def _ahead(self, row: Row) -> float:
        """Seconds until ``row`` would end."""
        untrained = [row, *(other for other in self.running if not other.trained(self.args))]
        minutes = 0.0 if self.args.toy else sum(other.minutes(self.args) for other in untrained)
        return 60 * minutes + OVERHEAD

    def _start(self, row: Row) -> subprocess.Popen:
        self.waiting.remove(row)
        log = self.args.out / "logs" / f"{row.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        own = ["--recipes", row.recipe, "--seeds", str(row.seed), "--jobs", "1", "--until", "inf"]
        print(f"{self.elapsed:.0f} s: {row.name} begins", flush=True)
        with log.open("w") as stream:
            return subprocess.Popen(
                [sys.executable, "-u", __file__, *sys.argv[1:], *own], stdout=stream, stderr=subprocess.STDOUT
            )

    def _collect(self) -> None:
        for row, process in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[row]
            path = self.args.out / f"{row.name}.json"
            what = line([json.loads(path.read_text())]) if path.is_file() else f"{row.name}: failed, see its log"
            print(f"{self.elapsed:.0f} s: {what}", flush=True)

    def _end(self) -> None:
        """End what still runs."""
        for process in self.running.values():
            process.terminate()
        for row, process in self.running.items():
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            note_failure(self.args.out / "failed" / f"{row.name}.json", row, "the time was over")
            print(f"{row.name}: ended, the time is over", flush=True)


def main() -> None:
    args, began = arguments(), time.monotonic()
    if args.table:
        print("\n".join(table([entry for entry in read(args.out) if entry["problem"] == args.problem])))
        return
    if args.page:
        write_page(args.out, args.page)
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for folder in (args.out, args.work, args.keep):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    rows = list(wanted(args))
    if args.jobs > 1 and rows:
        problem_path(args.problem, args, resolve_device(args.device))
        print(f"{time.monotonic() - began:.0f} s: the data are there", flush=True)
        Crew(rows, args, began).work()
        return
    for row in rows:
        make(row, args)


if __name__ == "__main__":
    main()
