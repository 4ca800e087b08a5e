"""Spaces that a denoiser may work in besides the codec's own: block means (cascades), codes of an autoencoder."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sciffusion.context import Context
from sciffusion.fields.codec import FieldCodec
from sciffusion.networks.resample import enlarge, pool
from sciffusion.stages.autoencoder import AutoencoderStage
from sciffusion.stages.frame import Space

__all__ = ["Code", "Pooled", "Vector", "space_of"]


class Pooled(Space):
    """Means over blocks of ``factor`` cells a side, in the codec's units."""

    plain = False

    def __init__(self, codec: FieldCodec, factor: int) -> None:
        super().__init__(codec)
        self.factor = factor
        self.shape = (self.shape[0], *(-(-cells // factor) for cells in self.shape[1:]))

    def encode(self, z: Tensor) -> Tensor:
        """Block means."""
        return pool(z, self.factor)

    def decode(self, v: Tensor, size: Sequence[int]) -> Tensor:
        """Interpolated, which is not the field but what of it is known."""
        return enlarge(v, self.factor, size, self.boundary)

    def cells(self, area: Tensor, valid: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """A block counts where any of its cells does."""
        spread = area.expand(*area.shape[:2], *valid.shape[2:])
        return pool(spread, self.factor), pool(valid.float(), self.factor) > 0

    def context(self, context: Context) -> Context:
        """Block means of the channels."""
        channels = None if context.channels is None else pool(context.channels, self.factor)
        valid = None if context.valid is None else pool(context.valid.float(), self.factor) > 0
        return Context(channels, context.vector, context.tokens, context.token_mask, valid)


class Code(Space):
    """The latent field of an autoencoder stage, which is not this space's own."""

    plain = False

    def __init__(self, codec: FieldCodec, coder: AutoencoderStage) -> None:
        super().__init__(codec)
        self.coder = coder
        self.shape = coder.output_shape

    def encode(self, z: Tensor) -> Tensor:
        """The mean of the code."""
        with torch.no_grad():
            mean: Tensor = self.coder.network.encode(z)[0]
        return mean

    def decode(self, v: Tensor, size: Sequence[int]) -> Tensor:
        """The field of the code."""
        return self.coder.decoded(v, size)

    def cells(self, area: Tensor, valid: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """All of the code counts alike."""
        return None, None

    def context(self, context: Context) -> Context:
        """Block means of the channels; every cell of the code exists."""
        factor = self.coder.network.factor
        channels = None if context.channels is None else pool(context.channels, factor)
        return Context(channels, context.vector, context.tokens, context.token_mask)

    def shown(self, v: Tensor, size: Sequence[int]) -> Context:
        """The code itself, interpolated to the grid of z."""
        return Context(channels=enlarge(v, self.coder.network.factor, size, self.boundary))


class Vector(Code):
    """The code vector of an autoencoder stage, as a grid of a single cell."""

    def __init__(self, codec: FieldCodec, coder: AutoencoderStage) -> None:
        super().__init__(codec, coder)
        self.boundary = ("constant",)

    def context(self, context: Context) -> Context:
        """As it is: the network summarises what lies on a grid. Every feature exists."""
        return Context(context.channels, context.vector, context.tokens, context.token_mask)

    def shown(self, v: Tensor, size: Sequence[int]) -> Context:
        """The vector."""
        return Context(vector=v[..., 0])

    @property
    def shows(self) -> tuple[int, int]:
        """Features only."""
        return 0, self.shape[0]


def space_of(settings: Any, codec: FieldCodec, earlier: Any) -> Space:
    """The space that a stage's settings name."""
    if settings.space is not None:
        coder = earlier[settings.space]
        return (Code if coder.settings.network.vector is None else Vector)(codec, coder)
    return Space(codec) if settings.coarsen == 1 else Pooled(codec, settings.coarsen)
