"""The networks that are timed: ours at three sizes and those that people use now, with one signature.

Every entry is ``make(channels, context, grid) -> network`` with ``network(x, c_noise, cond)``.
"""

from collections.abc import Callable, Sequence

import torch
from speed_peers import diffusers_unet, song_unet
from torch import Tensor, nn

from sciffusion.context import Context
from sciffusion.networks.dit import DiT
from sciffusion.networks.unet import UNet
from sciffusion.stage_settings import DiTSettings, UNetSettings

CHANNELS = 6
UNETS = {
    "toy": UNetSettings(channels=16, multipliers=[1, 2], blocks=1, embedding=16),
    "10": UNetSettings(channels=128, multipliers=[1, 2, 2], blocks=2, patch=2, dropout=0.0),
    "50": UNetSettings(channels=256, multipliers=[1, 2, 2, 2], blocks=2, patch=2, dropout=0.0),
    "100": UNetSettings(channels=384, multipliers=[1, 2, 2], blocks=2, patch=2, dropout=0.0),
    "recipe": UNetSettings(dropout=0.0),
    "fine": UNetSettings(channels=64, multipliers=[1, 4, 6], blocks=2, dropout=0.0),
    "shallow": UNetSettings(channels=256, multipliers=[1, 1, 2], blocks=3, patch=2, dropout=0.0),
}
DITS = {
    "toy": DiTSettings(width=64, depth=2, heads=2, patch=4, embedding=16),
    "10": DiTSettings(width=256, depth=10, heads=4, patch=8, dropout=0.0),
    "50": DiTSettings(width=640, depth=9, heads=10, patch=8, dropout=0.0),
    "100": DiTSettings(width=768, depth=12, heads=12, patch=8, dropout=0.0),
    "wide": DiTSettings(width=1280, depth=5, heads=10, patch=8, dropout=0.0),
}


Make = Callable[[int, int, Sequence[int]], nn.Module]


def ours(kind: type[UNet] | type[DiT], settings: UNetSettings | DiTSettings) -> Make:
    def make(channels: int, context: int, grid: Sequence[int]) -> nn.Module:
        boundary = ("periodic",) * len(grid)
        return kind(channels, channels, rank=len(grid), boundary=boundary, context_channels=context, settings=settings)

    return make


NETWORKS: dict[str, Make] = {
    **{f"unet-{size}": ours(UNet, settings) for size, settings in UNETS.items()},
    **{f"dit-{size}": ours(DiT, settings) for size, settings in DITS.items()},
    "unet-classic-50": ours(UNet, UNETS["50"].model_copy(update={"style": "classic"})),
    "unet-toy-classic": ours(UNet, UNETS["toy"].model_copy(update={"style": "classic"})),
    "physicsnemo-songunet": song_unet,
    "diffusers-unet2d": diffusers_unet,
}


def build(name: str, side: int) -> nn.Module:
    """The network of a speed row."""
    return NETWORKS[name](CHANNELS, CHANNELS, (side, side))


def draw(batch: int, grid: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Context]:
    x, extra = torch.randn(2, batch, CHANNELS, *grid, device=device)
    return x, torch.zeros(batch, device=device), Context(channels=extra)
