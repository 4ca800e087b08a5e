"""``sciffusion distill``: a trained run to an emulator that needs a few network calls."""

import argparse
from pathlib import Path
from typing import Any

from sciffusion import stopping
from sciffusion.errors import SciffusionError

HELP = "distil a trained run into an emulator of a few network calls per member"
EXAMPLE = "sciffusion distill run --method ect --steps 2 -o run_2_steps"
METHODS = ("progressive", "ect", "sct", "scd", "meanflow")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``distill``."""
    parser.add_argument("model", metavar="RUN", help="run folder of `sciffusion train`, the teacher")
    parser.add_argument("--method", choices=METHODS, default="ect", help="default: ect, easy consistency tuning")
    parser.add_argument("--steps", type=int, default=2, help="network calls per member (default 2)")
    parser.add_argument("-o", "--output", help="run folder of the student (default: RUN_METHOD_STEPS)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="override a setting")
    parser.add_argument("--overwrite", action="store_true", help="start again in a folder of another experiment")
    parser.add_argument("--no-progress", action="store_true", help="log lines instead of a progress bar")


def run(args: argparse.Namespace) -> int:
    """Distil and say where the result is. A stop on SIGTERM or SIGUSR1 ends with exit status 85."""
    with stopping.listening():  # before torch is imported
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from sciffusion.cli.logs import log_to, print_next
    from sciffusion.training.run import train
    from sciffusion.training.teacher import distilled

    teacher = Path(args.model)
    if not (teacher / "experiment.yaml").is_file():
        raise SciffusionError(f"{teacher}: not a run folder", "give one that `sciffusion train` made; it has the data")
    output = args.output or f"{str(teacher).rstrip('/')}_{args.method}_{args.steps}"
    experiment: Any = distilled(teacher, args.method, args.steps, output, args.set)
    log_to(f"{experiment.output}/sciffusion.log")
    train(experiment, overwrite=args.overwrite, progress=False if args.no_progress else None)
    print_next("distilled", experiment.output)
    return 0
