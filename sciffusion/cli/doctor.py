"""``sciffusion doctor``: what this installation consists of, and what is missing with its mend."""

import argparse
import os
import platform
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

from sciffusion import __version__, caches

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "print versions, device, threads and paths, and say what is missing"
EXAMPLE = "sciffusion doctor"
PACKAGE = Path(__file__).parents[1]
REINSTALL = "reinstall sciffusion: pip install --force-reinstall --no-deps sciffusion"
GIB = 2**30


class Finding(NamedTuple):
    """One line of the answer; ``mend`` is empty when there is nothing wrong."""

    name: str
    value: str
    mend: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def run(args: argparse.Namespace) -> int:
    """Print every finding. Returns 1 if something has to be mended."""
    faults = 0
    for title, section in SECTIONS.items():
        print(title)
        for finding in section():
            faults += bool(finding.mend)
            print(f"  {'!' if finding.mend else ' '} {finding.name:<20} {finding.value}")
            if finding.mend:
                print(f"      -> {finding.mend}")
    print(f"{faults} thing{'s' if faults != 1 else ''} to mend" if faults else "all is well")
    return 1 if faults else 0


def _system() -> Iterator[Finding]:
    yield Finding("sciffusion", f"{__version__} in {PACKAGE}")
    old = sys.version_info < (3, 11)
    yield Finding(
        "python", f"{platform.python_version()} at {sys.executable}", "use Python 3.11 or later" if old else ""
    )
    yield Finding("system", platform.platform())
    yield Finding("memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB:.1f} GiB")


def _packages() -> Iterator[Finding]:
    for requirement in _requirements():
        name = re.split(r"[\[<>=!~;\s]", requirement, maxsplit=1)[0]
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(name, "not installed", f"pip install '{requirement}'")
            continue
        yield Finding(name, found, "" if _satisfies(requirement, found) else f"pip install '{requirement}'")


def _requirements() -> list[str]:
    """What sciffusion needs to run: from the installed metadata, or from the source tree it is run from."""
    project = PACKAGE.parent / "pyproject.toml"
    if project.is_file():
        settings = tomllib.loads(project.read_text())
        return [str(line) for line in settings["project"]["dependencies"]]
    try:
        return [line for line in requires("sciffusion") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        return []


def _satisfies(requirement: str, found: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:  # then the line of the package that brings it already says what to install
        return True
    return Requirement(requirement).specifier.contains(found, prereleases=True)


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        torch = import_module("torch")
    except (ImportError, OSError) as error:
        yield Finding("torch", f"cannot be imported: {error}", "pip install --force-reinstall torch")
        return
    yield Finding(
        "cpu threads", f"{torch.get_num_threads()} of {cores} cores; OMP_NUM_THREADS={_variable('OMP_NUM_THREADS')}"
    )
    if not torch.cuda.is_available():
        yield Finding(
            "accelerator", f"none; everything runs on the CPU (torch built for {torch.version.cuda or 'cpu'})"
        )
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", f"{device.name}, {device.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}")


def _paths() -> Iterator[Finding]:
    yield _writable("cache", caches.cache_folder, f"set {caches.VARIABLE} to a folder that you may write to")
    yield _writable("working folder", Path.cwd, "change to a folder that you may write to")
    yield _writable(
        "temporary folder", lambda: Path(tempfile.gettempdir()), "set TMPDIR to a folder that you may write to"
    )


def _writable(name: str, folder: Callable[[], Path], mend: str) -> Finding:
    try:
        path = folder()
        with tempfile.TemporaryFile(dir=path):
            free = shutil.disk_usage(path).free / GIB
    except OSError as error:
        return Finding(name, str(error), mend)
    return Finding(name, f"{path} ({free:.1f} GiB free)", "make room on this disk" if free < 0.1 else "")


def _content() -> Iterator[Finding]:
    for name in ("conditioners", "datasets"):
        path = PACKAGE / name / "__init__.py"
        mend = "" if path.is_file() else f"{REINSTALL}; in a clone on Windows: git config core.symlinks true"
        yield Finding(f"sciffusion.{name}", "found" if not mend else "missing", mend)
    data = sorted((PACKAGE / "datasets" / "data").glob("*.nc"))
    yield Finding("embedded data", ", ".join(path.name for path in data) or "missing", "" if data else REINSTALL)
    models = sorted(path.parent for path in (PACKAGE / "pretrained").glob("*/model.json"))
    for model in models:
        whole = (model / "weights.safetensors").is_file()
        yield Finding("pretrained model", f"{model.name}{'' if whole else ': no weights'}", "" if whole else REINSTALL)
    if not models:
        yield Finding("pretrained model", "missing", REINSTALL)


def _variable(name: str) -> str:
    return os.environ.get(name, "not set")


SECTIONS = {"system": _system, "packages": _packages, "devices": _devices, "paths": _paths, "content": _content}
