"""Where a denoiser's target lives, and how it is scaled there.

    y = (v - b - m) / s,      v = space.encode(z)                                              (1)

with z the field in the codec's units, b the output of an earlier stage (or 0), m and s the channel's mean and sd of
v - b over the training cases, so that sigma_data = 1 as everywhere. With neither a space nor b it is z itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sciffusion.boundary import Boundary
from sciffusion.context import Context
from sciffusion.fields.codec import FieldCodec

__all__ = ["Frame", "Measured", "Space"]


class Space:
    """Base of the spaces; this one is the codec's own. ``shape`` is (channel, *grid) on the whole domain.

    plain : whether v is z, which needs no scaling of its own.
    """

    plain = True

    def __init__(self, codec: FieldCodec) -> None:
        self.shape: tuple[int, ...] = (len(codec.channels), *codec.grid.shape)
        self.boundary: tuple[Boundary, ...] = codec.grid.boundary()

    @property
    def rank(self) -> int:
        """Number of grid axes."""
        return len(self.shape) - 1

    def encode(self, z: Tensor) -> Tensor:
        """V of fields (batch, channel, *grid)."""
        return z

    def decode(self, v: Tensor, size: Sequence[int]) -> Tensor:
        """Fields of ``size`` from v: the inverse of `encode`, as far as there is one."""
        return v

    def cells(self, area: Tensor, valid: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Weights and validity of the cells of v, from those of z."""
        return area, valid

    def context(self, context: Context) -> Context:
        """Conditioning on the grid of z, brought to that of v."""
        return context

    def shown(self, v: Tensor, size: Sequence[int]) -> Context:
        """V as conditioning of another stage, on the grid of z."""
        return Context(channels=self.decode(v, size))

    @property
    def shows(self) -> tuple[int, int]:
        """Channels and vector features of `shown`."""
        return self.shape[0], 0


@dataclass(frozen=True)
class Measured:
    """What is measured on the training cases in a frame: m and s (channel,), and the rms of the leading mode of y."""

    offset: Tensor
    scale: Tensor
    leading_rms: float


class Frame(nn.Module):
    """Equation (1). ``baseline`` names the stage whose output is b."""

    offset: Tensor
    scale: Tensor

    def __init__(self, space: Space, baseline: str | None = None) -> None:
        super().__init__()
        self.space, self.baseline = space, baseline
        self.plain = space.plain and baseline is None
        if not self.plain:
            self.register_buffer("offset", torch.zeros(space.shape[0]))
            self.register_buffer("scale", torch.ones(space.shape[0]))

    def set(self, measured: Measured) -> None:
        """Take m and s."""
        self.offset.copy_(measured.offset)
        self.scale.copy_(measured.scale)

    def target(self, v: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Y of v (batch, channel, *grid), given the outputs of earlier stages."""
        if self.plain:
            return v
        return (v - self._shift(v, outputs)) / self._column(self.scale, v)

    def value(self, y: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """V of y: the inverse of `target`."""
        return y if self.plain else self._shift(y, outputs) + self._column(self.scale, y) * y

    def standard(self, v: Tensor) -> Tensor:
        """V with mean 0 and sd 1 over the training cases, where that is known (without b)."""
        if self.plain or self.baseline is not None:
            return v
        return (v - self._column(self.offset, v)) / self._column(self.scale, v)

    def _shift(self, like: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        offset = self._column(self.offset, like)
        return offset if self.baseline is None else outputs[self.baseline].to(like) + offset

    def shift(self, like: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """The field b + m that is added to s y, in the shape of ``like``."""
        return torch.zeros_like(like) if self.plain else self._shift(like, outputs).expand_as(like)

    def _column(self, values: Tensor, like: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (like.ndim - 2)).to(like)
