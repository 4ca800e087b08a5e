"""Compiled training takes the steps of eager training."""

import pytest
import torch

import sciffusion as sf
from tests.tiny import tiny_data, tiny_experiment


def trained(folder, data, compile):
    experiment = tiny_experiment(data, folder, steps=3, validate_every=3, compile=compile, validation_members=0)
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


@pytest.mark.slow
def test_a_regression_whose_batches_vary_in_size_is_not_compiled(tmp_path):
    experiment = tiny_experiment(tiny_data(tmp_path / "data.nc"), tmp_path / "run", steps=3, compile=True)
    network = experiment["stages"][0]["network"] | {"multipliers": [1]}
    stages = [{"name": "regression", "baseline": "coarse"}, {"name": "denoiser", "constraint": "coarse"}]
    experiment |= {"recipe": "corrdiff", "stages": [stage | {"network": network} for stage in stages]}
    frames = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    sf.train(experiment, progress=False)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == frames + 1  # of the denoiser
