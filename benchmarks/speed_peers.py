"""Networks that people use now, under our signature and in their best mode; imported where they are installed.

PhysicsNeMo's package imports much that its SongUNet does not use (Warp kernels, cloud storage, other models). Empty
modules stand in for it during the import, so that its wheel alone is enough; the network itself is complete.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from sciffusion.context import Context

UNUSED = (
    *("warp", "s3fs", "tensordict", "nvtx", "timm"),
    *(f"physicsnemo.models.{name}" for name in ("dit", "domino", "mlp")),
)


class Foreign(nn.Module):
    """Another package's network under our signature."""

    def __init__(self, network: nn.Module, call: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, x: Tensor, c_noise: Tensor, cond: Context | None = None) -> Tensor:
        parts = x if cond is None or cond.channels is None else torch.cat([x, cond.channels], dim=1)
        return self.call(self.network, parts, c_noise)


def song_unet(channels: int, context: int, grid: Sequence[int]) -> nn.Module:
    """PhysicsNeMo's SongUNet with its defaults, without dropout.

    ``amp_mode`` keeps it from casting weights under autocast; its other fast setting, ``use_apex_gn``, needs apex.
    """
    with stand_ins(UNUSED):
        build = import_module("physicsnemo.models.diffusion_unets").SongUNet
    sizes = {"img_resolution": list(grid), "in_channels": channels + context, "out_channels": channels}
    network = build(**sizes, amp_mode=True, dropout=0.0)
    for seen in (torch.zeros(1, 1), nn.Parameter(torch.zeros(1, 1))):
        # einops notes the types it has seen, for which torch would compile the network once more after its first call
        import_module("einops").rearrange(seen, "a b -> b a")
    return Foreign(network, lambda net, x, noise: net(x, noise, None))


def diffusers_unet(channels: int, context: int, grid: Sequence[int]) -> nn.Module:
    """UNet2DModel of diffusers with 46 M parameters and attention at the two inner levels only."""
    network = import_module("diffusers").UNet2DModel(
        sample_size=tuple(grid),
        in_channels=channels + context,
        out_channels=channels,
        block_out_channels=(128, 128, 256, 384),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    return Foreign(network, lambda net, x, noise: net(x, noise).sample)


class Blank:
    """Anything of a stand-in: a class to inherit from, a decorator, a function without effect."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> "Blank":
        return Blank()

    def __getattr__(self, name: str) -> "Blank":
        if name.startswith("__"):
            raise AttributeError(name)
        return Blank()


class StandIn(ModuleType):
    """An empty module that has every name."""

    __path__ = ()

    def __getattr__(self, name: str) -> type[Blank]:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Blank,), {})


class Finder:
    """Finds stand-ins for packages named ``roots`` and everything in them."""

    def __init__(self, roots: Sequence[str]) -> None:
        self.roots = tuple(roots)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        mine = name in self.roots or name.startswith(tuple(f"{root}." for root in self.roots))
        return ModuleSpec(name, self, is_package=True) if mine else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


@contextmanager
def stand_ins(roots: Sequence[str]) -> Iterator[None]:
    """Within it, ``roots`` are empty modules; afterwards nobody else finds them."""
    finder = Finder(roots)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, StandIn)]:
            del sys.modules[name]
