"""Linear-Gaussian regression: the best linear guess from the coarse cells around, with Gaussian noise.

Per place within the coarse cell, the codec's residual z is regressed on a stencil of coarse values by ridge
regression; the noise variance is measured per (place, latitude band, land or sea). The ridge is chosen, and the
variance measured, on blocks of cases left out in turn: a baseline that overfits would be too easy to beat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion.conditioners.base import Conditioner
from sciffusion.fields.cases import Case
from sciffusion.fields.codec import FieldCodec
from sciffusion.fields.grid import Grid
from sciffusion.stages.base import Parts
from sciffusion.stages.gaussian import GaussianStage
from sciffusion.stages.items import Prepared, Window
from sciffusion.stages.stencil import Stencil

__all__ = ["LinearGaussianStage", "fit_linear"]

RIDGES = tuple(10.0**power for power in range(-6, 3))  # in units of the mean predictor variance
FOLDS = 3

# one training case: coarse field (channel, *coarse grid), residual z (channel, *grid), Bool valid (channel, *grid)
Training = tuple[np.ndarray, np.ndarray, np.ndarray]


class LinearGaussianStage(GaussianStage):
    """Ridge regression of the residual on the coarse stencil, and its residual's Gaussian.

    coefficients : (place, predictor, channel); sd : (channel, *grid).
    """

    kind: ClassVar[str] = "linear"
    coefficients: Tensor
    sd: Tensor

    def __init__(
        self,
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        coarse: str,
        coarse_grid: Grid,
        coefficients: np.ndarray | None = None,
        sd: np.ndarray | None = None,
    ) -> None:
        super().__init__("linear", codec, conditioners)
        self.coarse = coarse
        self.coarse_grid = coarse_grid
        self.stencil = Stencil.between(codec.grid, coarse_grid)
        self.register_buffer(
            "coefficients", torch.empty(0) if coefficients is None else torch.as_tensor(coefficients).float()
        )
        self.register_buffer("sd", torch.empty(0) if sd is None else torch.as_tensor(sd).float())

    @classmethod
    def fit(
        cls,
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        coarse: str,
        coarse_grid: Grid,
        cases: Sequence[Training],
        surface: np.ndarray | None = None,
    ) -> Self:
        """Fit on training cases; ``surface`` (*grid) numbers land and sea where the data tell."""
        stage = cls(codec, conditioners, coarse, coarse_grid)
        groups = stage.stencil.groups(codec.grid, surface)
        coefficients, sd = fit_linear(cases, stage.stencil, groups)
        return cls(codec.without_folds(), conditioners, coarse, coarse_grid, coefficients, sd)

    def prepare(self, conditions: Mapping[str, xr.Dataset], case: Case, window: Window | None = None) -> Prepared:
        """The coarse values for the regression and the baseline that it corrects."""
        conditioner, data = self.conditioners[self.coarse], conditions.get(self.coarse)
        baseline, coarse = conditioner.baseline(data, case, window), conditioner.coarse(data, case)
        return Prepared(case, {}, baseline, coarse, window)

    def moments(self, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
        """Regressed mean and fitted sd."""
        assert prepared.coarse is not None
        predictors = self.stencil.predictors(prepared.coarse)
        return predict(predictors, self.stencil.positions(), self.coefficients.numpy()), self.sd.numpy()

    def describe(self) -> dict[str, Any]:
        """The condition, its grid and the number of predictors."""
        shape = list(self.coefficients.shape)
        return {"coarse": self.coarse, "coarse_grid": self.coarse_grid.to_json(), "coefficients": shape}

    @classmethod
    def restore(cls, entry: Mapping[str, Any], parts: Parts) -> Self:
        """A stage with room for its coefficients."""
        grid = Grid.from_json(entry["coarse_grid"])
        sd = np.ones((len(parts.codec.channels), *parts.codec.grid.shape))
        return cls(parts.codec, parts.conditioners, entry["coarse"], grid, np.zeros(entry["coefficients"]), sd)


def predict(predictors: np.ndarray, positions: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Regression's answer (channel, *grid) from predictors (predictor, *grid)."""
    answer = np.empty((coefficients.shape[2], *positions.shape))
    for place, table in enumerate(coefficients):
        cells = positions == place
        answer[:, cells] = table.T @ predictors[:, cells]
    return answer


