"""The autoencoder stage: a code for the codec's fields, in which later stages are trained and sampled.

It draws nothing. What it loses no later stage can bring back: its own error, the reconstruction floor, is measured when
it has been trained and goes on the model's card.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from sciffusion import config
from sciffusion.networks.autoencoder import Autoencoder
from sciffusion.stages.base import Parts
from sciffusion.stages.networked import NetworkStage

__all__ = ["AutoencoderStage"]


class AutoencoderStage(NetworkStage):
    """Encoder and decoder of the codec's fields. Its conditioner, if any, serves the baseline only."""

    kind: ClassVar[str] = "autoencoder"
    draws: ClassVar[bool] = False
    direct: ClassVar[bool] = True
    settings: config.AutoencoderStage
    settings_type: ClassVar[type[config.Settings]] = config.AutoencoderStage

    def __init__(self, settings: config.AutoencoderStage, parts: Parts) -> None:
        super().__init__(settings, parts)
        codec, grid = parts.codec, parts.codec.grid
        self.network = Autoencoder(
            len(codec.channels), rank=grid.rank, boundary=grid.boundary(), settings=settings.network
        )

    def networks(self) -> Sequence[Any]:
        """The one."""
        return [self.network]

    def calls(self) -> Sequence[tuple[Any, Callable[..., Any]]]:
        """Sampling decodes."""
        return [(self.network, self.network.decode)]

    def decoded(self, code: Tensor, size: Sequence[int]) -> Tensor:
        """The fields of ``code``, on a grid of ``size``."""
        fields: Tensor = self.fast(self.network.decode)(code, tuple(size))
        return fields

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(channel, *grid) of the code on the whole domain."""
        return self.network.code_shape(self.codec.grid.shape)

    def truth(self, batch: Mapping[str, Any]) -> Tensor:
        """The field as the code keeps it."""
        z: Tensor = batch["z"]
        return self.decoded(self.network.encode(z)[0], z.shape[2:])
