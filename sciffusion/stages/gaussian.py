"""Baseline stages: fields drawn cell by cell from a Gaussian, mean + sd * noise, with no spatial correlation.

They are what a diffusion model must beat, and they travel through the same door, the same noise and the same store.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from sciffusion import config
from sciffusion.fields.codec import FieldCodec
from sciffusion.stages.base import Stage
from sciffusion.stages.items import Item, Prepared

__all__ = ["GaussianStage", "plain"]


def plain(codec: FieldCodec, mean: np.ndarray | None = None, *, baseline: bool) -> FieldCodec:
    """``codec`` without scaling: z = T(x) - mean, minus the transformed baseline where ``baseline`` says so."""
    channels = len(codec.channels)
    zeros = np.zeros((channels, *[1] * codec.grid.rank), np.float32)
    kept = codec.baseline_mean if baseline else np.full(channels, np.nan)
    return replace(codec, mean=zeros if mean is None else mean, sd=np.ones(channels), baseline_mean=kept, held_out=None)


class GaussianStage(Stage):
    """Independent Gaussian per cell in the codec's space; subclasses say with which moments."""

    on_host: ClassVar[bool] = True

    @abstractmethod
    def moments(self, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd of one case in the codec's space, broadcastable to (channel, *grid)."""

    def draw(
        self,
        items: Sequence[Item],
        *,
        seed: int,
        sampler: config.Sampler | None = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Draw ``mean + sd * noise``; baselines have no sampler settings."""
        moments = {id(item.prepared): self.moments(item.prepared) for item in items}
        mean, sd = (
            torch.from_numpy(np.stack([np.asarray(moments[id(item.prepared)][i], np.float32) for item in items]))
            for i in (0, 1)
        )
        return mean + sd * self.noise(items, seed=seed)
