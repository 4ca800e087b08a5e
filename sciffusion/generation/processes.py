"""Which of several processes this one is, as the launcher says: no process group, no coordinator of ours."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from sciffusion.errors import SciffusionError

__all__ = ["Process"]

# (rank, number, rank on this machine): torchrun, srun, Open MPI, MPICH and Intel MPI. SLURM_NTASKS is no witness: a
# batch script that starts one process without srun has it too.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
)


@dataclass(frozen=True)
class Process:
    """Process ``rank`` of ``size``; ``local`` counts those of one machine; ``leads``: it is the first of its job."""

    rank: int = 0
    size: int = 1
    local: int = 0
    leads: bool = field(default=True, compare=False)

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> "Process":
        """The process we are, from the environment of the launcher; alone when there is none."""
        for rank, size, local in _LAUNCHERS:
            if rank in environment and size in environment:
                number = int(environment[rank])
                return cls(number, int(environment[size]), int(environment.get(local, "0")), number == 0)
        return cls()

    def within(self, job: int, jobs: int) -> "Process":
        """The process among those of all ``jobs`` of an array, of which ours is number ``job``, from 0."""
        if not 0 <= job < jobs:
            raise SciffusionError(f"share {job} of {jobs}", f"shares are numbered from 0 to {jobs - 1}")
        return replace(self, rank=job * self.size + self.rank, size=jobs * self.size)

    def mine(self, case: int, member: int) -> bool:
        """Whether this process makes (case, member): a rule of the item alone, never of a list made at some time."""
        return (case + member) % self.size == self.rank

    @property
    def name(self) -> str:
        """Name of its share of the items."""
        return f"{self.rank}-of-{self.size}"

    def others(self) -> Iterator["Process"]:
        """The other processes, beginning with the next one."""
        for step in range(1, self.size):
            yield Process((self.rank + step) % self.size, self.size)
