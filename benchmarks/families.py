"""The family table: every recipe trained with the same budget on the same problem, and judged by the same scores.

    python benchmarks/families.py --problem grf --recipes edm,flow       # rows that are missing; call again to go on
    python benchmarks/families.py --problem kolmogorov --recipes edm --seeds 0,1,2 --minutes 3
    python benchmarks/families.py --rows grf/corrdiff,kolmogorov/edm,grf96/edm/1 --jobs 3 --until 560
    python benchmarks/families.py --problem grf --table                  # Markdown
    python benchmarks/families.py --page docs                            # docs/families.md and its pictures
    python benchmarks/families.py --problem gcm --gcm gcm.nc --recipes forecast
    python benchmarks/families.py --problem grf --recipes edm --toy      # a minute, on any machine

A row is one recipe, trained for ``--minutes`` of a device that it has to itself, all of its stages in equal parts,
then ``--members`` members of ``--cases`` test cases (a quarter of them, of recipes with hundreds of calls per member).
Each is a JSON file in ``--out``, which is not made again, with the fields of one case beside it as NetCDF. Gaussian
problems are compared with draws of the exact posterior on the same truths, others with the linear-Gaussian regression
of the run. A distilled recipe needs the ``edm`` row of the same seed, or its emulator in ``--keep``, where every row
leaves its own.

``--jobs`` rows are in the making at once on every GPU, each in its own process with its own log: one trains or samples,
while others read data, compile and compute scores. Rows begin in the order in which they are asked for, but teachers
before those that they teach. A row that fails leaves the reason in ``--out``/failed, and the others go on. With
``--until`` no row is begun that would not end in time, and what still runs then is ended. Data and runs stay in
``--work``. Needs zarr, netCDF4 and dask: carry their wheels where they are not.
"""

import argparse
import json
import logging
import time
import traceback
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from families_crew import Crew, note_failure, places
from families_experiment import Row
from families_page import write_page
from families_problems import GCM, OTHERS
from families_row import measure
from families_table import line, read, table

from sciffusion import recipes
from sciffusion.datasets import PROBLEMS

KNOWN = (*PROBLEMS, *OTHERS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--problem", default="grf", choices=KNOWN)
    add("--gcm", type=Path, help=f"of the problems {' and '.join(GCM)}: gcm_speedy_t31_400days.nc")
    add("--recipes", default="edm", help="comma-separated; all: every recipe there is")
    add("--seeds", default="0", help="comma-separated seeds of training")
    add("--rows", help="comma-separated PROBLEM/RECIPE[/SEED], in place of --problem, --recipes and --seeds")
    add("--minutes", type=float, default=2.0, help="training time of a row, all stages")
    add("--members", type=int, default=50)
    add("--cases", type=int, default=64, help="test cases")
    add("--device", help="cpu or cuda; default: a GPU where there is one")
    add("--jobs", type=int, default=1, help="rows in the making at once, on each GPU")
    add("--until", type=float, default=float("inf"), help="seconds after which everything has ended")
    add("--continued", action="store_true", help="the same command follows: begin what can at least be trained in time")
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
    """The rows that are asked for and not there, teachers before those that they teach. Raises for an unknown name."""
    if args.rows:
        rows = [Row.named(text) for text in args.rows.split(",")]
    else:
        names = list(recipes.names()) if args.recipes == "all" else args.recipes.split(",")
        rows = [Row(args.problem, name, int(seed)) for name, seed in product(names, args.seeds.split(","))]
    for row in sorted(rows, key=lambda row: row.teacher in rows):
        if row.problem not in KNOWN or row.recipe not in recipes.names():
            raise SystemExit(f"{row.name}: no such problem or recipe")
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
    rows, where = list(wanted(args)), places(args.device)
    if rows and (args.jobs > 1 or len(where) > 1):
        Crew(rows, args, where, lambda: time.monotonic() - began).work()
        return
    for row in rows:
        make(row, args)


if __name__ == "__main__":
    main()
