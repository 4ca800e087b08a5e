"""Every stage in training: the layout of its weights on a GPU, and the seeds of a step."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import sciffusion as sf
from sciffusion.training import module
from sciffusion.training.module import seed_step
from tests.tiny import tiny_data, tiny_experiment, write_experiment

ROOT = Path(__file__).parents[2]


def strides(value):
    """Along axes of more than one entry: the others' say nothing."""
    return [step for step, size in zip(value.stride(), value.shape, strict=True) if size > 1]


class Layouts(pl.Callback):
    """Notes of every step whether gradients, averages and moments lie in memory as their weights do."""

    def __init__(self):
        self.alike, self.last = [], 0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        weights = {name: value for name, value in pl_module.stage.named_parameters() if value.ndim == 4}
        for name, weight in weights.items():
            moments = [optimizer.state[weight][key] for key in ("exp_avg", "exp_avg_sq") if optimizer.state[weight]]
            like = [weight.grad, pl_module.ema.average[name], *moments]
            self.alike.append(all(strides(other) == strides(weight) for other in like))
        self.last = sum(value.is_contiguous(memory_format=torch.channels_last) for value in weights.values())


def experiment(folder, data, steps, **train):
    settings = tiny_experiment(data, folder, steps=steps, validate_every=3, validation_members=0, **train)
    settings["stages"][0]["network"]["dropout"] = 0.0  # it is drawn in the order of the memory
    return settings


def trained(folder, data, steps, **train):
    noted = Layouts()
    network = sf.train(experiment(folder, data, steps, **train), progress=False, callbacks=[noted]).stage.network
    assert noted.alike
    assert all(noted.alike)
    convolutions = [value for value in network.parameters() if value.ndim == 4]
    return network.state_dict(), noted.last, len(convolutions)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Train on the host in the layout of a GPU from now on."""
    return lambda: monkeypatch.setattr(module, "device_of", lambda settings: torch.device("cuda"))


def test_the_layout_of_a_gpu_is_that_of_all_that_follows_the_weights(tmp_path, as_on_a_gpu):
    """Three steps, and three more in another process, which may have another kind of device."""
    data = tiny_data(tmp_path / "data.nc")
    for folder in ("plain", "moved"):
        trained(tmp_path / folder, data, 3)
    plain, _, _ = trained(tmp_path / "plain", data, 6)
    as_on_a_gpu()
    trained(tmp_path / "laid", data, 3)
    for folder in ("laid", "moved"):
        laid, last, convolutions = trained(tmp_path / folder, data, 6)
        assert last == convolutions
        # by rounding alone: six steps of Adam move a weight by 4e-3 or so, in the direction of a sign that may turn
        assert max(float((laid[name] - plain[name]).square().mean().sqrt()) for name in plain) < 2e-4


@pytest.mark.gpu
def test_what_a_host_has_begun_goes_on_on_a_gpu(tmp_path):
    """Whose fused optimiser refuses moments that lie otherwise in memory than their weights."""
    begun = experiment(tmp_path / "run", tiny_data(tmp_path / "data.nc"), 3, accelerator="auto")
    path = write_experiment(tmp_path / "experiment.yaml", begun)
    words = [sys.executable, "-m", "sciffusion", "train", str(path), "--no-progress"]
    subprocess.run(words, cwd=ROOT, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=True)
    _, last, convolutions = trained(tmp_path / "run", tmp_path / "data.nc", 6, accelerator="auto")
    assert last == convolutions


def test_a_step_is_seeded_as_by_torch_but_without_a_look_at_the_stack(monkeypatch):
    high, low = np.random.SeedSequence([3, 7, 1]).generate_state(2, np.uint32)
    torch.manual_seed(int(high) << 31 | int(low) >> 1)
    wanted = torch.rand(5)

    def noted(*args):
        raise AssertionError("the stack was noted")

    monkeypatch.setattr(traceback, "format_stack", noted)
    seed_step(3, 7, 1, torch.device("cpu"))
    assert torch.equal(torch.rand(5), wanted)
