"""The baselines that a trained stage has to beat, fitted on the training cases of its experiment."""

import logging
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sciffusion import config
from sciffusion.conditioners.coarse import CoarseField
from sciffusion.conditioners.static import StaticField
from sciffusion.datasets.pairs import ExperimentData
from sciffusion.fields.cases import Case, select
from sciffusion.fields.codec import FieldCodec
from sciffusion.stages.analogues import AnalogueStage, Remembered
from sciffusion.stages.base import Stage
from sciffusion.stages.climatology import ClimatologyStage
from sciffusion.stages.interpolation import InterpolationStage
from sciffusion.stages.linear import LinearGaussianStage
from sciffusion.stages.measure import spread
from sciffusion.stages.quantile import QuantileMappingStage
from sciffusion.stages.stencil import Stencil

__all__ = ["build_baselines"]

log = logging.getLogger(__name__)
LARGEST = 2**20  # cells of a grid up to which the linear baseline is fitted
WORK = 2**26  # cells in all that the baselines are measured on
KEPT = 2**25  # values of training fields that quantile mapping and analogues keep


def build_baselines(experiment: config.Experiment, data: ExperimentData, stage: Stage) -> dict[str, Stage]:
    """Climatology, and with a coarse condition interpolation, regression, quantile mapping and analogues.

    All on training cases only. Large grids are measured on fewer cases, and beyond LARGEST cells have no regression and
    nothing that keeps training fields: these would not fit.
    """
    cells = prod(data.grid.shape)
    cases = spread(data.cases["train"], min(experiment.train.statistics_cases, max(8, WORK // cells)))
    codec, name = stage.codec, stage.first_guess
    fields = (_field(data, codec, case) for case in cases)
    built: dict[str, Stage] = {"climatology": ClimatologyStage.fit(codec, {}, fields)}
    if name is None:
        return built
    coarse: dict[str, Any] = {name: stage.readers[name]}
    pairs = ((_field(data, codec, case), coarse[name].baseline(data.conditions[name], case)) for case in cases)
    guess = coarse[name]
    if not isinstance(guess, CoarseField):
        built["persistence"] = InterpolationStage.fit(codec, coarse, name, pairs)
        return built
    built["interpolation"] = InterpolationStage.fit(codec, coarse, name, pairs)
    if cells > LARGEST:
        log.info("no linear, quantile-mapping and analogues baselines: %d cells are more than %d", cells, LARGEST)
        return built
    rows = _Rows(data, codec, name, coarse[name], cases)
    surface = _land(stage)
    built["linear"] = LinearGaussianStage.fit(codec, coarse, name, coarse[name].coarse_grid, rows, surface)
    return built | _keeping_fields(rows, surface)


def _keeping_fields(rows: "_Rows", surface: np.ndarray | None) -> dict[str, Stage]:
    """The baselines that keep training fields, or quantiles of them."""
    codec, coarse, name = rows.codec, {rows.name: rows.coarse}, rows.name
    most = max(8, KEPT // (prod(codec.grid.shape) * len(codec.channels)))
    kept = [rows.remembered(index) for index in spread(range(len(rows)), most)]
    groups = Stencil.between(codec.grid, rows.coarse.coarse_grid).groups(codec.grid, surface)
    pairs = ((one.field, one.baseline) for one in kept)
    return {
        "quantile-mapping": QuantileMappingStage.fit(codec, coarse, name, pairs, groups),
        "analogues": AnalogueStage.fit(codec, coarse, name, kept, rows.coarse.coarse_grid.cell_area()),
    }


class _Rows(Sequence[Any]):
    """Training cases of the regression, read when asked for: (coarse, z, valid)."""

    def __init__(
        self, data: ExperimentData, codec: FieldCodec, name: str, coarse: CoarseField, cases: Sequence[Case]
    ) -> None:
        self.data, self.codec, self.name, self.coarse, self.cases = data, codec, name, coarse, cases

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        case, source = self.cases[index], self.data.conditions[self.name]
        field = _field(self.data, self.codec, case)
        codec = self.codec.of_training_case(index, len(self.cases))
        z, present = codec.encode(field, self.coarse.baseline(source, case))
        return self.coarse.coarse(source, case), z.numpy(), present.numpy()

    def remembered(self, index: int) -> Remembered:
        """One case in physical units."""
        case, source = self.cases[index], self.data.conditions[self.name]
        field = _field(self.data, self.codec, case)
        return Remembered(case, self.coarse.coarse(source, case), field, self.coarse.baseline(source, case))


def _field(data: ExperimentData, codec: FieldCodec, case: Case) -> np.ndarray:
    return codec.stack(select(data.target, case))


def _land(stage: Stage) -> np.ndarray | None:
    """Land (1) or sea (0) per cell, from a static field that looks like a land fraction; None when there is none."""
    for conditioner in stage.readers.values():
        if not isinstance(conditioner, StaticField):
            continue
        for name, field in conditioner.fields_by_name().items():
            if any(word in name.lower() for word in ("land", "lsm", "sftlf")):
                return np.asarray(field > 0.5 * field.max()).astype(int)
    return None
