"""What tests of several rooms need."""

import shutil
import subprocess

import pytest


@pytest.fixture
def small_disk(tmp_path):
    """Four MiB of tmpfs; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]).returncode
    ):
        pytest.skip("no right to mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
