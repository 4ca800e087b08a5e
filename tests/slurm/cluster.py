"""A real SLURM of one node in a temporary folder, as root, with its own munge key and ports: ``with cluster() as one``.

Needs Debian's slurmctld, slurmd, slurm-client and munge. Partition ``low`` is preempted, by requeueing, by ``high``.
"""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
PATIENCE = 600.0  # seconds for a daemon to answer, on a loaded machine
CPUS = 4  # whatever the machine has: jobs wait for each other's turn
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=20
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
MessageTimeout=100
TCPTimeout=100
BatchStartTimeout=600
UnkillableStepTimeout=600
InactiveLimit=0
SchedulerParameters=sched_interval=3,bf_interval=3
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=3600
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE MaxTime=60
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=60
"""


class Cluster:
    """A running cluster; with ``variables`` in the environment SLURM's commands talk to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{os.environ.get('PATH', '')}:/usr/sbin"
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
        self.environment = os.environ | self.variables

    def run(self, *command: str) -> str:
        """Output of one of SLURM's commands."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout.strip()

    def states(self, job: str) -> list[str]:
        """State of every task of a job that SLURM still knows: PENDING, RUNNING, COMPLETED, ..."""
        return self.run("squeue", "--noheader", "--array", "--states=all", "--format=%T", f"--jobs={job}").split()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start the daemons, wait until the node is idle, and end them with the block."""
    folder = Path(tempfile.mkdtemp(prefix="sciffusion-slurm-"))
    folder.chmod(0o755)  # munged, which is not root, has to come through
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        one = Cluster(folder)
        _configure(folder)
        stack.enter_context(_daemon(_munged(folder), folder, one.environment))
        until(lambda: (folder / "munge" / "socket").exists(), "munged")
        stack.enter_context(_daemon(["slurmctld", "-D", "-i"], folder, one.environment))
        stack.enter_context(_daemon(["slurmd", "-D", "-N", socket.gethostname()], folder, one.environment))
        until(lambda: "idle" in _quietly(one, "sinfo", "--noheader", "--format=%T"), "the node", folder)
        yield one


def until(true: object, what: str, folder: Path | None = None, patience: float = PATIENCE) -> None:
    """Wait for ``true()``; the logs in ``folder`` say why it did not come."""
    deadline = time.monotonic() + patience
    while not true():  # type: ignore[operator]
        if time.monotonic() > deadline:
            logs = "".join(f"\n{p}:\n{p.read_text()[-3000:]}" for p in sorted(folder.glob("*.log"))) if folder else ""
            raise TimeoutError(f"{what} did not come within {patience:g} s{logs}")
        time.sleep(0.3)


def _configure(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    with socket.socket() as one, socket.socket() as other:
        ports = {"ctld": _port(one), "slurmd": _port(other)}
    names = {"host": socket.gethostname(), "folder": folder, "cpus": CPUS} | ports
    (folder / "slurm.conf").write_text(CONF.format(**names))


def _port(free: socket.socket) -> int:
    free.bind(("", 0))
    return int(free.getsockname()[1])


def _munged(folder: Path) -> list[str]:
    """Command of munged, with a key of its own."""
    user, own = pwd.getpwnam("munge"), folder / "munge"
    own.mkdir(mode=0o755)
    (own / "key").write_bytes(os.urandom(1024))
    (own / "key").chmod(0o600)
    for path in (own, own / "key"):
        os.chown(path, user.pw_uid, user.pw_gid)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={own / name}" for option, name in files.items()]
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return ["setpriv", *identity, "munged", "--foreground", "--force", "--num-threads=2", *options]


@contextmanager
def _daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A program in the foreground of its own session, ended with the block."""
    program = shutil.which(command[0], path=environment["PATH"]) or command[0]
    with (folder / "daemons.log").open("ab") as log:
        process = subprocess.Popen(
            [program, *command[1:]], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _quietly(one: Cluster, *command: str) -> str:
    try:
        return one.run(*command)
    except (RuntimeError, subprocess.TimeoutExpired):
        return ""


if __name__ == "__main__":
    with cluster() as running:
        print(running.run("sinfo"), f"\nexport SLURM_CONF={running.folder}/slurm.conf", sep="\n")
        if sys.stdin.isatty():
            input("Enter ends it ")
