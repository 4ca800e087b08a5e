"""Batch scripts do what they say, tried with stand-ins for the scheduler's commands; tests/slurm has a real one."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from sciffusion import durations
from sciffusion.cli import main
from sciffusion.errors import SciffusionError
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.generation import generate
from sciffusion.generation.processes import Process
from tests.generation.fake import FakeEmulator, conditions
from tests.generation.test_kill import contents


@pytest.fixture
def centre(tmp_path, monkeypatch):
    """A folder with a run, and programs of a scheduler that write down how they were called."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "experiment.yaml").touch()
    for name in ("sbatch", "qsub", "scontrol", "module"):
        program(tmp_path, name, f'echo "{name} $*" >> calls; echo 7')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def program(folder, name, body):
    path = folder / "bin" / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def submit(*words):
    return main(["submit", *words])


def calls(folder):
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


GENERATE = ("generate", "run", "--members", "100", "--output", "ens.zarr")


def run_script(folder, name, status, **environment):
    """Run a script whose command ends with ``status``; srun, mpiexec and timeout only pass it on."""
    program(folder, "work", f'echo "work $*" >> calls; exit {status}')
    program(folder, "srun", 'while [[ $1 == -* ]]; do shift; done; "$@"')
    program(folder, "mpiexec", 'shift 2; "$@"')
    done = subprocess.run(["bash", name], env=os.environ | environment, capture_output=True, text=True, check=False)
    return done.returncode


SLURM = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
PBS = {"PBS_JOBID": "7[2].head", "PBS_ARRAY_INDEX": "2"}
AGAIN = {"slurm": "scontrol requeue 7_2", "pbs": "qsub -J 2-3:2 -v SCIFFUSION_RESTART=4 {script}"}
COUNT = {"slurm": "SLURM_RESTART_COUNT", "pbs": "SCIFFUSION_RESTART"}


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
@pytest.mark.parametrize(
    ("status", "restart", "again"),
    [(0, 3, False), (2, 3, False), (85, 3, True), (137, 3, True), (143, 3, True), (85, 5, False)],
)
def test_a_job_is_queued_again_when_it_was_stopped_and_not_when_it_failed(centre, scheduler, status, restart, again):
    options = ("--scheduler", scheduler, "--time", "2h", "--array", "4", "--restarts", "5", "--module", "cuda")
    assert submit(*options, "--python", "work", "--script", "job.sh", *GENERATE) == 0
    environment = {"slurm": SLURM, "pbs": PBS}[scheduler] | {COUNT[scheduler]: str(restart)}
    assert run_script(centre, "job.sh", status, **environment) == status
    work = "work -m sciffusion generate run --members 100 --output ens.zarr --share 2/4"
    wanted = ["module load cuda", work, *([AGAIN[scheduler].format(script=centre / "job.sh")] if again else [])]
    assert calls(centre) == wanted


ASKED = """
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: os.system('echo asked >> calls') or os._exit(85))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
while True:
    signal.pause()
"""


def test_pbs_asks_the_job_to_stop_before_the_limit(centre):
    assert (
        submit("--scheduler", "pbs", "--time", "5s", "--warning", "2s", "--python", "work", "--script", "j", *GENERATE)
        == 0
    )
    program(centre, "work", f'exec "{sys.executable}" -c "{ASKED}"')
    subprocess.run(
        ["bash", "j"],
        env=os.environ | {"PBS_JOBID": "7.head"},
        check=False,
        capture_output=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]),  # until the work is ready for it
    )
    assert calls(centre) == ["asked", f"qsub -v SCIFFUSION_RESTART=1 {centre / 'j'}"]


RESOURCES = (
    "--account",
    "abc",
    "--partition",
    "gpu",
    "--time",
    "1-00:00:00",
    "--nodes",
    "2",
    "--gpus",
    "4",
    "--cpus",
    "8",
)
SAID = {
    "slurm": (
        *("#SBATCH --account=abc", "#SBATCH --partition=gpu", "#SBATCH --time=24:00:00", "#SBATCH --nodes=2"),
        *("#SBATCH --ntasks-per-node=4", "#SBATCH --gpus-per-node=4", "#SBATCH --cpus-per-task=8"),
        *("#SBATCH --requeue", "#SBATCH --signal=USR1@300", "#SBATCH --qos=x"),
    ),
    "pbs": (
        *("#PBS -A abc", "#PBS -q gpu", "#PBS -l walltime=24:00:00", "#PBS -r y", "#PBS --qos=x"),
        "#PBS -l select=2:ncpus=32:mpiprocs=1:ngpus=4",
    ),
}


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_a_training_gets_its_devices_from_the_job(centre, scheduler):
    words = ("--directive=--qos=x", "--setup", "source my env", "--script", "j", "train", "experiment.yaml")
    assert submit("--scheduler", scheduler, *RESOURCES, *words) == 0
    lines = (centre / "j").read_text().splitlines()
    assert [line for line in SAID[scheduler] if line not in lines] == []
    assert "source my env" in lines
    assert "train experiment.yaml --set=train.nodes=2 --set=train.devices=4" in "\n".join(lines)
    assert not [line for line in lines if "{{" in line or line.startswith(("#SBATCH --array", "#PBS -J"))]
    assert subprocess.run(["bash", "-n", "j"], check=False).returncode == 0


