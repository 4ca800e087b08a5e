"""What a batch job is, whatever the scheduler: a command of ours, the resources it wants, how often it may restart."""

from dataclasses import dataclass
from typing import Literal

from sciffusion.errors import SciffusionError

__all__ = ["Job", "Launcher"]

Launcher = Literal["srun", "mpiexec", "torchrun", "none"]
TRAINING = ("train", "distill")
FORBIDDEN = {
    "--no-resume": "a job that is queued again has to go on where it stopped: leave it out",
    "--overwrite": "a job that is queued again would start anew: remove the old output first, and leave it out",
}


@dataclass(frozen=True)
class Job:
    """One batch job, or an array of ``array`` of them that share the members of one ensemble.

    ``command`` are the words after ``sciffusion``; ``processes`` counts those per node, one per GPU unless told
    otherwise; ``time`` and ``warning`` (how long before the limit the job is asked to stop) are in seconds.

    Raises SciffusionError for a command or numbers with which the job could not be queued again.
    """

    command: tuple[str, ...]
    name: str
    folder: str
    python: str
    account: str | None = None
    partition: str | None = None
    time: float | None = None
    nodes: int = 1
    gpus: int = 0
    processes: int = 0
    cpus: int = 1
    memory: str | None = None
    array: int = 1
    at_once: int = 0
    restarts: int = 30
    warning: float = 300.0
    launcher: Launcher | None = None
    directives: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for word, mend in FORBIDDEN.items():
            if word in self.command:
                raise SciffusionError(f"{word} in a batch job", mend)
        if self.training and self.array > 1:
            raise SciffusionError("an array of one training", "use --nodes and --gpus for more devices")
        if self.time is not None and self.time <= self.warning:
            what = f"the time limit of {self.time:g} s is not longer than the warning of {self.warning:g} s"
            raise SciffusionError(what, "give a longer --time or a shorter --warning")
        for name in ("nodes", "array", "cpus"):
            if getattr(self, name) < 1:
                raise SciffusionError(f"--{name} {getattr(self, name)}", "give at least 1")

    @property
    def training(self) -> bool:
        """Whether the job trains: its processes work together, and none of them can go on alone."""
        return self.command[0] in TRAINING

    @property
    def per_node(self) -> int:
        """Processes per node."""
        return self.processes or self.gpus or 1

    def words(self, index: str) -> list[str]:
        """The command with what the job adds; ``index`` is the shell's name for the number of the array's task."""
        words = list(self.command)
        if self.array > 1:
            words += ["--share", f"{index}/{self.array}"]
        given = {word.partition("=")[0] for word in self.command}
        if self.training and self.nodes * self.per_node > 1:
            wanted = {"train.nodes": self.nodes, "train.devices": self.per_node}
            words += [f"--set={name}={count}" for name, count in wanted.items() if name not in given]
        return words
