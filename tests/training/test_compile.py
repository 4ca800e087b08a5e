"""Compiled training takes the steps of eager training."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import sciffusion as sf
from sciffusion import config
from sciffusion.datasets.draws import DrawSpace
from sciffusion.diffusion.distillation import ContinuousConsistency, MeanFlow
from sciffusion.diffusion.flowmap import FlowMap
from sciffusion.diffusion.sigmas import NoiseRange
from sciffusion.training.compiling import compile_networks, repays
from sciffusion.training.module import StageModule
from sciffusion.training.teacher import distilled
from tests.tiny import tiny_data, tiny_experiment


def trained(folder, data, compile, **train):
    options = {"steps": 3, "validate_every": 3, "validation_members": 0} | train
    experiment = tiny_experiment(data, folder, compile=compile, **options)
    experiment["stages"][0]["network"] |= {"dropout": 0.0, "multipliers": [1]}  # dropout draws otherwise when compiled
    return sf.train(experiment, progress=False).stage.network


@pytest.mark.slow
def test_compiled_training_takes_the_same_steps(tmp_path):
    data = tiny_data(tmp_path / "data.nc")
    frames = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    eager = trained(tmp_path / "eager", data, False).state_dict()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == frames
    compiled = trained(tmp_path / "compiled", data, True).state_dict()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == frames + 1  # validation runs eagerly
    assert eager.keys() == compiled.keys()
    apart = torch.cat([(compiled[name] - eager[name]).flatten() for name in eager])
    # three steps of Adam move a weight by 2e-3 or so; where a gradient is nearly 0, rounding chooses the direction
    assert float(apart.square().mean().sqrt()) < 3e-4


@pytest.mark.gpu
def test_recorded_training_takes_the_same_steps(tmp_path, monkeypatch):
    """As above, in float32; the first step is as it is, the second is recorded, the others are replayed."""
    replays, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(graph), replay(graph)))
    data, how = tiny_data(tmp_path / "data.nc"), {"accelerator": "cuda", "precision": "32-true", "steps": 6}
    eager = trained(tmp_path / "eager", data, False, **how).state_dict()
    compiled = trained(tmp_path / "compiled", data, True, **how).state_dict()
    assert len(replays) >= 2 * 4  # forwards and backwards
    apart = torch.cat([(compiled[name] - eager[name]).flatten() for name in eager])
    assert float(apart.square().mean().sqrt()) < 6e-4


class Noted(nn.Module):
    """Notes how it is compiled."""

    def compile(self, *, dynamic, mode):
        self.how = (dynamic, mode)


@pytest.mark.parametrize(
    ("device", "cells", "mode"),
    [
        ("cuda", 2**20, "reduce-overhead"),
        ("cuda", 2**20 + 1, None),  # the GPU has enough to do
        ("cuda", None, None),
        ("cpu", 1, None),
    ],
)
def test_small_steps_of_a_gpu_are_replayed_as_graphs(device, cells, mode):
    network = Noted()
    compile_networks([network], cells, torch.device(device))
    assert network.how == (False, mode)


@pytest.mark.parametrize(("once", "world", "cells"), [(True, 1, 7 * 64 * 64), (False, 1, None), (True, 2, None)])
def test_cells_of_a_batch_count_where_one_process_calls_its_network_once(once, world, cells):
    space = DrawSpace(5, (64, 128), (64, 64), (True, True), (False, False), (False, False))
    trainer = SimpleNamespace(world_size=world, datamodule=SimpleNamespace(training=SimpleNamespace(space=space)))
    module = SimpleNamespace(once=once, trainer=trainer, settings=config.TrainSettings(batch_size=7))
    assert StageModule._cells(module) == cells


@pytest.mark.parametrize(
    ("settings", "device", "wanted"),
    [
        ({}, "cuda", True),  # 10,000 steps
        ({}, "cpu", False),
        ({"steps": 1999}, "cuda", False),
        ({"minutes": 5}, "cuda", True),
        ({"minutes": 4.9}, "cuda", False),
        ({"compile": True, "steps": 1}, "cpu", True),
        ({"compile": False}, "cuda", False),
    ],
)
def test_long_trainings_on_gpus_are_compiled(settings, device, wanted):
    assert repays(config.TrainSettings(**settings), torch.device(device)) is wanted


@pytest.fixture
def no_compiler(monkeypatch):
    def failing(graph, inputs):
        raise RuntimeError("no C compiler")

    own = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda network, **_: own(network, backend=failing))


def test_where_the_compiler_fails_training_goes_on_and_says_why(tmp_path, no_compiler, caplog):
    data = tiny_data(tmp_path / "data.nc")
    eager = trained(tmp_path / "eager", data, False).state_dict()
    fallen = trained(tmp_path / "fallen", data, True).state_dict()
    (line,) = [record.message for record in caplog.records if record.name.startswith("sciffusion.training.compiling")]
    assert "no C compiler" in line
    assert all(torch.equal(fallen[name], eager[name]) for name in eager)  # the same draws in the first step


def test_where_the_compiler_fails_a_student_and_its_teacher_go_on(tmp_path, no_compiler, caplog):
    trained(tmp_path / "teacher", tiny_data(tmp_path / "data.nc"), False)
    settings = distilled(tmp_path / "teacher", "progressive", 1, str(tmp_path / "student"))
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"compile": True})})
    sf.train(settings, progress=False)
    assert [record.name for record in caplog.records].count("sciffusion.training.compiling") == 1


class Damped(FlowMap):
    """A map of one parameter, whose runs in compiled form are counted."""

    def __init__(self):
        super().__init__()
        self.rate, self.runs = nn.Parameter(torch.tensor(0.5)), 0
        self.network = torch.compile(lambda x: self.rate * x.sin(), backend=self.backend, dynamic=False)

    def backend(self, graph, inputs):
        def run(*arguments):
            self.runs += 1
            return graph(*arguments)

        return run

    def average(self, x, sigma, sigma_to, cond=None):
        return self.network(x)


@pytest.mark.parametrize("objective", [ContinuousConsistency, MeanFlow])
def test_a_derivative_leaves_a_compiled_network_compiled(objective):
    """Torch runs what it was asked a forward derivative of as it is, from then on."""
    torch._dynamo.reset()
    student, field = Damped(), torch.linspace(-1, 1, 20).reshape(2, 1, 10)
    for _ in range(3):
        objective(noise=NoiseRange())(student, field).mean().backward()
    assert student.runs == 3


def test_the_teacher_of_a_compiled_student_is_compiled_too(tmp_path, monkeypatch):
    trained(tmp_path / "teacher", tiny_data(tmp_path / "data.nc"), False)
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda network, **_: compiled.append(network))
    settings = distilled(tmp_path / "teacher", "progressive", 1, str(tmp_path / "student"))
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"compile": True})})
    sf.train(settings, progress=False)
    assert len({id(network) for network in compiled}) == 2


@pytest.mark.slow
def test_a_regression_whose_batches_vary_in_size_is_not_compiled(tmp_path):
    experiment = tiny_experiment(tiny_data(tmp_path / "data.nc"), tmp_path / "run", steps=3, compile=True)
    network = experiment["stages"][0]["network"] | {"multipliers": [1]}
    stages = [{"name": "regression", "baseline": "coarse"}, {"name": "denoiser", "constraint": "coarse"}]
    experiment |= {"recipe": "corrdiff", "stages": [stage | {"network": network} for stage in stages]}
    frames = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    sf.train(experiment, progress=False)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == frames + 1  # of the denoiser
