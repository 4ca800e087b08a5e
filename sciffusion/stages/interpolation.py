"""Interpolation of the coarse field, dressed with a Gaussian of its mean square error in training."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion.conditioners.base import Conditioner
from sciffusion.fields.cases import Case
from sciffusion.fields.codec import FieldCodec
from sciffusion.stages.base import Parts
from sciffusion.stages.gaussian import GaussianStage, plain
from sciffusion.stages.items import Prepared, Window

__all__ = ["InterpolationStage"]


class InterpolationStage(GaussianStage):
    """The coarse condition's interpolation plus white noise; sd : (channel,) in the transformed variables' units."""

    kind: ClassVar[str] = "interpolation"
    sd: Tensor

    def __init__(
        self, codec: FieldCodec, conditioners: Mapping[str, Conditioner], coarse: str, sd: np.ndarray | None = None
    ) -> None:
        super().__init__("interpolation", codec, conditioners)
        self.coarse = coarse
        self.register_buffer("sd", torch.as_tensor(np.ones(len(codec.channels)) if sd is None else sd).float())

    @classmethod
    def fit(
        cls,
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        coarse: str,
        pairs: Iterable[tuple[np.ndarray, np.ndarray | None]],
    ) -> Self:
        """Measure the error of the interpolation on training cases of (field, baseline), (channel, *grid) each.

        Channels that no coarse variable feeds keep the codec's mean field instead of an interpolation.
        """
        fed = np.isfinite(codec.baseline_mean).reshape(-1, *[1] * codec.grid.rank)
        bare = plain(codec, np.where(fed, 0, codec.mean).astype(np.float32), baseline=True)
        area, squares, total = codec.grid.cell_area(), np.zeros(()), np.zeros(())
        axes = tuple(range(1, area.ndim + 1))
        for field, baseline in pairs:
            error, present = (part.numpy() for part in bare.encode(field, baseline))
            squares = squares + (area * error**2 * present).sum(axes)
            total = total + (area * present).sum(axes)
        return cls(bare, conditioners, coarse, np.sqrt(squares / np.maximum(total, 1e-300)))

    def prepare(self, conditions: Mapping[str, xr.Dataset], case: Case, window: Window | None = None) -> Prepared:
        """The interpolated coarse field is the baseline that decoding adds."""
        baseline = self.conditioners[self.coarse].baseline(conditions.get(self.coarse), case, window)
        return Prepared(case, {}, baseline, window=window)

    def moments(self, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
        """Nothing on top of the baseline, and the fitted sd."""
        column = self.sd.numpy().reshape(-1, *[1] * self.codec.grid.rank)
        return np.zeros((len(self.codec.channels), *self.codec.grid.shape), np.float32), column

    def describe(self) -> dict[str, Any]:
        """The condition that is interpolated."""
        return {"coarse": self.coarse}

    @classmethod
    def restore(cls, entry: Mapping[str, Any], parts: Parts) -> Self:
        """An empty stage of the codec's shape."""
        return cls(parts.codec, parts.conditioners, entry["coarse"])
