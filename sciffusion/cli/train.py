"""``sciffusion train``: from an experiment YAML to a run folder with an emulator."""

import argparse

from sciffusion import stopping

HELP = "train an emulator, or continue a training that was stopped"
EXAMPLE = "sciffusion train experiment.yaml --set train.steps=2000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``train``."""
    parser.add_argument("experiment", nargs="?", help="experiment YAML, as `sciffusion init` writes it")
    parser.add_argument("--recipe", help="family of models, instead of the YAML's (see `sciffusion recipes`)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="override a setting")
    parser.add_argument("--output", help="run folder (default: the YAML's `output`)")
    parser.add_argument("--overwrite", action="store_true", help="start again in a folder of another experiment")
    parser.add_argument("--no-progress", action="store_true", help="log lines instead of a progress bar")


def run(args: argparse.Namespace) -> int:
    """Train and say where the result is. A stop on SIGTERM or SIGUSR1 ends with exit status 85."""
    with stopping.listening():  # before torch is imported
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from sciffusion.cli.logs import log_to, print_next
    from sciffusion.config import load_experiment
    from sciffusion.training.run import train

    overrides = [*args.set, *([f"output={args.output}"] if args.output else [])]
    experiment = load_experiment(args.experiment, overrides, args.recipe)
    log_to(f"{experiment.output}/sciffusion.log")
    train(experiment, overwrite=args.overwrite, progress=False if args.no_progress else None)
    print_next("trained", experiment.output)
    return 0
