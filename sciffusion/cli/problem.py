"""``sciffusion problem``: simulate data to train on, where there are no files at hand."""

import argparse

from sciffusion.errors import SciffusionError

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "simulate a problem to train on (Gaussian fields, turbulence, shallow water, ...); without a name, list them"
EXAMPLE = "sciffusion problem grf -o grf && sciffusion train grf/experiment.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("name", nargs="?", help="which problem; without it, all are listed")
    add("-o", "--output", metavar="FOLDER", help="folder to write (default: the problem's name)")
    add("--cases", metavar="A,B,C", help="cases to train, validate and test on (default: the problem's)")
    add("--batch", type=int, metavar="N", help="cases made at once (default: the problem's)")
    add("--seed", type=int, default=0)
    add("--device", help="cpu, cuda, ... (default: a GPU where there is one)")


def run(args: argparse.Namespace) -> int:
    """List the problems, or simulate one."""
    from sciffusion.datasets import PROBLEMS, write_problem
    from sciffusion.execution.device import resolve_device

    if args.name is None:
        for name, problem in PROBLEMS.items():
            print(f"{name:22} {problem.summary}")
        return 0
    folder, device = args.output or args.name, resolve_device(args.device)
    path = write_problem(args.name, folder, cases=_cases(args.cases), seed=args.seed, device=device, batch=args.batch)
    print(f"wrote {folder}\nnext: sciffusion train {path}")
    return 0


def _cases(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SciffusionError(f"--cases {text}", "give three counts, such as 64,8,8") from None
