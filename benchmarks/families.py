"""The family table: every recipe trained with the same budget on the same problem, and judged by the same scores.

    python benchmarks/families.py --problem grf --recipes edm,flow       # rows that are missing; call again to go on
    python benchmarks/families.py --problem kolmogorov --recipes edm --seeds 0,1,2 --minutes 3
    python benchmarks/families.py --table                                # Markdown of all rows
    python benchmarks/families.py --problem grf --recipes edm --toy      # a minute, on any machine

A row is one recipe, trained for ``--minutes`` of wall time (all of its stages; the number of steps follows from two
short runs), then ``--members`` members of ``--cases`` test cases. Each is a JSON file in ``--out``, which is not made
again. Data and runs stay in ``--work``. Gaussian problems are compared with draws of the exact posterior on the same
truths, others with the linear-Gaussian regression of the run. A distilled recipe trains its teacher first (the ``edm``
of the same seed), which is not part of its budget. Needs zarr, netCDF4 and dask: carry their wheels where they are not.
"""

import argparse
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

from families_row import DISTILLED, Row, measure

from sciffusion import recipes
from sciffusion.datasets import PROBLEMS

COLUMNS = {
    "recipe": lambda r: r["recipe"],
    "CRPS ratio": lambda r: f"{r['crps_ratio']:.3f}",
    "spread/skill": lambda r: f"{r['spread_skill']:.2f}",
    "RALSD (dB)": lambda r: f"{r['ralsd']:.2f}",
    "log-power rms": lambda r: f"{r['log_power_rms']:.3f}",
    "coarse rms": lambda r: f"{r['coarse_rms']:.1e}",
    "calls": lambda r: f"{r['calls_per_member']:.0f}",
    "s/member": lambda r: f"{r['seconds_per_member']:.4f}",
    "minutes": lambda r: f"{r['training_minutes']:.1f}",
    "parameters": lambda r: f"{r['parameters'] / 1e6:.1f} M",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--problem", default="grf", choices=[*PROBLEMS, "era5"])
    add("--recipes", default="edm", help="comma-separated; all: every recipe there is")
    add("--seeds", default="0", help="comma-separated seeds of training")
    add("--minutes", type=float, default=3.0, help="training time of a row, all stages")
    add("--members", type=int, default=50)
    add("--cases", type=int, default=64, help="test cases")
    add("--device", help="cpu or cuda; default: a GPU where there is one")
    add("--out", type=Path, default=Path(__file__).parent / "results" / "families")
    add("--work", type=Path, default=Path("families-work"))
    add("--set", action="append", default=[], metavar="A.B=VALUE", help="override a setting of every row")
    add("--toy", action="store_true", help="few cases, steps and members: does it run?")
    add("--table", action="store_true", help="print the rows that there are")
    return parser.parse_args()


def rows(args: argparse.Namespace) -> Iterator[Row]:
    names = list(recipes.names()) if args.recipes == "all" else args.recipes.split(",")
    for name in sorted(names, key=lambda name: name in DISTILLED):  # teachers first
        for seed in args.seeds.split(","):
            yield Row(args.problem, name, int(seed))


def table(folder: Path) -> str:
    """Markdown, one table per problem, the best CRPS first."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    lines = []
    for problem in dict.fromkeys(entry["problem"] for entry in found):
        mine = sorted(
            (e for e in found if e["problem"] == problem and "crps_ratio" in e), key=lambda e: e["crps_ratio"]
        )
        lines += [f"\n{problem}\n", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(show(entry) for show in COLUMNS.values())} |" for entry in mine]
    return "\n".join(lines)


def main() -> None:
    args = arguments()
    if args.table:
        print(table(args.out))
        return
    logging.basicConfig(level=logging.WARNING)
    args.out.mkdir(parents=True, exist_ok=True)
    for row in rows(args):
        path = args.out / f"{row.name}.json"
        if path.is_file():
            continue
        try:
            result = measure(row, args)
        except Exception:  # a row that fails must not cost the others their device time
            print(f"{row.name}: failed\n{traceback.format_exc()}", flush=True)
            continue
        path.write_text(json.dumps(result, indent=1))
        print(f"| {' | '.join(show(result) for show in COLUMNS.values())} |", flush=True)


if __name__ == "__main__":
    main()
