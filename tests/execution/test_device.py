"""A device is found by name, or its absence is said with a mend."""

import pytest
import torch

from sciffusion.errors import SciffusionError
from sciffusion.execution.device import describe_device, resolve_device


def test_without_a_name_the_gpu_is_taken_where_there_is_one():
    assert resolve_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("auto") == resolve_device(None)


def test_the_cpu_is_always_there_and_says_what_it_is():
    assert resolve_device("cpu") == torch.device("cpu")
    assert "CPU" in describe_device(torch.device("cpu"))


@pytest.mark.parametrize("name", ["gpu", "cudo:0", "mps"])
def test_an_unknown_device_is_named_with_those_that_are_known(name):
    with pytest.raises(SciffusionError, match="cuda:<number>"):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_one_clear_error():
    with pytest.raises(SciffusionError, match="no CUDA GPU"):
        resolve_device("cuda")


@pytest.mark.gpu
def test_a_gpu_that_does_not_exist_is_refused():
    with pytest.raises(SciffusionError, match="does not exist"):
        resolve_device("cuda:99")
