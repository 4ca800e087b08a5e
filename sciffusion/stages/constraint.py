"""Coarse consistency: every member's conservative coarsening equals the coarse field it was made from.

C is the coarsening, y the coarse field. The codec pulls C x = y back to network space, where it is linear for affine
transforms only; there every answer of the denoiser is projected onto it, and the finished field once more after its
pole rows have been made single-valued. The projection is W^-1 C^T (C W^-1 C^T)^-1 with W the cell areas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciffusion import operators
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.guidance.constraints import Projected
from sciffusion.execution.transfer import to_device
from sciffusion.fields.coarsen import conservative
from sciffusion.fields.codec import FieldCodec
from sciffusion.fields.grid import Grid
from sciffusion.fields.resample import SeparableMap

__all__ = ["CoarseConstraint"]


@dataclass(frozen=True)
class CoarseConstraint:
    """What members must reproduce: ``condition``'s coarse field on ``coarse``, in the target's ``channels``.

    ``channels`` are indices of target channels, ``sources`` those of the coarse channels with their values.
    """

    condition: str
    codec: FieldCodec
    coarse: Grid
    channels: tuple[int, ...]
    sources: tuple[int, ...]

    @cached_property
    def coarsening(self) -> SeparableMap:
        """The conservative map from the target's grid to the coarse one."""
        return conservative(self.codec.grid, self.coarse)

    @cached_property
    def projection(self) -> operators.Projection:
        """Nearest field that satisfies the constraint, in the norm of the cell areas."""
        valid = None if self.codec.valid is None else torch.from_numpy(self.codec.valid[list(self.channels)])
        matrices = operators.Separable(self.coarsening.tensors())
        return operators.project(matrices, self.codec.projection_weights(), valid)

    def right_side(self, coarse: np.ndarray, baseline: np.ndarray | None) -> Tensor:
        """The coarse field of one case, (channel, *coarse grid) in physical units, pulled back to network space."""
        return self.codec.pull_back(self.coarsening, coarse[list(self.sources)], baseline, self.channels)[1]

    def wrap(self, denoiser: Denoiser, right_sides: Tensor) -> Denoiser:
        """``denoiser`` with projected answers; ``right_sides`` (batch, channel, *coarse grid)."""
        return Projected(denoiser, self.projection, right_sides, self.channels)

    def moved(self, right_sides: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """The right-hand sides (batch, channel, *coarse grid) of C y = y' for z = shift + scale y.

        ``shift`` (batch, channel, *grid), ``scale`` (channel,), over all channels of the target.
        """
        chosen = to_device(torch.tensor(self.channels), shift.device)
        coarse = self.projection.operator.matvec(shift.index_select(1, chosen).double())
        column = scale.index_select(0, chosen).double().reshape(-1, *[1] * (shift.ndim - 2))
        return (right_sides - coarse.to(right_sides)) / column.to(right_sides)

    def finish(self, z: Tensor, right_sides: Tensor, baselines: Sequence[np.ndarray] | None) -> Tensor:
        """Make pole rows of ``z`` (batch, channel, *grid) single-valued, then the coarse field exact."""
        stacked = None if baselines is None else np.stack(baselines)
        z = self.codec.single_valued_poles(z, stacked).clone()
        chosen = list(self.channels)
        z[:, chosen] = self.projection(z[:, chosen], right_sides.to(z.device))
        return z

    def misfit(self, fields: Mapping[str, np.ndarray], coarse: np.ndarray) -> dict[str, float]:
        """Max |C x - y| by variable for physical ``fields``, (*channel dims, *grid) each, and the ``coarse`` field."""
        shape = self.codec.grid.shape
        x = np.concatenate([fields[name].reshape(-1, *shape) for name in self.codec.names])[list(self.channels)]
        valid = None if self.codec.valid is None else self.codec.valid[list(self.channels)]
        error = np.abs(self.coarsening.masked(x.astype(np.float64), valid) - coarse[list(self.sources)])
        found: dict[str, float] = {}
        for channel, own in zip(self.channels, error, strict=True):
            name = self.codec.channels[channel][0]
            known = own[np.isfinite(own)]
            found[name] = max(found.get(name, 0.0), float(known.max()) if known.size else 0.0)
        return found

    def to_json(self) -> dict[str, Any]:
        """For model.json."""
        lists = {"channels": list(self.channels), "sources": list(self.sources)}
        return {"condition": self.condition, "coarse": self.coarse.to_json(), **lists}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], codec: FieldCodec) -> "CoarseConstraint":
        """The inverse of `to_json`."""
        channels, sources = tuple(entry["channels"]), tuple(entry["sources"])
        return cls(entry["condition"], codec, Grid.from_json(entry["coarse"]), channels, sources)
