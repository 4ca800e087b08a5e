"""What a network costs and how far it sees, measured on the network itself."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree
from torch.utils.flop_counter import FlopCounterMode

from sciffusion.boundary import Boundary
from sciffusion.context import Context

__all__ = ["flops", "parameters", "reach"]


def flops(network: nn.Module, *inputs: Any) -> int:
    """Floating-point operations of one call (a multiply-add counts two) in convolutions, matrices and attention.

    Counted on shapes alone: nothing is computed, so a network for 2048 x 2048 cells is counted as fast as a small one.
    """
    shapes = copy.deepcopy(network).to("meta")
    inputs = _pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), inputs)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(*inputs)
    return int(counter.get_total_flops())


def parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def reach(network: Any, axis: int, grid: Sequence[int]) -> int:
    """Cells along ``axis`` from the middle cell to the furthest input that a UNet of this kind reads.

    Measured by the gradient of a copy in float64 with one channel per level, so that it takes no time; attention at
    any level reaches everywhere.
    """
    from sciffusion.networks.unet import UNet

    settings = network.settings.model_copy(
        update={"channels": 4, "embedding": 8, "dropout": 0.0, "style": "magnitude-preserving"}
    )
    torch.manual_seed(0)
    # Across a pole lies the opposite meridian: mirrors keep the count along the axis to what the kernels reach.
    boundary: list[Boundary] = ["reflect" if name == "pole" else name for name in network.boundary]
    probe = UNet(1, 1, rank=network.rank, boundary=boundary, settings=settings).double()
    nn.init.normal_(probe.head.weight)
    x = torch.randn(1, 1, *grid, dtype=torch.float64, requires_grad=True)
    middle = tuple(size // 2 for size in grid)
    answer = probe(x, torch.zeros(1), Context())
    (gradient,) = torch.autograd.grad(answer[(0, 0, *middle)], x)
    others = [dim for dim in range(len(grid)) if dim != axis % len(grid)]
    seen = torch.nonzero(gradient[0, 0].abs().amax(dim=others) if others else gradient[0, 0].abs())[:, 0]
    return int((seen - middle[axis]).abs().max())
