"""From a job to a script: templates are shell files beside this one, with ``{{name}}`` where something goes.

A line whose placeholder has no value is left out; one whose placeholder has several is repeated.
"""

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sciffusion import durations
from sciffusion.errors import SciffusionError
from sciffusion.generation.jobs.job import Job, Launcher

__all__ = ["SCHEDULERS", "render", "submit"]

Values = Mapping[str, str | int | Sequence[str] | None]
FOLDER = Path(__file__).parent
PLACE = re.compile(r"\{\{(\w+)\}\}")
# scheduler -> how it is called, and the shell's names for the task's number in an array
SCHEDULERS = {"slurm": ("sbatch", "$SLURM_ARRAY_TASK_ID"), "pbs": ("qsub", "$PBS_ARRAY_INDEX")}


def render(job: Job, scheduler: str, script: Path) -> str:
    """The text of ``script``, which submits ``job`` to ``scheduler`` ("slurm" or "pbs").

    Raises SciffusionError for what the scheduler cannot do.
    """
    job = replace(job, launcher=job.launcher or _launcher(job, scheduler))
    launch = _fill(f"{scheduler}-{job.launcher}.sh", _values(job, scheduler, script))
    return _fill(f"{scheduler}.sh", {**_values(job, scheduler, script), "launch": launch.rstrip().splitlines()})


def submit(script: Path, scheduler: str) -> str:
    """Hand the script to the scheduler; its answer. Raises SciffusionError when it cannot be, or is refused."""
    program = SCHEDULERS[scheduler][0]
    try:
        done = subprocess.run([program, str(script)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SciffusionError(f"{program} is not here", f"copy {script} to the cluster and submit it there") from None
    if done.returncode:
        raise SciffusionError(f"{program} refused {script}: {done.stderr.strip()}", "edit the script, submit it again")
    return done.stdout.strip()


def _launcher(job: Job, scheduler: str) -> Launcher:
    """What starts the processes, where nothing was said."""
    if scheduler == "slurm":
        return "srun"
    if job.nodes * job.per_node == 1:
        return "none"
    return "torchrun" if job.training else "mpiexec"


def _values(job: Job, scheduler: str, script: Path) -> Values:
    """Everything that a template may name."""
    if scheduler == "pbs" and job.time is None:
        raise SciffusionError("PBS does not warn before the time limit", "give --time, so that the script can")
    index = SCHEDULERS[scheduler][1]
    return {
        "name": job.name,
        "title": shlex.join(["sciffusion", *job.command]),
        "script": shlex.quote(str(script)),
        "folder": shlex.quote(job.folder),
        "python": shlex.quote(job.python),
        "command": " ".join(_word(word, index) for word in job.words(index)),
        "account": job.account,
        "partition": job.partition,
        "time": durations.clock(job.time) if job.time is not None else None,
        "until_warning": round(job.time - job.warning) if job.time is not None else None,
        "warning": round(job.warning),
        "nodes": job.nodes,
        "processes": job.per_node,
        "all_processes": job.nodes * job.per_node,
        "cpus": job.cpus,
        "tasks": _tasks(job),
        "task_cpus": job.cpus * job.per_node // _tasks(job),
        "gpus": job.gpus or None,
        "memory": job.memory,
        "array": _array(job, scheduler),
        "log": _log(job, scheduler),
        "restarts": job.restarts,
        "wait": 120 if job.training else 0,  # seconds after the first has ended; 0: without end
        "whom": "B:" if job.launcher == "torchrun" else "",
        "chunk": _chunk(job),
        "directives": job.directives,
        "modules": job.modules,
        "setup": job.setup,
    }


def _word(word: str, index: str) -> str:
    """A word for the shell; the array's index stays a variable."""
    return f'"{word}"' if word.startswith(f"{index}/") else shlex.quote(word)


def _array(job: Job, scheduler: str) -> str | None:
    if job.array == 1:
        return None
    return f"0-{job.array - 1}" + (f"%{job.at_once}" if job.at_once else "")


def _log(job: Job, scheduler: str) -> str:
    """Log files per task of an array, or of the job; a restart appends."""
    if scheduler == "pbs":
        return f"{job.folder}/"
    return f"{job.name}-{'%A_%a' if job.array > 1 else '%j'}.log"


def _tasks(job: Job) -> int:
    """What the scheduler starts on a node: one torchrun, or every process."""
    return 1 if job.launcher == "torchrun" else job.per_node


def _chunk(job: Job) -> str:
    """PBS's description of one node."""
    parts = [f"select={job.nodes}", f"ncpus={job.cpus * job.per_node}", f"mpiprocs={_tasks(job)}"]
    parts += [f"ngpus={job.gpus}"] if job.gpus else []
    parts += [f"mem={job.memory}"] if job.memory else []
    return ":".join(parts)


def _fill(template: str, values: Values) -> str:
    path = FOLDER / template
    if not path.is_file():
        scheduler, _, launcher = template.removesuffix(".sh").partition("-")
        known = sorted(p.stem.removeprefix(f"{scheduler}-") for p in FOLDER.glob(f"{scheduler}-*.sh"))
        raise SciffusionError(f"{scheduler} jobs are not launched by {launcher}", f"choose one of {', '.join(known)}")
    return "".join(f"{line}\n" for row in path.read_text().splitlines() for line in _lines(row, values))


def _lines(row: str, values: Values) -> list[str]:
    """One line of a template, as often as its placeholder has values."""
    names = PLACE.findall(row)
    several = next((name for name in names if not isinstance(values[name], str | int | None)), None)
    if several is not None:
        return [row.replace(f"{{{{{several}}}}}", line) for line in values[several]]  # type: ignore[union-attr]
    if any(values[name] is None for name in names):
        return []
    return [PLACE.sub(lambda match: str(values[match[1]]), row)]
