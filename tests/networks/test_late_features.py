"""Levels that only a student is told: they begin without effect, and then are heeded as the noise level is."""

import pytest
import torch

from sciffusion.context import Context
from sciffusion.networks.blocks import Embedding
from sciffusion.networks.dit import DiT
from sciffusion.networks.layers import Fourier
from sciffusion.networks.mlp import MLP
from sciffusion.networks.unet import UNet
from sciffusion.stage_settings import DiTSettings, MLPSettings, UNetSettings

NETWORKS = {
    UNet: (UNetSettings(channels=8, multipliers=[1, 2], blocks=1, embedding=16, dropout=0.0), 2),
    DiT: (DiTSettings(width=16, depth=1, heads=2, patch=4, embedding=16), 2),
    MLP: (MLPSettings(width=16, depth=1, embedding=16), 1),
}


def made(kind, **features):
    settings, rank = NETWORKS[kind]
    torch.manual_seed(0)
    network = kind(2, 2, rank=rank, boundary=("periodic",) * rank, settings=settings, **features).eval()
    for parameter in network.parameters():  # layers that begin at zero would hide what comes before them
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize("known", [0, 3])
@pytest.mark.parametrize("kind", NETWORKS)
def test_late_features_begin_without_effect_and_come_last(kind, known):
    teacher, student = made(kind, vector_features=known), made(kind, vector_features=known, late_features=2)
    missing, unexpected = student.load_state_dict(teacher.state_dict(), strict=False)
    assert {name.split(".")[-2] for name in missing} == {"late"}
    assert unexpected == []
    rank = NETWORKS[kind][1]
    x, level = torch.randn(4, 2, *((8, 8) if rank == 2 else (1,))), torch.randn(4)
    told, late = torch.randn(4, known), torch.randn(4, 2)
    fresh = kind(2, 2, rank=rank, boundary=("periodic",) * rank, settings=NETWORKS[kind][0], late_features=2)
    student.embedding.late.load_state_dict(fresh.embedding.late.state_dict())  # as a new network has it
    both = Context(vector=torch.cat([told, late], 1))
    with torch.no_grad():
        expected = teacher(x, level, Context(vector=told) if known else Context())
        torch.testing.assert_close(student(x, level, both), expected)
        student.embedding.late.weight.normal_()
        moved = (student(x, level, both) - expected).abs().flatten(1).amax(1)
    assert (moved > 1e-3).all()


def test_a_late_feature_is_told_in_the_waves_of_the_noise_level():
    """With the noise level's weights it has the noise level's effect: near levels are as far apart as there."""
    teacher, student = Embedding(8, 0, 16, normalised=False), Embedding(8, 0, 16, normalised=False, late_features=1)
    student.load_state_dict(teacher.state_dict(), strict=False)
    student.late.load_state_dict(teacher.noise.state_dict())
    torch.nn.init.zeros_(student.noise.weight)
    torch.nn.init.zeros_(student.noise.bias)
    level, other = torch.linspace(-1.5, 1.0, 5), torch.randn(5, 8)
    torch.testing.assert_close(student(other, level[:, None]), teacher(Fourier(8)(level), None))
