"""Costs are counted by theory where theory is simple."""

import torch

from sciffusion.networks.cost import flops, parameters, reach
from sciffusion.networks.layers import Conv
from sciffusion.networks.unet import UNet
from sciffusion.stage_settings import UNetSettings


def test_a_convolution_costs_two_operations_per_weight_and_cell():
    conv = Conv(5, 7, 2, normalised=True)
    boundary = ("periodic", "periodic")
    assert flops(conv, torch.zeros(2, 5, 8, 6), boundary) == 2 * parameters(conv) * 2 * 8 * 6


def test_a_huge_grid_is_counted_without_computing():
    conv = Conv(64, 64, 2, normalised=True)
    assert flops(conv, torch.zeros(1, 64, 1, 1).expand(1, 64, 4096, 4096), ("reflect", "periodic")) > 1e12


def test_the_reach_is_that_of_the_kernels():
    settings = UNetSettings(channels=4, multipliers=[1], blocks=1, embedding=8)
    network = UNet(2, 2, rank=2, boundary=("pole", "periodic"), settings=settings)
    assert reach(network, axis=-1, grid=(9, 32)) == 4  # stem, two convolutions of the block, head
    patched = UNet(2, 2, rank=1, boundary=("periodic",), settings=settings.model_copy(update={"patch": 2}))
    assert reach(patched, axis=0, grid=(64,)) in (8, 9)  # four patches of two cells, counted from either of the two
