"""Quantile mapping: the interpolated coarse field, mapped cell by cell onto the distribution of the fine field.

The interpolation's normal score g = Phi^-1(F_b(b)) among its training values is taken for the fine field's, as in bias
correction and spatial disaggregation, x = F_x^-1(F_b(b)) (Wood et al. 2004, doi:10.1023/B:CLIM.0000013685.99609.9e),
and dressed in that space,

    h = rho g + sqrt(1 - rho^2) e,   e ~ N(0, 1),   x = F_x^-1(Phi(h))                                  (1)

with rho the correlation of the scores in training. Members then have the fine field's distribution in every cell, and
spread as much as the interpolation leaves open; rho = 1 is the plain, deterministic map.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion import config
from sciffusion.conditioners.base import Conditioner
from sciffusion.fields.cases import Case
from sciffusion.fields.codec import FieldCodec
from sciffusion.stages.base import Parts
from sciffusion.stages.gaussian import GaussianStage, plain
from sciffusion.stages.items import Item, Prepared, Window
from sciffusion.stages.quantile_table import QuantileTable

__all__ = ["QuantileMappingStage"]

LEVELS = 100  # quantiles kept of larger samples


class QuantileMappingStage(GaussianStage):
    """Equation (1) in the transformed variables' space.

    coarse_quantiles, fine_quantiles : (level, channel, *grid); correlation : rho, (channel, *grid).
    """

    kind: ClassVar[str] = "quantile-mapping"
    coarse_quantiles: Tensor
    fine_quantiles: Tensor
    correlation: Tensor

    def __init__(
        self,
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        coarse: str,
        levels: int,
        tables: Sequence[np.ndarray] | None = None,
    ) -> None:
        super().__init__(self.kind, codec, conditioners)
        self.coarse, self.levels = coarse, levels
        cells = (len(codec.channels), *codec.grid.shape)
        empty = [np.zeros((levels, *cells)), np.zeros((levels, *cells)), np.zeros(cells)]
        for name, table in zip(("coarse_quantiles", "fine_quantiles", "correlation"), tables or empty, strict=True):
            self.register_buffer(name, torch.as_tensor(table, dtype=torch.float32))

    @classmethod
    def fit(
        cls,
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        coarse: str,
        pairs: Iterable[tuple[np.ndarray, np.ndarray | None]],
        groups: np.ndarray,
    ) -> Self:
        """Measure both distributions and rho on training cases of (field, baseline), (channel, *grid) each.

        ``groups`` (*grid) numbers the cells that share a rho. Channels that no coarse variable feeds get rho = 0.
        """
        bare = plain(codec, baseline=False)
        fine, guess = (np.stack(part) for part in zip(*(_encoded(bare, *pair) for pair in pairs), strict=True))
        levels = min(LEVELS, len(fine))
        tables = [QuantileTable.of(sample, levels) for sample in (guess, fine)]
        rho = _correlation(tables, guess, fine, groups)
        return cls(bare, conditioners, coarse, levels, [tables[0].values, tables[1].values, rho])

    def prepare(self, conditions: Mapping[str, xr.Dataset], case: Case, window: Window | None = None) -> Prepared:
        """The interpolated coarse field."""
        baseline = self.conditioners[self.coarse].baseline(conditions.get(self.coarse), case, window)
        return Prepared(case, {}, baseline, window=window)

    def moments(self, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
        """Of the normal score h: rho g and sqrt(1 - rho^2)."""
        assert prepared.baseline is not None
        rho = self.correlation.numpy().astype(np.float64)
        guess = _guess(self.codec, prepared.baseline)
        score = QuantileTable(self.coarse_quantiles.numpy()).score_of(np.nan_to_num(guess))
        return np.where(np.isfinite(guess), rho * score, 0), np.sqrt(1 - np.where(np.isfinite(guess), rho, 0) ** 2)

    def draw(
        self,
        items: Sequence[Item],
        *,
        seed: int,
        sampler: config.Sampler | None = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Draw scores, and take them for those of the fine field."""
        table = QuantileTable(self.fine_quantiles.numpy())
        scores = super().draw(items, seed=seed, sampler=sampler, outputs=outputs).numpy().astype(np.float64)
        return torch.from_numpy(np.stack([table.value_of(one) for one in scores]).astype(np.float32))

    def describe(self) -> dict[str, Any]:
        """The condition that is mapped, and the number of quantiles."""
        return {"coarse": self.coarse, "levels": self.levels}

    @classmethod
    def restore(cls, entry: Mapping[str, Any], parts: Parts) -> Self:
        """An empty stage of the codec's shape."""
        return cls(parts.codec, parts.conditioners, entry["coarse"], int(entry["levels"]))


def _encoded(codec: FieldCodec, field: np.ndarray, baseline: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Field and first guess in the codec's space, NaN where missing."""
    z, present = (part.numpy() for part in codec.encode(field))
    guess = np.full(z.shape, np.nan) if baseline is None else _guess(codec, baseline)
    return np.where(present, z, np.nan).astype(np.float32), guess.astype(np.float32)


def _guess(codec: FieldCodec, baseline: np.ndarray) -> np.ndarray:
    return codec.transform(baseline.astype(np.float64))


def _correlation(
    tables: Sequence[QuantileTable], guess: np.ndarray, fine: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Correlation (channel, *grid) of the scores of guess and field (case, channel, *grid), one for every group."""
    sums = np.zeros((3, fine.shape[1], int(groups.max()) + 1))
    for pair in zip(guess, fine, strict=True):
        known = np.isfinite(pair[0]) & np.isfinite(pair[1])
        g, h = (np.where(known, t.score_of(np.nan_to_num(x)), 0) for t, x in zip(tables, pair, strict=True))
        for row, product in enumerate((g * h, g * g, h * h)):
            sums[row] += np.stack([np.bincount(groups.ravel(), one.ravel(), sums.shape[2]) for one in product])
    rho = sums[0] / np.sqrt(np.maximum(sums[1] * sums[2], 1e-300))
    return np.asarray(np.clip(rho, -1, 1)[:, groups])
