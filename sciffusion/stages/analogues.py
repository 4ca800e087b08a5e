"""Analogues: the fine detail of training cases whose coarse field looked like this one (Lorenz 1969).

Every member takes what another case had on top of its interpolated coarse field, and lays it on this case's. The case
is drawn among the K nearest, the j-th with a chance in proportion to 1 / j (Lall & Sharma 1996, doi:10.1029/95WR02966),
K = sqrt(number of cases). Members are real fields: right in their correlations, but no more of them than were seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from scipy.special import ndtr
from torch import Tensor

from sciffusion import config
from sciffusion.conditioners.base import Conditioner
from sciffusion.fields.cases import Case
from sciffusion.fields.codec import FieldCodec
from sciffusion.noise import NoiseKey, normal
from sciffusion.stages.base import Parts, Stage
from sciffusion.stages.gaussian import plain
from sciffusion.stages.items import Item, Prepared, Window

__all__ = ["AnalogueStage", "Remembered"]


@dataclass(frozen=True)
class Remembered:
    """A training case: coarse field (channel, *coarse grid), field and baseline (channel, *grid), physical units."""

    case: Case
    coarse: np.ndarray
    field: np.ndarray
    baseline: np.ndarray | None


class AnalogueStage(Stage):
    """Residuals of training cases, found by their coarse fields.

    residuals : (case, channel, *grid); patterns : (case, value), coarse fields scaled so that every coarse variable
    and every equal area counts the same; scale : (value,), what they were multiplied by. ``leave_out``: a case that was
    trained on is not its own analogue.
    """

    kind: ClassVar[str] = "analogues"
    on_host: ClassVar[bool] = True
    residuals: Tensor
    patterns: Tensor
    scale: Tensor

    def __init__(
        self,
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        coarse: str,
        labels: Sequence[tuple[Any, ...]],
        tables: Sequence[np.ndarray],
        *,
        neighbours: int,
        leave_out: bool = True,
    ) -> None:
        super().__init__(self.kind, codec, conditioners)
        self.coarse, self.labels, self.neighbours, self.leave_out = coarse, list(labels), neighbours, leave_out
        for name, table in zip(("residuals", "patterns", "scale"), tables, strict=True):
            self.register_buffer(name, torch.as_tensor(table, dtype=torch.float32))

    @classmethod
    def fit(
        cls,
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        coarse: str,
        cases: Iterable[Remembered],
        area: np.ndarray,
        *,
        neighbours: int | None = None,
        leave_out: bool = True,
    ) -> Self:
        """Remember training cases; ``area`` (*coarse grid) weights the cells of the coarse field."""
        fed = np.isfinite(codec.baseline_mean).reshape(-1, *[1] * codec.grid.rank)
        bare = plain(codec, np.where(fed, 0, codec.mean).astype(np.float32), baseline=True)
        labels, residuals, fields = [], [], []
        for one in cases:
            labels.append(one.case.labels)
            residuals.append(bare.encode(one.field, one.baseline)[0].numpy())
            fields.append(one.coarse)
        scale = _scale(np.stack(fields), area)
        patterns = np.stack([_pattern(field, scale) for field in fields])
        count = neighbours or int(np.ceil(np.sqrt(len(labels))))
        tables = [np.stack(residuals), patterns, scale]
        return cls(bare, conditioners, coarse, labels, tables, neighbours=count, leave_out=leave_out)

    def prepare(self, conditions: Mapping[str, xr.Dataset], case: Case, window: Window | None = None) -> Prepared:
        """The coarse field that is looked for, and its interpolation."""
        conditioner, data = self.conditioners[self.coarse], conditions.get(self.coarse)
        return Prepared(case, {}, conditioner.baseline(data, case, window), conditioner.coarse(data, case), window)

    def draw(
        self,
        items: Sequence[Item],
        *,
        seed: int,
        sampler: config.Sampler | None = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The residual of one analogue per item; baselines have no sampler settings."""
        near = {id(item.prepared): self.nearest(item.prepared) for item in items}
        chosen = [near[id(item.prepared)][self._rank(item, len(near[id(item.prepared)]), seed)] for item in items]
        return self.residuals[torch.as_tensor(chosen)]

    def nearest(self, prepared: Prepared) -> np.ndarray:
        """Numbers of the nearest training cases, the nearest first, at most ``neighbours``."""
        assert prepared.coarse is not None
        pattern = _pattern(prepared.coarse, self.scale.numpy())
        distance = ((self.patterns.numpy().astype(np.float64) - pattern) ** 2).sum(axis=1)
        if self.leave_out and len(self.labels) > 1:
            own = [label == prepared.case.labels for label in self.labels]
            distance[own] = np.inf
        order = np.argsort(distance, kind="stable")[: self.neighbours]
        return np.asarray(order[np.isfinite(distance[order])])

    def _rank(self, item: Item, count: int, seed: int) -> int:
        """Which of ``count`` analogues this member takes."""
        key = NoiseKey(seed, item.prepared.case.labels, item.member, self.name)
        weights = 1 / np.arange(1, count + 1)
        chance = float(ndtr(normal(key, (1,))[0]))
        return int(np.searchsorted(np.cumsum(weights) / weights.sum(), chance).clip(max=count - 1))

    def describe(self) -> dict[str, Any]:
        """The condition, the cases and how they are chosen."""
        return {
            "coarse": self.coarse,
            "labels": [list(label) for label in self.labels],
            "values": self.patterns.shape[1],
            "neighbours": self.neighbours,
            "leave_out": self.leave_out,
        }

    @classmethod
    def restore(cls, entry: Mapping[str, Any], parts: Parts) -> Self:
        """A stage with room for its cases."""
        codec, labels, values = parts.codec, [tuple(label) for label in entry["labels"]], int(entry["values"])
        shapes = ((len(labels), len(codec.channels), *codec.grid.shape), (len(labels), values), (values,))
        tables = [np.zeros(shape, np.float32) for shape in shapes]
        chosen: dict[str, Any] = {name: entry[name] for name in ("neighbours", "leave_out")}
        return cls(codec, parts.conditioners, entry["coarse"], labels, tables, **chosen)


def _scale(fields: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Factors (value,) for coarse fields (case, channel, *coarse grid): sqrt(area) over the channel's sd in time."""
    varies = np.nan_to_num(fields - np.nanmean(fields, axis=0)) ** 2 * area
    axes = (0, *range(2, fields.ndim))
    sd = np.sqrt(varies.sum(axis=axes) / (area.sum() * len(fields)))
    column = np.where(sd > 0, 1 / np.where(sd > 0, sd, 1), 0).reshape(-1, *[1] * area.ndim)
    return np.asarray((np.sqrt(area / area.sum()) * column).ravel())


def _pattern(field: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Missing values are no difference to a case where they are missing as well."""
    return np.asarray(np.nan_to_num(field).ravel() * scale)
