"""``sciffusion submit``: a batch script for SLURM or PBS around a generation or a training, submitted if asked."""

import argparse
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from sciffusion import durations
from sciffusion.errors import SciffusionError

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "write a batch script (SLURM, PBS) that survives preemption and time limits, and submit it if asked"
EXAMPLE = "sciffusion submit --time 2h --gpus 4 --array 8 generate RUN --members 1000 --output ens.zarr"
COMMANDS = ("generate", "train", "distill")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "job", nargs=argparse.REMAINDER, metavar="COMMAND", help="generate ..., train ... or distill ..., as usual"
    )
    parser.add_argument("--scheduler", choices=("slurm", "pbs"), help="default: whose commands are here, else slurm")
    parser.add_argument("--script", metavar="FILE", help="script to write (default: NAME.sbatch or NAME.pbs)")
    parser.add_argument("--replace", action="store_true", help="replace a script that was edited")
    parser.add_argument("--now", action="store_true", help="submit it")
    parser.add_argument("--name", help="of the job (default: after the output)")
    parser.add_argument("--account", help="project that pays")
    parser.add_argument("--partition", "--queue", help="partition or queue")
    parser.add_argument("--time", metavar="LENGTH", help="time limit: 2h, 90min, 1-12:00:00")
    parser.add_argument("--nodes", type=int, default=1, help="nodes per job")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs per node")
    parser.add_argument("--processes", type=int, default=0, help="processes per node (default: one per GPU)")
    parser.add_argument("--cpus", type=int, default=1, help="CPU cores per process")
    parser.add_argument("--memory", metavar="SIZE", help="memory per node, as the scheduler writes it: 64G, 64gb")
    parser.add_argument("--array", type=int, default=1, metavar="N", help="N jobs that share the members")
    parser.add_argument("--at-once", type=int, default=0, metavar="N", help="at most N of the array at a time")
    parser.add_argument(
        "--warning", default="5min", metavar="LENGTH", help="ask the job to stop so long before the limit"
    )
    parser.add_argument("--restarts", type=int, default=30, help="queue the job again at most so often")
    parser.add_argument("--launcher", choices=("srun", "mpiexec", "torchrun", "none"), help="what starts the processes")
    parser.add_argument("--module", action="append", default=[], metavar="NAME", help="module load NAME; repeatable")
    parser.add_argument("--setup", action="append", default=[], metavar="LINE", help="line of shell before the command")
    parser.add_argument("--directive", action="append", default=[], metavar="TEXT", help="another #SBATCH or #PBS line")
    parser.add_argument("--python", default=sys.executable, help="interpreter (default: this one)")


def run(args: argparse.Namespace) -> int:
    """Write the script, submit it if asked, and say what comes next."""
    from sciffusion.generation.jobs import SCHEDULERS, Job, render, submit

    inner = _inner(args.job)
    scheduler = args.scheduler or next((name for name, (p, _) in SCHEDULERS.items() if shutil.which(p)), "slurm")
    name = args.name or _name(inner)
    script = Path(args.script or f"{name}.{'sbatch' if scheduler == 'slurm' else 'pbs'}").absolute()
    same = ("account", "partition", "nodes", "gpus", "processes", "cpus", "memory", "array", "at_once", "restarts")
    job = Job(
        tuple(args.job),
        name,
        str(Path.cwd()),
        args.python,
        time=durations.seconds(args.time) if args.time else None,
        warning=durations.seconds(args.warning),
        launcher=args.launcher,
        modules=tuple(args.module),
        setup=tuple(args.setup),
        directives=tuple(args.directive),
        **{entry: getattr(args, entry) for entry in same},
    )
    _write(script, render(job, scheduler, script), replace=args.replace)
    print(f"wrote {script}")
    by_hand = f"submit it with: {SCHEDULERS[scheduler][0]} {shlex.quote(str(script))}"
    print(submit(script, scheduler) if args.now else by_hand)
    return 0


def _inner(words: list[str]) -> Any:
    """Arguments of the command in the job. A mistake in them is found now, not when the job starts."""
    from sciffusion.cli import _parser

    if not words or words[0] not in COMMANDS:
        raise SciffusionError("no command to submit", f"end with {' or '.join(COMMANDS)} and its arguments")
    inner = _parser(words[0]).parse_args(words)
    given = Path((inner.experiment if words[0] == "train" else inner.model) or "")
    if not given.exists() or given == Path():
        raise SciffusionError(f"{given}: no such file or folder", "give what the job is to work on")
    output = Path(inner.output or given)
    if not output.absolute().parent.is_dir():
        raise SciffusionError(f"{output}: its folder does not exist", "make the folder first")
    return inner


def _name(inner: Any) -> str:
    """Name of the job: of its output, in letters that every scheduler takes."""
    source = inner.output or getattr(inner, "experiment", None) or "job"
    return re.sub(r"[^A-Za-z0-9_.-]", "-", f"{inner.command}-{Path(source).stem}")


def _write(script: Path, text: str, *, replace: bool) -> None:
    if script.exists() and script.read_text() != text and not replace:
        raise SciffusionError(f"{script}: exists and is another", "submit it as it is, or give --replace or --script")
    script.write_text(text)
    script.chmod(0o755)
