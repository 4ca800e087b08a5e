"""``sciffusion forecast``: an ensemble of trajectories from an initial state."""

import argparse
from pathlib import Path

from sciffusion.errors import SciffusionError

HELP = "forecast an ensemble of trajectories from an initial state"
EXAMPLE = "sciffusion forecast RUN --initial states.nc --steps 10 --members 8 -o forecast.nc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``forecast``."""
    parser.add_argument("model", metavar="RUN", help="run folder of `sciffusion train --recipe forecast`")
    parser.add_argument("--initial", nargs="+", required=True, metavar="PATH", help="states; the last one is the start")
    parser.add_argument("--at", metavar="LABEL", help="start from this time of the states instead of the last")
    parser.add_argument("--conditions", nargs="+", metavar="NAME=PATH", help="data of other conditions, by name")
    parser.add_argument("--steps", type=int, required=True, help="times ahead")
    parser.add_argument("--members", default="8", help="how many (16), or which (0,3,7 or 100-199); default 8")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    parser.add_argument("-o", "--output", required=True, help="NAME.nc")
    parser.add_argument("--overwrite", action="store_true", help="replace the output")


def run(args: argparse.Namespace) -> int:
    """Forecast, and print where the result is."""
    from sciffusion.cli.generate import parse_members
    from sciffusion.config import Source
    from sciffusion.emulator import load
    from sciffusion.fields.open import open_source
    from sciffusion.fields.output import refuse_existing, write_netcdf
    from sciffusion.generation.heldout import open_conditions
    from sciffusion.rollout import forecast, time_dim

    path, members = Path(args.output), parse_members(args.members)
    refuse_existing(path, args.overwrite)
    emulator, initial = load(args.model), open_source(Source(paths=args.initial))
    if args.at is not None:
        dim = time_dim(emulator)
        initial = initial.sel({dim: slice(None, args.at)})
        if not initial.sizes[dim]:
            raise SciffusionError(f"--at {args.at}: no state until then", "choose a later time")
    given = open_conditions(args.conditions) if args.conditions else {}
    if not isinstance(given, dict):
        raise SciffusionError("--conditions without names", "write name=path")
    whole = forecast(emulator, initial, args.steps, members, conditions=given, seed=args.seed, device=args.device)
    write_netcdf(whole, path, overwrite=args.overwrite, as_is=True)
    print(path)
    return 0
