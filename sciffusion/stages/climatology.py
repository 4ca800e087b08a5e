"""Climatology: the training period's mean and spread per cell, blind to the condition."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from sciffusion.conditioners.base import Conditioner
from sciffusion.fields.codec import FieldCodec
from sciffusion.fields.statistics import Moments
from sciffusion.stages.base import Parts
from sciffusion.stages.gaussian import GaussianStage, plain
from sciffusion.stages.items import Prepared

__all__ = ["ClimatologyStage"]


class ClimatologyStage(GaussianStage):
    """Gaussian with the sd per cell of the transformed training fields around the codec's mean.

    sd : (channel, *grid) in the codec's space, where the mean is 0.
    """

    kind: ClassVar[str] = "climatology"
    sd: Tensor

    def __init__(
        self, codec: FieldCodec, conditioners: Mapping[str, Conditioner], sd: np.ndarray | None = None
    ) -> None:
        super().__init__("climatology", codec, conditioners)
        shape = (len(codec.channels), *codec.grid.shape)
        self.register_buffer("sd", torch.ones(shape) if sd is None else torch.as_tensor(sd, dtype=torch.float32))

    @classmethod
    def fit(cls, codec: FieldCodec, conditioners: Mapping[str, Conditioner], fields: Iterable[np.ndarray]) -> Self:
        """Measure mean and spread per cell of ``fields``, (channel, *grid) each in physical units."""
        moments = Moments.zeros((len(codec.channels), *codec.grid.shape))
        bare = plain(codec, baseline=False)
        for field in fields:
            value, present = (part.numpy() for part in bare.encode(field))
            moments.update(np.where(present, value, np.nan))
        sd = np.sqrt(moments.squares / np.maximum(moments.count - 1, 1))
        return cls(plain(codec, moments.mean.astype(np.float32), baseline=False), conditioners, sd)

    def moments(self, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
        """Zero mean in the codec's space and the fitted sd, whatever the case."""
        return np.zeros_like(self.sd.numpy()), self.sd.numpy()

    @classmethod
    def restore(cls, entry: Mapping[str, Any], parts: Parts) -> Self:
        """An empty stage of the codec's shape."""
        return cls(parts.codec, parts.conditioners)