def test_a_distillation_is_a_training(centre):
    assert submit("--scheduler", "slurm", "--gpus", "2", "--script", "j", "distill", "run") == 0
    assert "distill run --set=train.nodes=1 --set=train.devices=2" in (centre / "j").read_text()


def test_now_hands_the_script_to_the_scheduler(centre, capsys):
    assert submit("--scheduler", "slurm", "--now", *GENERATE) == 0
    assert calls(centre) == [f"sbatch {centre / 'generate-ens.sbatch'}"]
    program(centre, "sbatch", "echo no such account >&2; exit 1")
    assert submit("--scheduler", "slurm", "--now", *GENERATE) == 2
    assert "no such account" in capsys.readouterr().err


def test_a_script_that_was_edited_is_not_overwritten(centre, capsys):
    assert submit("--scheduler", "slurm", *GENERATE) == 0
    script = centre / "generate-ens.sbatch"
    script.write_text(script.read_text() + "# mine\n")
    assert submit("--scheduler", "slurm", *GENERATE) == 2
    assert script.read_text().endswith("# mine\n")
    assert submit("--scheduler", "slurm", "--replace", *GENERATE) == 0
    assert not script.read_text().endswith("# mine\n")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--time", "2h"), "no command to submit"),
        (("--time", "4min", *GENERATE), "not longer than the warning"),
        (("--time", "120", *GENERATE), "no length of time"),
        ((*GENERATE, "--overwrite"), "--overwrite in a batch job"),
        ((*GENERATE, "--no-resume"), "--no-resume in a batch job"),
        (("--array", "2", "train", "experiment.yaml"), "an array of one training"),
        (("generate", "nothing", "--output", "ens.zarr"), "nothing: no such file"),
        (("generate", "run", "--output", "none/ens.zarr"), "its folder does not exist"),
        (("--scheduler", "pbs", *GENERATE), "PBS does not warn"),
        (("--scheduler", "pbs", "--time", "2h", "--launcher", "srun", *GENERATE), "mpiexec, none, torchrun"),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_queued(centre, capsys, words, what):
    assert submit(*words) == 2
    assert what in capsys.readouterr().err
    assert not list(centre.glob("*.sbatch"))


def test_a_mistake_in_the_command_is_found_at_once(centre, capsys):
    with pytest.raises(SystemExit):
        submit("generate", "run", "--membres", "3", "--output", "ens.zarr")
    assert "--membres" in capsys.readouterr().err


def test_writing_a_script_loads_no_torch(centre):
    code = "import sys\nfrom sciffusion.cli import main\nmain(sys.argv[1:])\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, "submit", *GENERATE], check=False).returncode == 0


def test_shares_of_processes_are_disjoint_and_make_the_whole():
    everyone = [Process(rank, 3, rank).within(job, 4) for job in range(4) for rank in range(3)]
    items = [(case, member) for case in range(5) for member in range(7)]
    assert all(sum(process.mine(*item) for process in everyone) == 1 for item in items)
    with pytest.raises(SciffusionError, match="numbered from 0 to 3"):
        Process().within(4, 4)


def test_jobs_of_an_array_make_one_ensemble_whoever_comes_first(tmp_path):
    options = {"batch_size": 2, "device": "cpu", "progress": False}
    for share in ((2, 3), (0, 3), (1, 3)):
        generate(FakeEmulator(), conditions(), tmp_path / "e.zarr", 4, share=share, **options)
    generate(FakeEmulator(), conditions(), tmp_path / "whole.zarr", 4, **options)
    assert EnsembleStore(tmp_path / "e.zarr").completed().all()
    assert contents(tmp_path / "e.zarr") == contents(tmp_path / "whole.zarr")


@pytest.mark.parametrize(
    ("text", "length"),
    [
        *[("90s", 90), ("10min", 600), ("2h", 7200), ("1h30min", 5400), ("1.5h", 5400)],
        *[("02:00:00", 7200), ("1-12:00:00", 129600)],
    ],
)
def test_lengths_of_time_as_people_write_them(text, length):
    assert durations.seconds(text) == length


@pytest.mark.parametrize("text", ["", "10", "2 fortnights", "h", "-3h", "1:2"])
def test_lengths_without_meaning_are_refused(text):
    with pytest.raises(SciffusionError, match="no length of time"):
        durations.seconds(text)