def fit_linear(cases: Sequence[Training], stencil: Stencil, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit coefficients (place, predictor, channel) and sd (channel, *grid).

    ``cases`` reads one training case per index; ``groups`` (*grid) numbers the cells that share a variance.
    """
    positions = stencil.positions()
    equations = [_normal_equations(cases, fold, stencil, positions) for fold in _folds(len(cases))]
    whole = _Equations.total(equations)
    left_out = [whole.without(part) for part in equations] if len(equations) > 1 else equations
    ridge = min(RIDGES, key=lambda r: sum(t.error(f.solve(r)) for f, t in zip(left_out, equations, strict=True)))
    squares = counts = np.zeros(())
    for fold, fitted in zip(_folds(len(cases)), left_out, strict=True):
        table = fitted.solve(ridge)
        for index in fold:
            coarse, z, valid = cases[index]
            error = np.where(valid, z - predict(stencil.predictors(coarse), positions, table), 0)
            squares = squares + np.stack([np.bincount(groups.ravel(), (e**2).ravel()) for e in error])
            counts = counts + np.stack([np.bincount(groups.ravel(), v.ravel()) for v in valid])
    variance = squares / np.maximum(counts, 1)
    return whole.solve(ridge), np.sqrt(variance[:, groups])


@dataclass(frozen=True)
class _Equations:
    """Sums of a least-squares problem per place: X'X (place, p, p), X'z (place, p, channel), z'z (place, channel)."""

    xx: np.ndarray
    xz: np.ndarray
    zz: np.ndarray

    @staticmethod
    def total(parts: "Sequence[_Equations]") -> "_Equations":
        return _Equations(sum(p.xx for p in parts), sum(p.xz for p in parts), sum(p.zz for p in parts))  # type: ignore[arg-type]

    def without(self, part: "_Equations") -> "_Equations":
        return _Equations(self.xx - part.xx, self.xz - part.xz, self.zz - part.zz)

    def solve(self, ridge: float) -> np.ndarray:
        """Ridge solution; the penalty is relative to each predictor's own variance and spares the constant."""
        scale = np.einsum("gpp->gp", self.xx)
        penalty = ridge * scale
        penalty[:, 0] = 0
        regular = self.xx + np.einsum(
            "gp,pq->gpq", penalty + 1e-12 * scale.max(1, keepdims=True), np.eye(scale.shape[1])
        )
        return np.linalg.solve(regular, self.xz)

    def error(self, table: np.ndarray) -> float:
        """Sum of squared errors of the coefficients ``table``."""
        cross = np.einsum("gpc,gpc->", table, self.xz)
        return float(self.zz.sum() - 2 * cross + np.einsum("gpc,gpq,gqc->", table, self.xx, table, optimize=True))


def _folds(count: int) -> list[range]:
    """Contiguous blocks, because neighbouring cases resemble each other."""
    edges = np.linspace(0, count, min(FOLDS, count) + 1).round().astype(int)
    return [range(first, last) for first, last in pairwise(edges)]


def _normal_equations(cases: Sequence[Training], fold: range, stencil: Stencil, positions: np.ndarray) -> _Equations:
    total = None
    for index in fold:
        coarse, z, valid = cases[index]
        part = _one_case(stencil.predictors(coarse), np.where(valid, z, 0), np.asarray(valid.all(0)), positions)
        total = part if total is None else _Equations.total([total, part])
    assert total is not None
    return total


def _one_case(predictors: np.ndarray, z: np.ndarray, valid: np.ndarray, positions: np.ndarray) -> _Equations:
    sums = []
    for place in range(int(positions.max()) + 1):
        cells = (positions == place) & valid
        x, y = predictors[:, cells], z[:, cells]
        sums.append((x @ x.T, x @ y.T, (y**2).sum(1)))
    return _Equations(*(np.stack(part) for part in zip(*sums, strict=True)))
