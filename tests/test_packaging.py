"""The built packages: what they contain, that they work away from the repository, and how large they are."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import sciffusion

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
pytestmark = pytest.mark.slow
LARGEST = 20e6  # bytes of the wheel: ERA5 and statics 7 MB, weights at most 8 MB, baselines, code


def tracked():
    """Files of the repository, as a clone would have them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The tracked files alone, symlinks kept: nothing that lies about by chance gets into a package."""
    folder = tmp_path_factory.mktemp("clone")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def build(source, target, kind):
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (package,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return package


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory):
    return build(clone, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel's content; its dependencies are those of the running environment."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(command, capture_output=True, check=True)
    return target


def run(installed, *command, cwd):
    environment = os.environ | {"PYTHONPATH": str(installed), "SCIFFUSION_CACHE": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def source_modules():
    """Every module of the package, by its place in a wheel."""
    names = [name for name in tracked() if name.endswith((".py", ".yaml", ".css", ".nc", ".json", ".safetensors"))]
    top = {"conditioners", "datasets"}
    inside = {f"sciffusion/{name}" if name.split("/")[0] in top else name for name in names}
    return {name for name in inside if name.startswith("sciffusion/")}


def test_the_wheel_holds_every_module_once_and_the_data(wheel, record_property):
    files = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert len(files) == len(set(files))
    assert source_modules() <= set(files)
    assert {name.split("/")[0] for name in files} == {"sciffusion"}
    record_property("wheel_bytes", wheel.stat().st_size)
    print(f"wheel: {wheel.stat().st_size / 1e6:.1f} MB")
    assert wheel.stat().st_size < LARGEST


def test_the_wheel_carries_licence_and_notice(wheel):
    names = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" in name}
    assert {"LICENSE", "NOTICE", "entry_points.txt"} <= names


def test_a_wheel_built_from_the_sdist_is_the_same(clone, wheel, tmp_path):
    sdist = build(clone, tmp_path, "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "again", "wheel")
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_the_installed_package_is_the_one_imported(installed, tmp_path):
    code = "import sciffusion.datasets, sciffusion.conditioners; print(sciffusion.datasets.__file__)"
    done = run(installed, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_embedded_data_open_from_the_installed_package(installed, tmp_path):
    code = "import sciffusion as sf; print(dict(sf.datasets.open_example('era5').sizes))"
    done = run(installed, "-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "{'time': 24, 'latitude': 181, 'longitude': 360}", done.stderr


def test_the_doctor_finds_nothing_wrong_with_the_installed_package(installed, tmp_path):
    done = run(installed, "-m", "sciffusion", "doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(installed) in done.stdout


def test_the_demo_runs_from_the_installed_package(installed, tmp_path):
    done = run(installed, "-m", "sciffusion", "demo", "--members", "2", "--times", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "demo-output" / "report.html").stat().st_size > 100_000


def test_version_is_stated_once_more_only_where_a_format_asks_for_it():
    citation = (ROOT / "CITATION.cff").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert PROJECT["version"] == sciffusion.__version__
    assert f"version: {sciffusion.__version__}\n" in citation
    assert f"[{sciffusion.__version__}]" in changelog
