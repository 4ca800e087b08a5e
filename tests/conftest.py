"""What tests of several rooms need; and nothing in them hangs on chance, on their order or on the machine's speed."""

import math
import random
import shutil
import subprocess

import hypothesis
import numpy as np
import pytest
import torch

from sciffusion.fields import checks, survey

# the same examples in every run, however long the machine takes to draw and to try them
hypothesis.settings.register_profile(
    "fixed",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("fixed")

checks.SECONDS = survey.SECONDS = math.inf  # what is concluded from data hangs on how much of it was looked at


def seed_all():
    """Generators that all share begin anew: which tests a worker ran before, and which fixtures it made, is chance."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup():
    seed_all()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    seed_all()


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
