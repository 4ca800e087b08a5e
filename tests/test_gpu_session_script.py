"""The stages for GPU machines: commands are understood, what does not end is ended, results come home."""

import argparse
import importlib
import json
import tarfile
import time
from pathlib import Path

import pytest

SCRIPTS = ("speed", "families", "turbulence", "generation", "evaluation", "precision", "demo_network")


@pytest.fixture
def session(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    return importlib.import_module("gpu_session")


def plan(session, folder, stage, gpus=(), seconds=500.0, *more):
    args = session.arguments([stage, str(folder / "out"), "--work", str(folder / "work"), *more])
    made = folder / "work" / "results"
    for path in (args.out, made, args.work / "logs" / stage):
        path.mkdir(parents=True, exist_ok=True)
    return session.Plan(args, gpus, made, time.monotonic() + seconds)


ROWS = ("--rows", "grf/flow,kolmogorov/edm,grf/edm/1")


@pytest.mark.parametrize("gpus", [(), ("0",), ("0", "1"), ("4", "5", "6", "7")])
@pytest.mark.parametrize("stage", ["tests", "speed", "families", "turbulence", "ensembles", "precision", "demo"])
def test_every_command_is_understood_and_every_gpu_has_work(session, tmp_path, monkeypatch, stage, gpus):
    more = ROWS if stage == "families" else ()
    steps = list(session.STAGES[stage](plan(session, tmp_path, stage, gpus, 500.0, *more)))
    for command in (command for step in steps for command in step):
        script, *words = command.words
        name = script.removeprefix("benchmarks/").removesuffix(".py")
        if name in SCRIPTS:
            monkeypatch.setattr("sys.argv", [script, *words])
            importlib.import_module(name).arguments()  # exits where it does not understand
        else:
            assert all((session.ROOT / word).is_file() for word in words if word.startswith("tests/"))
    used = {command.gpu for step in steps for command in step} - {None}
    assert used <= set(gpus)
    if stage == "speed" and gpus:
        assert used == set(gpus)


def test_without_rows_to_repeat_none_is_repeated(session, tmp_path):
    """``--again`` alone would mean all of them."""
    args = session.arguments(["speed", str(tmp_path), "--again", "--work", str(tmp_path / "work")])
    steps = session.speed(session.Plan(args, (), tmp_path / "work" / "results", 1000.0))
    assert "--again" not in next(steps)[0].words


def test_rows_that_are_asked_for_are_made_and_others_are_kept(session, tmp_path):
    made = plan(session, tmp_path, "families", (), 500.0, *ROWS)
    list(session.families(made))
    found = {path.name for path in (made.made / "families").iterdir()}
    assert {"grf-edm-0.json", "grf-edm-0.nc"} <= found
    assert not {"grf-flow-0.json", "grf-flow-0.nc"} & found


class Clock:
    """Stands still until ``ready``, and is then beyond every end."""

    def __init__(self, ready):
        self.ready, self.sleep = ready, time.sleep

    def monotonic(self):
        return 1e9 if self.ready() else 0.0


def test_what_does_not_end_is_ended_and_what_there_is_is_packed(session, tmp_path, monkeypatch):
    """One command writes a result and waits for ever, as does a child of it; one fails; one ends."""
    made = session.Plan(plan(session, tmp_path, "speed").args, (), tmp_path / "work" / "results", 1000.0)
    result, logs = made.made / "speed.json", made.args.work / "logs" / "speed"
    child = "import time; print('child', flush=True); time.sleep(9999)"
    wait = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    step = [
        session.Command("endless", ["-c", f"open({str(result)!r}, 'w').write('{{}}'); {wait}"]),
        session.Command("failing", ["-c", "raise SystemExit('no such thing')"]),
        session.Command("quick", ["-c", "print('done')"]),
    ]
    said = {"endless": "child", "failing": "no such thing", "quick": "done"}

    def ready():
        texts = {path.stem: path.read_text() for path in logs.glob("*.txt")}
        return all(text in texts.get(name, "") for name, text in said.items())

    monkeypatch.setattr(session, "time", Clock(ready))
    session.perform(step, made, lambda: None)
    session.archive(made.made, made.args.out / "speed.tgz")
    session.archive(logs, made.args.out / "speed-logs.tgz")
    with tarfile.open(made.args.out / "speed-logs.tgz") as packed:
        files = [member for member in packed if member.isfile()]
        texts = {Path(member.name).stem: packed.extractfile(member).read().decode() for member in files}
    assert all(text in texts[name] for name, text in said.items())
    session.apply(made.args.out, tmp_path / "applied")
    assert json.loads((tmp_path / "applied" / "speed.json").read_text()) == {}


def test_families_need_rows(session):
    with pytest.raises(SystemExit):
        session.arguments(["families", "out"])
    assert isinstance(session.arguments(["tests", "out"]), argparse.Namespace)
