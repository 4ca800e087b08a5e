"""Features of a vector that only a student is told: they begin without effect, and then have one of their own."""

import pytest
import torch

from sciffusion.context import Context
from sciffusion.networks.dit import DiT
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
        same = student(x, level, Context(vector=torch.cat([told, 0 * late], 1)))
    assert (moved > 1e-3).all()
    torch.testing.assert_close(same, expected)  # zeros say nothing: there is no bias
