"""What every command has in common, and what ``doctor`` and ``demo`` refuse or report before any work."""

import errno
import os
import subprocess
import sys
import types

import pytest

import sciffusion
from sciffusion import cli
from sciffusion.cli import demo, doctor
from sciffusion.errors import SciffusionError


@pytest.fixture
def command(monkeypatch):
    """A command whose run is given by the test."""
    module = types.SimpleNamespace(HELP="h", EXAMPLE="e", add_arguments=lambda parser: None, run=lambda args: 0)
    monkeypatch.setattr(cli, "COMMANDS", ("probe",))
    monkeypatch.setattr(cli, "import_module", lambda name: module)
    return module


def raising(error):
    def run(args):
        raise error

    return run


def test_an_error_that_the_user_can_mend_ends_with_2_and_no_traceback(command, capsys, monkeypatch):
    monkeypatch.delenv("SCIFFUSION_TRACEBACK", raising=False)
    command.run = raising(SciffusionError("x.nc: empty", "copy it again"))
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err == "sciffusion probe: x.nc: empty\n  -> copy it again\n"


def test_a_traceback_can_be_asked_for(command, monkeypatch):
    monkeypatch.setenv("SCIFFUSION_TRACEBACK", "1")
    command.run = raising(SciffusionError("x.nc: empty"))
    with pytest.raises(SciffusionError):
        cli.main(["probe"])


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "free some space there"),
        (errno.EROFS, "choose an output on a disk that can be written"),
        (errno.EACCES, "see that you may read and write there"),
    ],
)
def test_what_a_file_system_refuses_ends_with_2_and_says_what_to_do(command, capsys, monkeypatch, number, mend):
    monkeypatch.delenv("SCIFFUSION_TRACEBACK", raising=False)
    command.run = raising(OSError(number, os.strerror(number), "run/a.ckpt"))
    assert cli.main(["probe"]) == 2
    assert f"run/a.ckpt: {os.strerror(number)}\n  -> {mend}" in capsys.readouterr().err
    command.run = raising(FileNotFoundError(errno.ENOENT, "No such file", "a"))
    with pytest.raises(FileNotFoundError):
        cli.main(["probe"])


def test_an_interrupt_ends_with_130_and_one_line(command, capsys):
    command.run = raising(KeyboardInterrupt())
    assert cli.main(["probe"]) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("lines", [1, 100_000])  # in the buffer until the end, and more than a pipe holds
def test_a_reader_that_has_gone_ends_it_quietly(lines):
    code = "\n".join(
        [
            "import sys; from sciffusion import cli; from sciffusion.cli import doctor",
            f"doctor.run = lambda args: [print('x' * 80) for _ in range({lines})] and 0",
            "sys.stdin.read(); sys.exit(cli.main(['doctor']))",  # begins when its reader has gone
        ]
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes, text=True) as process:
        process.stdout.close()
        process.stdin.close()
        assert (process.wait(), process.stderr.read()) == (141, "")


def test_a_broken_pipe_of_another_kind_is_not_hidden(command):
    command.run = raising(BrokenPipeError(errno.EPIPE, "a worker has gone"))
    with pytest.raises(BrokenPipeError):
        cli.main(["probe"])


def test_other_errors_are_not_hidden(command):
    command.run = raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["probe"])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_every_command_has_an_example_of_itself(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"example:\n  sciffusion {name}" in capsys.readouterr().out


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"sciffusion {sciffusion.__version__}\n"


def findings(section):
    return {finding.name: finding for finding in section()}


def test_the_doctor_names_a_missing_package_and_one_that_is_too_old(monkeypatch):
    monkeypatch.setattr(doctor, "_requirements", lambda: ["numpy>=2.1", "numpy-of-tomorrow", "pydantic>=999"])
    found = findings(doctor._packages)
    assert found["numpy"].mend == ""
    assert found["numpy-of-tomorrow"].mend == "pip install 'numpy-of-tomorrow'"
    assert found["pydantic"].mend == "pip install 'pydantic>=999'"


def test_the_doctor_sees_that_the_cache_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "file"))
    assert "SCIFFUSION_CACHE" in findings(doctor._paths)["cache"].mend


def test_the_doctor_sees_what_the_package_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path)
    (tmp_path / "pretrained" / "half").mkdir(parents=True)
    (tmp_path / "pretrained" / "half" / "model.json").touch()
    found = findings(doctor._content)
    assert {name for name, finding in found.items() if finding.mend} == set(found)


def test_the_doctor_ends_with_1_if_something_is_missing(monkeypatch, capsys):
    sections = {"packages": lambda: iter([doctor.Finding("torch", "not installed", "pip install torch")])}
    monkeypatch.setattr(doctor, "SECTIONS", sections)
    assert cli.main(["doctor"]) == 1
    assert "-> pip install torch" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "SECTIONS", {"system": lambda: iter([doctor.Finding("python", "3.12")])})
    assert cli.main(["doctor"]) == 0


@pytest.mark.parametrize("wrong", [["--members", "1"], ["--times", "0"]])
def test_the_demo_refuses_numbers_that_make_no_ensemble(wrong, tmp_path, capsys):
    assert cli.main(["demo", "--output", str(tmp_path / "new"), *wrong]) == 2
    assert wrong[0] in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_demo_leaves_a_folder_of_others_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "MODEL", tmp_path)
    (tmp_path / "thesis.tex").touch()
    assert cli.main(["demo", "--output", str(tmp_path)]) == 2
    assert "another folder" in capsys.readouterr().err
