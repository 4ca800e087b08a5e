"""What the pages of docs/ show of GPUs, made anew on a machine with one or several, in stages that end in time.

    python benchmarks/gpu_session.py tests OUT --seconds 120       # the tests that need a GPU
    python benchmarks/gpu_session.py speed OUT --seconds 470       # what speed.py has not measured yet
    python benchmarks/gpu_session.py families OUT --rows grf/corrdiff,kolmogorov/edm      # 2 minutes of a GPU each
    python benchmarks/gpu_session.py turbulence OUT                # 3 seeds beside PhysicsNeMo's SongUNet
    python benchmarks/gpu_session.py ensembles OUT                 # ensembles end to end; scores on a GPU
    python benchmarks/gpu_session.py precision OUT                 # fp8 by the row grf/dit, after its families stage
    python benchmarks/gpu_session.py demo OUT                      # candidates for the network of the demo
    python benchmarks/gpu_session.py apply OUT                     # the results in OUT to benchmarks/results

A stage takes the GPUs of CUDA_VISIBLE_DEVICES, or all, and has ended after ``--seconds`` whatever happens. What is in
benchmarks/results is not made again, but for family rows that are named and the rows AGAIN of speed.py. Every minute,
and at the end, all that there is goes to OUT/STAGE.tgz, and what was printed to OUT/STAGE-logs.tgz. ``--carried`` is a
folder of what a machine without a network cannot get: *.tar of trained teachers, gcm_speedy_t31_400days.nc, text/ of
tokens from the cache folder. Needs zarr, netCDF4, dask and pydantic; speed, turbulence and ensembles also
nvidia-physicsnemo and diffusers.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from families_crew import places
from families_experiment import Row

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKING, GRACE, LAST = 60.0, 5.0, 20.0  # seconds between two archives; to end in after a signal; for the end of a stage
# An H200's are of trainings that waited for the host at every step; beside a bare loop on the same card.
AGAIN = tuple(f"train/unet-recipe/64/{row}" for row in ("b128/sciffusion", "b16/sciffusion", "b128/bare"))
GPU_TESTS = (
    *("evaluation/test_gpu", "generation/test_gpu", "execution/test_accelerate", "execution/test_device"),
    *("execution/test_fp8", "execution/test_normals", "networks/test_fp8", "stages/test_execution"),
    *("training/test_compile", "training/test_module"),
)
NETWORKS = ("physicsnemo-songunet", "unet-100")  # of turbulence, the slowest first
CANDIDATES = ("weights,shipped", "deep,lean")  # of the demo's network


@dataclass(frozen=True)
class Command:
    """What Python is told, on which GPUs (all of the stage's without), and its name among the logs."""

    name: str
    words: Sequence[str]
    gpu: str | None = None


@dataclass(frozen=True)
class Plan:
    """What stages are made of: the arguments, the GPUs, and where results are made."""

    args: argparse.Namespace
    gpus: Sequence[str]
    made: Path
    end: float  # of time.monotonic

    @property
    def left(self) -> float:
        """Seconds for the commands; the rest is for the last archive."""
        return max(1.0, self.end - time.monotonic() - LAST)

    def shared(self, count: int) -> Iterator[tuple[int, str | None]]:
        """``count`` commands in turn on the GPUs."""
        return ((number, self.gpus[number % len(self.gpus)] if self.gpus else None) for number in range(count))


Stage = Callable[[Plan], Iterator[list[Command]]]


def tests(plan: Plan) -> Iterator[list[Command]]:
    files = [f"tests/{name}.py" for name in GPU_TESTS]
    yield [Command("tests", ["-m", "pytest", "-n", "0", "-q", "-m", "gpu", *files])]


def speed(plan: Plan) -> Iterator[list[Command]]:
    copied(plan, "speed.json")
    out, parts = ["benchmarks/speed.py", "--out", str(plan.made / "speed.json")], max(1, len(plan.gpus))
    what = ["--train", "--jobs", "6", "--minutes", f"{(plan.left - LAST) / 60:.2f}"]
    what += ["--again", *plan.args.again] if plan.args.again else []  # --again alone would mean every row
    what += ["--rows", *plan.args.rows.split(",")] if plan.args.rows else []
    yield [Command(f"speed{i}", [*out, *what, "--part", f"{i}/{parts}"], gpu) for i, gpu in plan.shared(parts)]
    yield [Command("merge", [*out, "--merge"])]


def families(plan: Plan) -> Iterator[list[Command]]:
    asked = [Row.named(text).name for text in plan.args.rows.split(",")]
    copied(plan, "families", without=asked)
    cache, keep = Path(os.environ["SCIFFUSION_CACHE"]), plan.args.work / "keep"
    keep.mkdir(parents=True, exist_ok=True)
    for teacher in plan.args.carried.glob("*.tar"):
        shutil.copy(teacher, keep)
    if (plan.args.carried / "text").is_dir():
        shutil.copytree(plan.args.carried / "text", cache / "text", dirs_exist_ok=True)
    words = ["benchmarks/families.py", "--rows", plan.args.rows, "--jobs", "3", "--minutes", "2"]
    words += ["--until", f"{plan.left - LAST / 2:.0f}", "--gcm", str(plan.args.carried / "gcm_speedy_t31_400days.nc")]
    words += ["--work", str(plan.args.work / "data"), "--out", str(plan.made / "families"), "--keep", str(keep)]
    words += ["--commit", plan.args.commit] if plan.args.commit else []
    yield [Command("families", [*words, *(["--continued"] if plan.args.continued else [])])]


def turbulence(plan: Plan) -> Iterator[list[Command]]:
    copied(plan, "turbulence")
    words = ["benchmarks/turbulence.py", "--seeds", "0,1,2", "--search", "3", "--samples", "12800"]
    words += ["--work", str(plan.args.work / "data"), "--out", str(plan.made / "turbulence")]
    words += ["--minutes", f"{plan.left / 60:.2f}"]
    if len(plan.gpus) < 2:
        yield [Command("turbulence", [*words, "--networks", ",".join(reversed(NETWORKS))])]
    else:
        yield [Command(NETWORKS[i], [*words, "--networks", NETWORKS[i]], gpu) for i, gpu in plan.shared(len(NETWORKS))]


def ensembles(plan: Plan) -> Iterator[list[Command]]:
    rows = ["one", "one_compiled", "cold", "host", "obvious_bfloat16"]
    made, limit = str(plan.made / "generation_gpu.json"), f"{plan.left - GRACE:.0f}"
    ensemble = ["benchmarks/generation.py", "--limit", limit, "--out", made, "--rows", *rows]
    scores = ["benchmarks/evaluation.py", "--gpu", "--out", str(plan.made / "evaluation_gpu.json")]
    steps = [Command(name, words, gpu) for (_, gpu), (name, words) in zip(
        plan.shared(2), {"scores": scores, "ensembles": ensemble}.items(), strict=True)]  # fmt: skip
    yield from [steps] if len(plan.gpus) > 1 else [[step] for step in steps]


def precision(plan: Plan) -> Iterator[list[Command]]:
    copied(plan, "precision.json")
    run, limit = plan.args.work / "data" / "runs" / "grf-dit-0", f"{plan.left / 2:.0f}"
    words = ["benchmarks/precision.py", str(run), "--compile", "--seconds", limit]
    yield [Command("precision", [*words, "--out", str(plan.made / "precision.json")])]


def demo(plan: Plan) -> Iterator[list[Command]]:
    words = ["benchmarks/demo_network.py", "--out", str(plan.made / "demo_network")]
    words += ["--work", str(plan.args.work / "data"), "--networks"]
    steps = [Command(f"demo{i}", [*words, CANDIDATES[i]], gpu) for i, gpu in plan.shared(len(CANDIDATES))]
    yield from [steps] if len(plan.gpus) > 1 else [[step] for step in steps]


STAGES: dict[str, Stage] = {
    "tests": tests,
    "speed": speed,
    "families": families,
    "turbulence": turbulence,
    "ensembles": ensembles,
    "precision": precision,
    "demo": demo,
}


def copied(plan: Plan, name: str, without: Sequence[str] = ()) -> None:
    """Begin with the results that there are."""
    source = RESULTS / name
    for path in [source] if source.is_file() else sorted(source.glob("*.*")):
        target = plan.made / path.relative_to(RESULTS)
        if path.stem not in without and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def perform(step: Sequence[Command], plan: Plan, pack: Callable[[], None]) -> None:
    """Run the commands side by side until they end or the time is over."""
    running = [(command.name, start(command, plan)) for command in step]
    packed, until = time.monotonic(), time.monotonic() + plan.left
    while any(process.poll() is None for _, process in running) and time.monotonic() < until:
        time.sleep(0.2)
        if time.monotonic() - packed > PACKING:
            pack()
            packed = time.monotonic()
    for name, process in running:
        end(process)
        print(f"{name}: ended with {process.returncode}", flush=True)


def start(command: Command, plan: Plan) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": command.gpu or ",".join(plan.gpus)}
    path = plan.args.work / "logs" / plan.args.stage / f"{command.name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        words, options = [sys.executable, *command.words], {"stdout": log, "stderr": subprocess.STDOUT}
        return subprocess.Popen(words, cwd=ROOT, env=environment, process_group=0, **options)


def end(process: subprocess.Popen[bytes]) -> None:
    """End it if it still runs, and what it has left behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def archive(folder: Path, path: Path, without: str | None = None) -> None:
    """``folder`` as one file, whole at any time, but for what is named ``without``."""
    part = path.with_suffix(".part")
    with tarfile.open(part, "w:gz") as packed:
        packed.add(folder, ".", filter=lambda member: None if Path(member.name).name == without else member)
    os.replace(part, path)


def apply(out: Path, results: Path = RESULTS) -> None:
    """Unpack the results of all stages."""
    for path in (path for name in STAGES if (path := out / f"{name}.tgz").is_file()):
        with tarfile.open(path) as packed:
            packed.extractall(results, filter="data")


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("stage", choices=[*STAGES, "apply"])
    add("out", type=Path)
    add("--seconds", type=float, default=570.0)
    add("--rows", help="comma-separated: PROBLEM/RECIPE[/SEED] of families, parts of names of speed")
    add("--continued", action="store_true", help="of the stage families: the same command follows on this machine")
    add("--again", nargs="*", default=AGAIN, metavar="PART", help="of the stage speed: rows to measure once more")
    add("--carried", type=Path, default=Path(".carried"))
    add("--work", type=Path, default=Path("gpu-session-work"), help="data, runs, logs, compiled code")
    add("--commit", help="written into family rows; default: that of the checkout")
    args = parser.parse_args(words)
    if args.stage == "families" and not args.rows:
        parser.error("the stage families needs --rows")
    args.out, args.work, args.carried = (path.resolve() for path in (args.out, args.work, args.carried))
    return args


def main() -> None:
    args, begun = arguments(), time.monotonic()
    if args.stage == "apply":
        apply(args.out)
        return
    os.environ.setdefault("SCIFFUSION_CACHE", str(args.work / "cache"))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    made, logs = args.work / "results" / args.stage, args.work / "logs" / args.stage
    for folder in (args.out, made, logs):
        folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(args, [place for place in places(None) if place is not None], made, begun + args.seconds)
    print(json.dumps({"stage": args.stage, "gpus": list(plan.gpus), "seconds": args.seconds}), flush=True)

    def pack() -> None:
        archive(made, args.out / f"{args.stage}.tgz", without="logs")
        if (made / "families" / "logs").is_dir():
            shutil.copytree(made / "families" / "logs", logs / "rows", dirs_exist_ok=True)
        archive(logs, args.out / f"{args.stage}-logs.tgz")

    for step in STAGES[args.stage](plan):
        perform(step, plan, pack)
    pack()
    for path in sorted(logs.glob("*.txt")):
        print(f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-12:], sep="\n")


if __name__ == "__main__":
    main()
