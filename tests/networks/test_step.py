"""How far one step of training moves a magnitude-preserving network: no further for being wide."""

import pytest
import torch

from sciffusion.networks.layers import Linear, lengthen
from sciffusion.networks.unet import UNet
from sciffusion.stage_settings import UNetSettings

RATE, MOST = 1e-4, 16
PERIODIC = ("periodic", "periodic")


def after_one_step(module, answer, gain):
    """``answer()`` before and after one step of Adam up the gradient of ``gain(answer())``."""
    before = answer()
    gain(before).backward()
    torch.optim.Adam(module.parameters(), lr=RATE, maximize=True).step()
    with torch.no_grad():
        return before.detach(), answer()


@pytest.mark.parametrize("inputs", [4, 64, 1024])
@pytest.mark.parametrize("bounded", [True, False])
def test_a_step_of_adam_changes_an_answer_by_the_rate_times_the_bound_at_most(inputs, bounded):
    torch.manual_seed(0)
    layer = Linear(inputs, 5, normalised=True)
    x = torch.randn(1, inputs).sign()  # of unit root mean square, and the direction that a step favours
    fresh = layer(x)
    lengthen(layer, MOST if bounded else float("inf"))
    torch.testing.assert_close(layer(x), fresh)  # what acts is the same
    before, after = after_one_step(layer, lambda: layer(x), torch.sum)
    change = (after - before).abs().max()
    if bounded or inputs <= MOST:
        assert change <= 1.01 * RATE * min(inputs, MOST)  # to first order in the rate
    else:
        assert change > 2 * RATE * MOST  # else nothing had to be bounded


def moved(channels, unit):
    """Root mean square change of the decoder's features by a step towards larger ones."""
    torch.manual_seed(0)
    settings = UNetSettings(channels=channels, multipliers=[1, 1], blocks=1, dropout=0.0, embedding=32)
    network = UNet(2, 2, rank=2, boundary=PERIODIC, settings=settings)
    x, seen = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1)), []
    network.decoder[0].register_forward_hook(lambda _, __, out: seen.append(out))
    if unit:
        lengthen(network, float("inf"))

    def features():
        network(x, torch.zeros(2))
        return seen[-1]

    before, after = after_one_step(network, features, torch.mean)
    return before, (after - before).square().mean().sqrt()


def test_a_step_of_training_moves_a_wide_unet_no_further_than_a_narrow_one():
    _, narrow = moved(128, unit=False)
    features, wide = moved(512, unit=False)
    same, untamed = moved(512, unit=True)
    torch.testing.assert_close(features, same, rtol=1e-4, atol=1e-4)  # the answer does not depend on the rows' norms
    assert wide < 1.5 * narrow  # 1.08
    assert untamed > 3 * narrow  # rows of unit norm: in proportion to the width, 4.7
