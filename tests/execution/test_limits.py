"""What a description declares is refused before it is allocated."""

import pytest
import torch
from torch import nn

from sciffusion.errors import SciffusionError
from sciffusion.execution.limits import AllocationLimit

MEGA = 2**20


@pytest.mark.parametrize(
    "make",
    [
        lambda n: torch.empty(n),
        lambda n: torch.zeros(n, 1),
        lambda n: torch.ones((n,), dtype=torch.float64),
        lambda n: torch.randn(n),
        lambda n: torch.full((n,), 2.0),
        lambda n: nn.Linear(n, 1),
        lambda n: nn.Parameter(torch.rand(n, 1)),
    ],
)
def test_factories_are_counted_before_they_allocate(make):
    with AllocationLimit(10 * MEGA, "model"):
        make(MEGA)
        with pytest.raises(SciffusionError, match=r"model: describes a model of more than 0\.0 GiB"):
            make(2**42)  # would be 16 TiB


def test_the_limit_is_for_all_of_them_together():
    with AllocationLimit(10 * MEGA, "model"):
        for _ in range(10):
            torch.empty(MEGA // 4)
        with pytest.raises(SciffusionError):
            torch.empty(MEGA // 4)


def test_within_the_limit_nothing_changes():
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 4, 3)
    torch.manual_seed(0)
    with AllocationLimit(MEGA, "model"):
        limited = nn.Conv2d(3, 4, 3)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), limited.parameters(), strict=True))
    assert torch.equal(plain(torch.ones(1, 3, 5, 5)), limited(torch.ones(1, 3, 5, 5)))
