"""The rows of `generation.py`, each run in a process of its own that is ended when it takes too long."""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
OWN = ("memory", "out", "rows", "until", "part")  # options that concern the main process alone


def run(args: argparse.Namespace, part: str, **changes: object) -> dict:
    """Row ``part``; {"error": ...} when it failed or took longer than is left."""
    left = args.until - time.monotonic()
    if left < 5:
        return {"error": "not begun: no time was left"}
    if part == "cold":
        return cold(args)
    if part.startswith("obvious"):
        try:
            import diffusers  # noqa: F401
        except ImportError as error:
            return {"error": f"diffusers cannot be imported: {error}"}
    values = {**vars(args), "limit": left, **changes}
    options = [f"--{name.replace('_', '-')}={v}" for name, v in values.items() if v is not None and name not in OWN]
    done = finished([__file__.replace("_rows", ""), *options, f"--part={part}"], args.until)
    return done if isinstance(done, dict) else json.loads(done.splitlines()[-1])


def finished(words: list[str], until: float) -> str | dict:
    """What ``python words`` printed; {"error": ...}, with all of stderr shown, when it failed or was ended."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command, pipe = [sys.executable, *words], subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as child:
        try:
            out, err = child.communicate(timeout=None if until == float("inf") else max(1.0, until - time.monotonic()))
            what = "" if child.returncode == 0 else f"exit {child.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, err = child.communicate()
            what = "ended: no time was left"
    if not what:
        return out
    print(f"--- {' '.join(words)}: {what}\n{out}{err}", file=sys.stderr, flush=True)
    return {"error": f"{what}: {(err.strip().splitlines() or [''])[-1]}"}


def peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def rates(found: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in found.items()}


def engine(args: argparse.Namespace) -> dict:
    """`generate` against the network alone."""
    from generation_job import draws_only, job, network_only

    from sciffusion.execution.device import resolve_device
    from sciffusion.fields.ensemble import EnsembleStore
    from sciffusion.generation import generate

    emulator, conditions, cases = job(args.folder, args.cases)
    device, store = resolve_device(args.device), args.folder / "engine.zarr"
    options = {"device": str(device), "batch_size": args.batch, "progress": False, "overwrite": True}
    one = {"time": cases["time"].start}
    warm = generate(emulator, conditions, args.folder / "warm.zarr", args.members, cases=one, **options)
    execution = EnsembleStore(warm).execution
    shutil.rmtree(warm)
    check = emulator.check(conditions, cases)
    before = network_only(emulator, check, execution, device, args.budget)
    drawn = draws_only(emulator, check, execution, device, args.budget)
    count = int(min(args.cases, max(1, args.seconds * drawn // args.members)))
    emulator, conditions, cases = (emulator, *job(args.folder, count)[1:])
    start = time.perf_counter()
    generate(emulator, conditions, store, args.members, cases=cases, **options)
    seconds, peak, execution = time.perf_counter() - start, peak_mib(), EnsembleStore(store).execution
    after = network_only(emulator, check, execution, device, args.budget)
    rate, faults = args.members * count / seconds, len(EnsembleStore(store).verify())
    shutil.rmtree(store)
    own = {name: execution[name] for name in ("batch_size", "precision", "compiled")}
    found = {"seconds": seconds, "members_per_s": rate, "network_members_per_s": after, "share": rate / after}
    more = {"network_before_members_per_s": before, "without_writing_members_per_s": drawn}
    return {"cases": count, **own, **rates(found | more), "peak_rss_mib": peak, "faults": faults}


def one(args: argparse.Namespace) -> dict:
    """Members per second of one case by `generate` in a process that has done it before, writing included."""
    from generation_job import job

    from sciffusion.execution.device import resolve_device
    from sciffusion.fields.ensemble import EnsembleStore
    from sciffusion.generation import generate

    (emulator, conditions, cases), store = job(args.folder, 1), args.folder / "one.zarr"
    options = {"device": str(resolve_device(args.device)), "batch_size": args.batch, "progress": False}
    options |= {"cases": cases, "overwrite": True, "compile": args.part.endswith("compiled")}
    size = EnsembleStore(generate(emulator, conditions, store, 1, **options)).execution["batch_size"]
    generate(emulator, conditions, store, min(size, args.one_case), **options)
    start = time.perf_counter()
    generate(emulator, conditions, store, args.one_case, **options)
    seconds, execution = time.perf_counter() - start, EnsembleStore(store).execution
    faults = len(EnsembleStore(store).verify())
    shutil.rmtree(store)
    own = {name: execution[name] for name in ("batch_size", "precision", "compiled")}
    found = rates({"seconds": seconds, "members_per_s": args.one_case / seconds})
    return {"members": args.one_case, **own, **found, "faults": faults}


def footprint(args: argparse.Namespace) -> dict:
    """Peak memory of a process that makes the job."""
    from generation_job import job

    from sciffusion.generation import generate

    emulator, conditions, cases = job(args.folder, args.cases)
    options = {"device": "cpu", "batch_size": args.batch, "progress": False, "cases": cases}
    shutil.rmtree(generate(emulator, conditions, args.folder / f"{args.cases}.zarr", args.members, **options))
    return {"peak_rss_mib": peak_mib()}


def cold(args: argparse.Namespace) -> dict:
    """Seconds from starting the program to a verified store of one case."""
    import numpy as np
    from generation_job import FIRST, TRAINING

    store, day = args.folder / "cold.zarr", str(FIRST + np.timedelta64(TRAINING, "D"))[:10]
    shutil.rmtree(store, ignore_errors=True)
    words = ["-m", "sciffusion", "generate", str(args.folder / "emulator"), "--output", str(store)]
    words += ["--conditions", str(args.folder / "fields.nc"), "--select", f"time={day}", "--quiet"]
    words += ["--members", str(args.one_case), *(["--device", args.device] if args.device else [])]
    words += ["--batch-size", str(args.batch)] if args.batch else []
    start, seconds = time.perf_counter(), []
    for command in (words, ["-m", "sciffusion", "inspect", str(store), "--verify"]):
        done = finished(command, args.until)
        if isinstance(done, dict):
            return {"members": args.one_case, **done}
        seconds.append(round(time.perf_counter() - start, 2))
    shutil.rmtree(store)
    rate = round(args.one_case / seconds[0], 2)
    return {"members": args.one_case, "generate_s": seconds[0], "verified_s": seconds[1], "members_per_s": rate}


def host(args: argparse.Namespace) -> dict:
    """`generate` with a pretended device: how much the host can do, and how busy it keeps a device."""
    from generation_job import job, pretend

    from sciffusion.generation import generate

    emulator, conditions, cases = job(args.folder, min(args.cases, 4))
    size, count, found = args.batch or 16, min(args.cases, 4) * args.members, {}
    options = {"cases": cases, "device": "cpu", "batch_size": size, "progress": False, "overwrite": True}
    for name, seconds in (("warm", 0.0), ("most", 0.0), ("busy", args.pretend / 1000)):
        pretend(emulator, seconds)
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        store = generate(emulator, conditions, args.folder / "host.zarr", args.members, **options)
        rate, after = count / (time.perf_counter() - start), resource.getrusage(resource.RUSAGE_SELF)
        spent = {use: getattr(after, use) - getattr(before, use) for use in ("ru_utime", "ru_stime", "ru_nvcsw")}
        found[name] = rate, spent
        shutil.rmtree(store)
    share = found["busy"][0] * args.pretend / 1000
    most, spent = found["most"]
    own = {"members": count, "most_members_per_s": most, "user_ms_per_member": 1000 * spent["ru_utime"] / count}
    own |= {"system_ms_per_member": 1000 * spent["ru_stime"] / count, "waits_per_member": spent["ru_nvcsw"] / count}
    return rates({**own, "pretended_ms": args.pretend, "members_per_s": found["busy"][0], "share": share})


def obvious(args: argparse.Namespace) -> dict:
    """The same job for fewer members, written as it usually is."""
    from generation_job import job, the_obvious_way

    from sciffusion.execution.device import resolve_device

    lower = args.part.endswith("bfloat16")
    emulator, conditions, cases = job(args.folder, min(4, args.cases))
    check, device = emulator.check(conditions, cases), resolve_device(args.device)
    size, store = args.batch or (16 if device.type == "cuda" else 4), args.folder / "obvious.zarr"
    one = emulator.check(conditions, {"time": check.cases[0].values["time"]})
    for _ in range(2):  # the first time libraries choose their algorithms
        start = time.perf_counter()
        the_obvious_way(emulator, one, size, size, store, device, lower=lower)
        rate = size / (time.perf_counter() - start)
    count = int(min(len(check.cases), max(1, args.budget * 3 * rate // args.members)))
    members = int(min(args.members, max(size, args.budget * 3 * rate)))
    check = emulator.check(*job(args.folder, count)[1:])
    start = time.perf_counter()
    the_obvious_way(emulator, check, members, size, store, device, lower=lower)
    rate = members * count / (time.perf_counter() - start)
    own = {"cases": count, "members": members, "batch": size}
    return {**own, **rates({"members_per_s": rate}), "peak_rss_mib": peak_mib()}


PARTS = {
    **{"engine": engine, "one": one, "one_compiled": one, "footprint": footprint, "host": host},
    **{"obvious": obvious, "obvious_bfloat16": obvious},
}
