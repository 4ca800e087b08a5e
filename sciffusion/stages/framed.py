"""A stage whose network learns in a frame: how it is conditioned, told the boundary, cut into tiles and called.

Earlier outputs are shown to the network with some noise where the settings say so; how members are drawn with the
denoiser made of the network is said by the subclasses.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciffusion import config
from sciffusion.boundary import Boundary
from sciffusion.context import Context
from sciffusion.diffusion import parameterization
from sciffusion.diffusion.denoiser import Denoiser, Masked, Preconditioned, Wrapper, expand
from sciffusion.diffusion.tiling import Tiled, tile_boundary
from sciffusion.execution.transfer import to_device
from sciffusion.stages.base import Parts
from sciffusion.stages.frame import Frame
from sciffusion.stages.items import Item
from sciffusion.stages.networked import NetworkStage, without_output
from sciffusion.stages.spaces import Vector, space_of

__all__ = ["FramedStage", "Learned", "frame_of"]

_TILES = 8  # per call of the network, at least


@dataclass(frozen=True)
class Learned:
    """A batch in the frame: target y (batch, channel, *grid), its conditioning, weights and validity of its cells."""

    y: Tensor
    context: Context
    area: Tensor | None
    valid: Tensor | None


def frame_of(settings: Any, parts: Parts) -> Frame:
    """The frame that the settings describe, with nothing measured yet."""
    baseline = without_output(settings.baseline) if parts.earlier and settings.baseline else None
    return Frame(space_of(settings, parts.codec, parts.earlier), baseline)


class FramedStage(NetworkStage):
    """A denoiser of the frame's y, conditioned on ``settings.inputs``."""

    settings: config.DenoiserStage | config.FlowMapStage

    def __init__(
        self,
        settings: config.DenoiserStage | config.FlowMapStage,
        parts: Parts,
        frame: Frame | None = None,
    ) -> None:
        super().__init__(settings, parts)
        self.frame = frame or frame_of(settings, parts)
        augmented = int(settings.augmentation.largest > 0)  # its level is a feature
        network = self.make_network(self.frame.space, features=augmented, late=self.late_features(settings))
        self.parameterization = parameterization.by_name(settings.parameterization)
        self.denoiser = Masked(Preconditioned(network, self.parameterization, dof=settings.noise.dof or math.inf))

    @staticmethod
    def late_features(settings: Any) -> int:
        """Features that the network is told besides those of a denoiser, at the end of the vector."""
        return 0

    @property
    def network(self) -> Any:
        """What the preconditioning wraps."""
        return self.denoiser.denoiser.network

    def accelerated(self, size: Sequence[int], settings: config.Sampler | None = None, batch: int = 1) -> Denoiser:
        """The denoiser of fields of ``size``, of tiles if the settings say so, in its fast form if there is one.

        Not for training.
        """
        sides = [min(cells, (settings and settings.tile) or cells) for cells in size]
        names = self.frame.space.boundary
        cut = tuple(sides) != tuple(size)
        self._bound(tile_boundary(size, sides, names) if cut else names)
        fast = self.fast(self.denoiser)
        denoiser: Denoiser = self.denoiser if fast is self.denoiser else _Called(self.denoiser, fast)
        if not cut or settings is None:
            return denoiser
        overlap = min(sides) // 4 if settings.overlap is None else settings.overlap
        shared = [overlap if side < cells else 0 for side, cells in zip(sides, size, strict=True)]
        return Tiled(denoiser, sides, shared, names, batch=max(_TILES, batch))

    def _bound(self, names: tuple[Boundary, ...]) -> None:
        """Let the network know another boundary than it knows now, keeping its form."""
        if tuple(self.network.boundary) != names and not isinstance(self.frame.space, Vector):
            execution = self.execution
            super().set_boundary(names)
            if execution is not None:
                self.prepare_network(execution)

    def networks(self) -> Sequence[Any]:
        """The one."""
        return [self.network]

    def calls(self) -> Sequence[tuple[Any, Callable[..., Any]]]:
        """The whole denoiser, so that the arithmetic around the network is recorded and compiled with it."""
        return [(self.network, self.denoiser)]

    def set_boundary(self, names: tuple[Boundary, ...]) -> None:
        """Tell the network and the space; a code vector has none."""
        if len(names) == len(self.frame.space.boundary) and not isinstance(self.frame.space, Vector):
            super().set_boundary(names)
            self.frame.space.boundary = names

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(channel, *grid) of the space."""
        return self.frame.space.shape

    def learn(self, batch: Mapping[str, Any], keep: Tensor, generator: torch.Generator | None = None) -> Learned:
        """A batch of training samples in the frame; conditions are dropped where ``keep`` is False.

        ``generator`` draws the noise of the augmentation; None: torch's own.
        """
        outputs = self.truths(batch)
        size = batch["z"].shape[2:]
        context = self.encode(batch["inputs"], keep, batch["mask"])
        level = to_device(_uniform(len(keep), generator), keep.device) * self.settings.augmentation.largest
        noises = {name: _normal(outputs[name], generator) for name in self.given if self.settings.augmentation.largest}
        context = self.told(context, outputs, size, level, noises)
        space = self.frame.space
        area, valid = space.cells(batch["area"], batch["valid"])
        y = self.frame.target(self.truth(batch), outputs)
        return Learned(y, space.context(context), area, valid)

    def told(
        self,
        context: Context,
        outputs: Mapping[str, Tensor],
        size: Sequence[int],
        level: Tensor,
        noises: Mapping[str, Tensor],
    ) -> Context:
        """The conditions joined by the outputs given, these with noise of ``level`` (batch,), which is told too.

        An output v becomes (v + level n) / sqrt(1 + level^2), of unit variance still (Ho et al. 2021, cascaded
        diffusion, arXiv:2106.15282, section 4).
        """
        if not self.settings.augmentation.largest or not self.given:
            return self.joined(context, outputs, size)
        shown = []
        for name in self.given:
            stage, column = self.earlier[name], expand(level, outputs[name])
            noisy = (stage.standard(outputs[name]) + column * noises[name]) / torch.sqrt(1 + column**2)
            shown.append(stage.shown(noisy, size))
        return Context.merge([context, *shown, Context(vector=level[:, None])])

    def truth(self, batch: Mapping[str, Any]) -> Tensor:
        """The field itself, in this stage's space."""
        with torch.no_grad():
            return self.frame.space.encode(batch["z"])

    def item_context(
        self, items: Sequence[Item], outputs: Mapping[str, Tensor], seed: int, *, keep: bool = True
    ) -> Context:
        """The conditioning of each item; without ``keep`` what the network is told when every condition is dropped."""
        cases, order = self.per_item(items)
        context = self.context(cases, keep=keep).map(lambda value: value.index_select(0, order))
        size = self.codec.valid_cells(cases[0].window).shape[1:]
        level = torch.full((len(items),), self.settings.augmentation.sampling, device=self.device)
        noises = {}
        if self.settings.augmentation.largest:
            stream = f"into {self.name}"
            noises = {n: self.earlier[n].noise(items, seed=seed, stream=stream).to(self.device) for n in self.given}
        return self.frame.space.context(self.told(context, outputs, size, level, noises))

    def field(self, output: Tensor) -> Tensor:
        """The output decoded to the codec's space."""
        return self.frame.space.decode(output, self.codec.grid.shape)

    def standard(self, output: Tensor) -> Tensor:
        """Mean 0 and sd 1."""
        return self.frame.standard(output)

    def shown(self, output: Tensor, size: Sequence[int]) -> Context:
        """The output as conditioning of a later stage."""
        return self.frame.space.shown(output, size)

    @property
    def shows(self) -> tuple[int, int]:
        """Channels and features of `shown`."""
        return self.frame.space.shows


class _Called(Wrapper):
    """``denoiser`` by way of ``function``, another form of its forward: recorded, compiled."""

    def __init__(self, denoiser: Denoiser, function: Callable[..., Tensor]) -> None:
        super().__init__(denoiser)
        self.function = function

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """E[x0 | x]."""
        return self.function(x, sigma, cond)


def _uniform(count: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(count, generator=generator)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return to_device(torch.randn(like.shape, generator=generator), like.device).to(like.dtype)
