"""The first signal asks, the second insists; the exit status tells a batch script to queue the job again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sciffusion import stopping
from sciffusion.cli import main
from sciffusion.fields.ensemble import EnsembleStore
from sciffusion.generation import generate
from tests.generation.fake import FakeEmulator, conditions, expected
from tests.generation.test_kill import contents

ROOT = Path(__file__).parents[1]
DATA = ROOT / "datasets" / "data"


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_the_first_signal_asks_and_the_second_insists(number):
    with stopping.listening():
        os.kill(os.getpid(), number)
        assert stopping.requested()
        with pytest.raises(stopping.Stopped) as stop:
            stopping.check()
        assert stop.value.code == 85
        with pytest.raises(stopping.Stopped):
            kill_and_wait(number)


def kill_and_wait(number):
    os.kill(os.getpid(), number)
    time.sleep(1)


def test_requests_end_with_the_block_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with stopping.listening():
        with stopping.listening():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert stopping.requested()
    assert signal.getsignal(signal.SIGTERM) is before
    with stopping.listening():
        assert not stopping.requested()


def test_a_stopped_generation_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    emulator = FakeEmulator()

    def draw(*args):
        if len(emulator.drawn) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return FakeEmulator._part(emulator, *args)

    monkeypatch.setattr(emulator, "_part", draw)
    options = {"batch_size": 3, "device": "cpu", "progress": False}
    with pytest.raises(stopping.Stopped):
        generate(emulator, conditions(), tmp_path / "e.zarr", 3, **options)
    assert len(emulator.drawn) == 6
    generate(emulator, conditions(), tmp_path / "e.zarr", 3, **options)
    assert len(emulator.drawn) == 12
    generate(FakeEmulator(), conditions(), tmp_path / "whole.zarr", 3, **options)
    assert contents(tmp_path / "e.zarr") == contents(tmp_path / "whole.zarr")
    assert expected().sizes["member"] == 3


def test_a_signal_while_the_program_is_loading_is_not_lost(tmp_path):
    """The import of torch takes seconds; a signal in that time is answered after the first batch."""
    script = (
        "import os, signal, sys\n"
        "from sciffusion.cli import generate, main\n"
        "parse = generate.parse_members\n"
        "generate.parse_members = lambda text: os.kill(os.getpid(), signal.SIGUSR1) or parse(text)\n"
        "assert 'torch' not in sys.modules\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    model = ROOT / "sciffusion" / "pretrained" / "era5_week"
    store = tmp_path / "e.zarr"
    words = ["generate", str(model), "--baseline", "climatology", "--output", str(store), "--members", "9"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, cwd=DATA, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 85, done.stderr
    assert 0 < EnsembleStore(store).completed().sum() < 54


def test_the_command_line_ends_with_85(monkeypatch, capsys):
    from sciffusion.cli import inspect

    def stopped(args):
        raise stopping.Stopped

    monkeypatch.setattr(inspect, "run", stopped)
    assert main(["inspect", "x"]) == 85
    assert "the same command goes on" in capsys.readouterr().err
