"""``sciffusion generate``: an ensemble into a Zarr store or a NetCDF file, resumable."""

import argparse
import logging
import time
from pathlib import Path
from typing import Any

from sciffusion import durations, stopping
from sciffusion.errors import SciffusionError

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "generate an ensemble from a trained run; the same command goes on after an interruption"
EXAMPLE = "sciffusion generate RUN --conditions new_coarse.nc --select time=2041/2060 --members 16 --output ens.zarr"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="RUN", help="run folder of `sciffusion train`, or a model folder")
    parser.add_argument("--output", "-o", required=True, help="the ensemble: NAME.zarr, or NAME.nc for NetCDF4")
    parser.add_argument(
        "--conditions",
        action="extend",
        nargs="+",
        metavar="PATH",
        help="files, globs or a store; name=path for several conditions (default: the cases that the run held out)",
    )
    parser.add_argument(
        "--rename",
        action="extend",
        nargs="+",
        default=[],
        metavar="THEIRS=OURS",
        help="names in the conditions' files -> trained names",
    )
    parser.add_argument(
        "--select",
        action="extend",
        nargs="+",
        default=[],
        metavar="DIM=LABEL",
        help="cases: dim=label, dim=first/last or dim=a,b",
    )
    parser.add_argument(
        "--all-cases", action="store_true", help="without --conditions: training and validation cases too"
    )
    parser.add_argument("--members", default="8", help="how many (16), or which (0,3,7 or 100-199); default 8")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="noise levels of the sampler (default: the model's own)")
    parser.add_argument("--solver", help="name of the solver (default: the model's own)")
    parser.add_argument(
        "--tile", type=int, metavar="CELLS", help="side of the overlapping tiles that the network sees, for large grids"
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="sample a baseline of the run: interpolation, linear, quantile-mapping, analogues or climatology",
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="(case, member) items per network call")
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16", "fp8"],
        default="auto",
        help="of the networks (auto: as the ensemble was begun, else bfloat16 on GPUs that have units for it; fp8: "
        "perceptrons of transformers in 8 bits)",
    )
    parser.add_argument(
        "--compile",
        choices=["auto", "always", "never"],
        default="auto",
        help="the networks (auto: as the ensemble was begun, else in fp8 and where a GPU has more than ten minutes to "
        "work)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    parser.add_argument(
        "--share", default="0/1", metavar="I/N", help="make share I of N (from 0), in a job of its own; see submit"
    )
    parser.add_argument(
        "--time-coherence",
        metavar="RHO",
        help="correlation of the noise of consecutive cases (0.9), or the time in which it falls to 1/e (12h)",
    )
    parser.add_argument(
        "--keep",
        metavar="WHAT",
        help="statistics of the members instead of all of them: mean,std,min,max,quantiles,members:16",
    )
    parser.add_argument(
        "--score-against",
        nargs="+",
        metavar="PATH",
        help="the truth: score every case as soon as its members are there",
    )
    parser.add_argument(
        "--deadline", metavar="LENGTH", help="10min: publish the members that are complete by then; go on later"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output once the new one is complete")
    parser.add_argument("--no-resume", action="store_true", help="refuse an output that exists, even if it would fit")
    parser.add_argument(
        "--allow-mixed",
        action="store_true",
        help="go on with an ensemble that was begun on another device model or with other versions",
    )
    parser.add_argument("--no-verify", action="store_true", help="trust what is complete without reading it again")
    parser.add_argument("--round-bits", type=int, metavar="N", help="keep N bits of the mantissa: error below 2^-(N+1)")
    parser.add_argument(
        "--pack",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=LOW/HIGH",
        help="store variables as 16-bit integers in a range",
    )
    parser.add_argument(
        "--chunks",
        action="extend",
        nargs="+",
        default=[],
        metavar="DIM=N",
        help="cut chunks along grid dims (default: whole fields)",
    )
    parser.add_argument("--fsync", action="store_true", help="wait for the disk after every item")
    parser.add_argument("--log", metavar="FILE", help="write log lines to this file as well")
    parser.add_argument("--quiet", action="store_true", help="print warnings only")


def run(args: argparse.Namespace) -> int:
    """Generate, and print where the ensemble is. A stop on SIGTERM or SIGUSR1 ends with exit status 85."""
    with stopping.listening():  # before torch is imported
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    begun = time.monotonic()
    deadline = durations.seconds(args.deadline) if args.deadline else None
    members = parse_members(args.members)
    from sciffusion.cli.logs import log_to
    from sciffusion.emulator import load
    from sciffusion.generation import generate

    log_to(args.log)
    logging.getLogger("sciffusion").setLevel(logging.WARNING if args.quiet else logging.INFO)
    emulator = load(_model(args))
    conditions, cases = _conditions(args)
    if args.baseline is not None:  # a baseline may need no data: its cases are those of the run's own emulator
        cases = load(args.model).check(conditions, cases).cases
    path = generate(
        emulator,
        conditions,
        args.output,
        members,
        cases=cases,
        seed=args.seed,
        sampler=_sampler(emulator, args),
        resume=not args.no_resume,
        overwrite=args.overwrite,
        verify=not args.no_verify,
        batch_size=args.batch_size,
        device=args.device,
        precision=args.precision,
        compile={"auto": None, "always": True, "never": False}[args.compile],
        allow_mixed=args.allow_mixed,
        storage=_storage(args),
        share=_share(args.share),
        time_coherence=args.time_coherence,
        keep=args.keep,
        score_against=_truth(args.score_against) if args.score_against else None,
        deadline=None if deadline is None else max(0.0, deadline - (time.monotonic() - begun)),
        progress=not args.quiet,
        fsync=args.fsync,
    )
    print(path)
    return 0


def parse_members(text: str) -> int | list[int]:
    """``16`` is a count; ``0,3,7`` and ``100-199`` are numbers. Raises SciffusionError for anything else."""
    try:
        if "," not in text and "-" not in text:
            return int(text)
        numbers: list[int] = []
        for part in text.split(","):
            first, _, last = part.partition("-")
            numbers += range(int(first), int(last or first) + 1)
        return numbers
    except ValueError:
        raise SciffusionError(f"--members {text}", "give a count (16) or numbers (0,3,7 or 100-199)") from None


def _truth(paths: list[str]) -> Any:
    """The data to score against."""
    from sciffusion.config import Source
    from sciffusion.fields.open import open_source

    return open_source(Source(paths=paths))


def _share(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise SciffusionError(f"--share {text}", "write I/N: 0/4 to 3/4 for four jobs")
    return int(index), int(count)


def _model(args: argparse.Namespace) -> Path:
    """Folder of the emulator or of one of its baselines."""
    run = Path(args.model)
    if args.baseline is None:
        return run
    folder = run / "baselines" / str(args.baseline)
    if not folder.is_dir():
        known = sorted(path.name for path in (run / "baselines").glob("*") if path.is_dir())
        raise SciffusionError(f"{run}: has no baseline {args.baseline!r}", f"it has {', '.join(known) or 'none'}")
    return folder


def _conditions(args: argparse.Namespace) -> tuple[Any, Any]:
    """Data to condition on, and the cases to take."""
    from sciffusion.generation.heldout import held_out, open_conditions, selection

    if args.conditions:
        pairs = [text.partition("=") for text in args.rename]
        conditions: Any = open_conditions(args.conditions, {theirs: ours for theirs, _, ours in pairs})
        cases: Any = None
    else:
        conditions, cases = held_out(args.model, all_cases=args.all_cases)
    return conditions, selection(args.select, conditions) if args.select else cases


def _storage(args: argparse.Namespace) -> Any:
    """How numbers are kept."""
    from sciffusion.fields.storage import Storage

    try:
        pairs = [text.partition("=") for text in args.pack]
        ranges = {name: tuple(map(float, limits.split("/"))) for name, _, limits in pairs}
        pack = {name: (low, high) for name, (low, high) in ranges.items()}
    except ValueError:
        raise SciffusionError(f"--pack {' '.join(args.pack)}", "write NAME=LOW/HIGH, as in t2m=180/340") from None
    try:
        chunks = {dim: int(length) for dim, _, length in (text.partition("=") for text in args.chunks)}
    except ValueError:
        raise SciffusionError(f"--chunks {' '.join(args.chunks)}", "write DIM=N, as in lat=256") from None
    return Storage(args.round_bits, pack, chunks)


def _sampler(emulator: Any, args: argparse.Namespace) -> Any:
    """The emulator's own settings with what the command line changes."""
    changes = {name: getattr(args, name) for name in ("steps", "solver", "tile") if getattr(args, name) is not None}
    if not changes:
        return None
    from pydantic import ValidationError

    own = emulator.sampler()
    try:
        return type(own).model_validate(own.model_dump() | changes)
    except ValidationError as error:
        first = error.errors()[0]
        place = f"--{first['loc'][0]}" if first["loc"] else "sampler"
        raise SciffusionError(f"{place}: {first['msg'].lower()}", "see `sciffusion generate --help`") from None
