"""The networks that are timed: ours at three sizes and those that people use now, with one signature.

Every entry is ``build(grid) -> network`` with ``network(x, c_noise, cond)``: 6 channels of field and 6 of context to 6.
"""

from collections.abc import Callable, Sequence
from importlib import import_module

import torch
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
}
DITS = {
    "toy": DiTSettings(width=32, depth=2, heads=2, patch=4, embedding=16),
    "10": DiTSettings(width=256, depth=10, heads=4, patch=8, dropout=0.0),
    "50": DiTSettings(width=640, depth=9, heads=10, patch=8, dropout=0.0),
    "100": DiTSettings(width=768, depth=12, heads=12, patch=8, dropout=0.0),
}


def ours(kind: type[UNet] | type[DiT], settings: UNetSettings | DiTSettings) -> Callable[[Sequence[int]], nn.Module]:
    def build(grid: Sequence[int]) -> nn.Module:
        boundary = ("periodic",) * len(grid)
        return kind(CHANNELS, CHANNELS, rank=len(grid), boundary=boundary, context_channels=CHANNELS, settings=settings)

    return build


class Foreign(nn.Module):
    """Another package's network under our signature."""

    def __init__(self, network: nn.Module, call: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, x: Tensor, c_noise: Tensor, cond: Context | None = None) -> Tensor:
        parts = x if cond is None or cond.channels is None else torch.cat([x, cond.channels], dim=1)
        return self.call(self.network, parts, c_noise)


def song_unet(grid: Sequence[int]) -> nn.Module:
    """PhysicsNeMo's SongUNet with its defaults, wherever the installed version keeps it."""
    for place in ("physicsnemo.models.diffusion_unets", "physicsnemo.models.diffusion"):
        try:
            build = import_module(place).SongUNet
            break
        except (ImportError, AttributeError):
            continue
    else:
        raise ImportError("nvidia-physicsnemo is not installed")
    network = build(img_resolution=list(grid), in_channels=2 * CHANNELS, out_channels=CHANNELS)
    return Foreign(network, lambda net, x, noise: net(x, noise, None))


def diffusers_unet(grid: Sequence[int]) -> nn.Module:
    """UNet2DModel of diffusers with 46 M parameters and attention at the two inner levels only."""
    widths = (64, 128, 256, 256)
    network = import_module("diffusers").UNet2DModel(
        sample_size=tuple(grid),
        in_channels=2 * CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    return Foreign(network, lambda net, x, noise: net(x, noise).sample)


NETWORKS: dict[str, Callable[[Sequence[int]], nn.Module]] = {
    **{f"unet-{size}": ours(UNet, settings) for size, settings in UNETS.items()},
    **{f"dit-{size}": ours(DiT, settings) for size, settings in DITS.items()},
    "unet-classic-50": ours(UNet, UNETS["50"].model_copy(update={"style": "classic"})),
    "unet-toy-classic": ours(UNet, UNETS["toy"].model_copy(update={"style": "classic"})),
    "physicsnemo-songunet": song_unet,
    "diffusers-unet2d": diffusers_unet,
}


def draw(batch: int, grid: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Context]:
    x, extra = torch.randn(2, batch, CHANNELS, *grid, device=device)
    return x, torch.zeros(batch, device=device), Context(channels=extra)
