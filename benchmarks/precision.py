"""What lower precision costs in quality: members in bfloat16 and fp8 against those in float32 from the same noise.

    python benchmarks/precision.py families-work/runs/grf-dit-0        # a run of families.py on the problem grf
    python benchmarks/precision.py RUN --compile --seconds 60

One row per precision: CRPS over that of float32, the power of the members over that of float32 (the mean of |log ratio|
over wavenumbers, the largest, and every ratio), and the distance of the members themselves in units of their sd. Rows
are kept in ``--out`` and not made again. Members in float32 are drawn anew where a row is missing.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from families_row import commit
from quality import Problem

from sciffusion.execution.device import describe_device, resolve_device

REFERENCE, LOWER = "float32", ("fp8", "bfloat16")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", type=Path, help="run folder of the problem grf, with its emulator and data in place")
    add("--cases", type=int, default=32)
    add("--members", type=int, default=32)
    add("--compile", action="store_true", help="the networks in lower precision")
    add("--seconds", type=float, default=120.0, help="start no row after this time")
    add("--device", help="cpu or cuda; default: a GPU where there is one")
    add("--out", type=Path, default=Path(__file__).parent / "results" / "precision.json")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    began, device = time.monotonic(), resolve_device(args.device)
    known: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {"rows": {}}
    missing = [name for name in LOWER if f"{args.run.name}/{name}" not in known["rows"]]
    if not missing:
        return
    problem = Problem(args.run.resolve(), args.cases, args.members, device)
    reference, _ = problem.draw(problem.emulator.sampler(), precision=REFERENCE)
    for name in missing:
        if time.monotonic() - began > args.seconds:
            break
        known["rows"][f"{args.run.name}/{name}"] = row = measure(problem, reference, name, args.compile) | {
            **{"device": describe_device(device), "torch": torch.__version__, "commit": commit()},
            **{"cases": args.cases, "members": args.members, "compiled": args.compile},
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(known, indent=1))
        print(name, json.dumps(row), flush=True)


def measure(problem: Problem, reference: xr.Dataset, name: str, compiled: bool) -> dict[str, Any]:
    """A row."""
    sampler = problem.emulator.sampler()
    problem.draw(sampler.model_copy(update={"steps": 2}), precision=name, compile=compiled)  # compiles, records
    ensemble, seconds = problem.draw(sampler, precision=name, compile=compiled)
    ratio = (problem.power(ensemble) / problem.power(reference)).isel(wavenumber=slice(1, None))  # but the mean
    log = np.abs(np.log(ratio))
    apart = np.sqrt(((ensemble - reference) ** 2).to_array().mean() / reference.to_array().var())
    return {
        "ran_in": problem.emulator.precision(name, problem.device),
        "seconds_per_member": seconds / (reference.sizes["member"] * problem.count),
        "crps_ratio": problem.crps(ensemble) / problem.crps(reference),
        "power_mean": float(log.mean()),
        "power_most": float(log.max()),
        "apart": float(apart),
        "power_ratio": [round(float(value), 5) for value in ratio],
    }


if __name__ == "__main__":
    main()
