"""From an experiment's settings and data to untrained stages, and to the baselines that they have to beat.

Everything that is measured (codec, noise range, normalisation of conditions, regression) is measured here, on training
cases only.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from math import prod
from typing import Any, Literal, TypeVar

import numpy as np

from sciffusion import config, registry
from sciffusion.conditioners.base import Conditioner, Training
from sciffusion.conditioners.coarse import CoarseField
from sciffusion.conditioners.static import StaticField
from sciffusion.datasets.pairs import ExperimentData
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Case, select
from sciffusion.fields.codec import FieldCodec
from sciffusion.fields.fit import fit_codec
from sciffusion.fields.grid import Grid
from sciffusion.fields.statistics import fold_of
from sciffusion.fields.variables import channel_coords, stack, target_variables
from sciffusion.stages.analogues import AnalogueStage, Remembered
from sciffusion.stages.autoencoder import AutoencoderStage
from sciffusion.stages.base import Stage
from sciffusion.stages.climatology import ClimatologyStage
from sciffusion.stages.constraint import CoarseConstraint
from sciffusion.stages.denoiser import DenoiserStage
from sciffusion.stages.framed import frame_of
from sciffusion.stages.interpolation import InterpolationStage
from sciffusion.stages.items import Window
from sciffusion.stages.levels import fitted_range
from sciffusion.stages.linear import LinearGaussianStage
from sciffusion.stages.measure import bounds, measure
from sciffusion.stages.networked import NetworkStage
from sciffusion.stages.quantile import QuantileMappingStage
from sciffusion.stages.regression import RegressionStage
from sciffusion.stages.stencil import Stencil

__all__ = ["build_baselines", "build_stage"]

log = logging.getLogger(__name__)
T = TypeVar("T")
LARGEST = 2**20  # cells of a grid up to which the linear baseline is fitted
WORK = 2**26  # cells in all that the baselines are measured on
KEPT = 2**25  # values of training fields that quantile mapping and analogues keep
WHOLE = 2**23  # values of a field up to which statistics are kept per cell


def build_stage(
    settings: config.Stage,
    experiment: config.Experiment,
    data: ExperimentData,
    earlier: Mapping[str, Stage] | None = None,
) -> Any:
    """The untrained stage of ``settings``, behind the trained ones ``earlier`` of the same experiment."""
    earlier = earlier or {}
    cases = _spread(data.cases["train"], experiment.train.statistics_cases)
    conditioners = _conditioners(settings, experiment, data, cases, earlier)
    if earlier:
        codec = next(iter(earlier.values())).codec
    else:
        coarse: Any = conditioners.get(settings.baseline or "")
        codec = _codec(experiment, data, cases, settings.shrinkage, coarse)
    return _BUILDERS[settings.kind](settings, experiment, data, codec, conditioners, earlier)


def _conditioners(
    settings: config.Stage,
    experiment: config.Experiment,
    data: ExperimentData,
    cases: Sequence[Case],
    earlier: Mapping[str, Stage],
) -> dict[str, Conditioner]:
    """The stage's own conditioners; what an earlier stage has measured already is copied from it."""
    training = Training(experiment.target, data.target, data.grid, cases)
    known = {name: c for stage in earlier.values() for name, c in stage.conditioners.items()}
    return {
        name: copy.deepcopy(known[name])
        if name in known
        else registry.get("conditioners", experiment.conditions[name].kind).build(
            name, experiment.conditions[name], data.conditions[name], training
        )
        for name in _names(settings, experiment)
    }


def _names(settings: config.Stage, experiment: config.Experiment) -> list[str]:
    """Conditions that the stage looks at, in the order of the experiment; an autoencoder's baseline is read too."""
    wanted = ["*"] if settings.inputs is None else list(settings.inputs)
    if settings.kind == "autoencoder":
        wanted = [settings.baseline or ""]
    return [name for name in experiment.conditions if name in wanted or "*" in wanted]


def _build_regression(
    settings: config.RegressionStage,
    experiment: config.Experiment,
    data: ExperimentData,
    codec: FieldCodec,
    conditioners: Mapping[str, Conditioner],
    earlier: Mapping[str, Stage],
) -> RegressionStage:
    return RegressionStage(settings, codec, conditioners, earlier)


def _build_denoiser(
    settings: config.DenoiserStage | config.FlowMapStage,
    experiment: config.Experiment,
    data: ExperimentData,
    codec: FieldCodec,
    conditioners: Mapping[str, Conditioner],
    earlier: Mapping[str, Stage],
) -> DenoiserStage:
    constraint = None
    if settings.constraint is not None:
        known: dict[str, Any] = {n: c for stage in earlier.values() for n, c in stage.conditioners.items()}
        constraint = _constraint((known | dict(conditioners))[settings.constraint], codec)
    frame, leading_rms = frame_of(settings, codec, earlier), codec.leading_rms
    if not frame.plain:
        measured = measure(experiment, data, frame, NetworkStage(settings, codec, conditioners, earlier))
        frame.cpu().set(measured)
        leading_rms = measured.leading_rms
    levels = fitted_range(settings.noise, leading_rms)
    kind: type[DenoiserStage] = registry.get("stages", settings.kind)
    stage = kind(settings, codec, conditioners, levels, constraint, earlier, frame)
    stage.check_noise()
    if settings.sampler.threshold is not None and stage.bounds is not None:
        found = bounds(experiment, data, stage, settings.sampler.threshold)
        stage.cpu().bounds = found
    return stage


def _build_autoencoder(
    settings: config.AutoencoderStage,
    experiment: config.Experiment,
    data: ExperimentData,
    codec: FieldCodec,
    conditioners: Mapping[str, Conditioner],
    earlier: Mapping[str, Stage],
) -> AutoencoderStage:
    return AutoencoderStage(settings, codec, conditioners, earlier)


_BUILDERS: dict[str, Callable[..., Stage]] = {
    "autoencoder": _build_autoencoder,
    "denoiser": _build_denoiser,
    "flowmap": _build_denoiser,
    "regression": _build_regression,
}


def _constraint(coarse: CoarseField, codec: FieldCodec) -> CoarseConstraint:
    """The constraint on every channel that the coarse field has and whose transform is affine."""
    curved = {channel for variable, part in codec.parts if not variable.transform.affine for channel in _indices(part)}
    pairs = [(place, source) for place, source in coarse.matches() if place not in curved]
    if not pairs:
        raise SciffusionError(
            f"constraint {coarse.name!r}: no variable with an affine transform", "set constraint: null for this stage"
        )
    return CoarseConstraint(coarse.name, codec, coarse.coarse_grid, *(tuple(part) for part in zip(*pairs, strict=True)))


def _indices(part: slice) -> range:
    return range(part.start, part.stop)


def build_baselines(experiment: config.Experiment, data: ExperimentData, stage: Stage) -> dict[str, Stage]:
    """Climatology, and with a coarse condition interpolation, regression, quantile mapping and analogues.

    All on training cases only. Large grids are measured on fewer cases, and beyond LARGEST cells have no regression and
    nothing that keeps training fields: these would not fit.
    """
    cells = prod(data.grid.shape)
    cases = _spread(data.cases["train"], min(experiment.train.statistics_cases, max(8, WORK // cells)))
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
    kept = [rows.remembered(index) for index in _spread(range(len(rows)), most)]
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


def _codec(
    experiment: config.Experiment,
    data: ExperimentData,
    cases: Sequence[Case],
    shrinkage: float | Literal["fit"],
    coarse: CoarseField | None,
) -> FieldCodec:
    """Fit the codec on whole fields, or where these are too large on a random window of each case."""
    target, grid = experiment.target, data.grid
    variables = target_variables(data.target, target.variables, target.dims, target.channel_dims)
    whole = prod(grid.shape) * sum(variable.channels for variable in variables) <= WHOLE

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray | None, Window | None, int]]:
        windows = repeat(None) if whole else _windows(experiment, grid)
        for index, (case, window) in enumerate(zip(cases, windows, strict=False)):
            baseline = None if coarse is None else coarse.baseline(data.conditions[coarse.name], case, window)
            field = stack(select(data.target, case), variables, grid, window)
            yield field, baseline, window, fold_of(index, len(cases))

    def looks() -> Iterator[tuple[np.ndarray, Window]]:
        for case in cases[: 0 if whole else 2]:
            for window in _slabs(grid):
                yield stack(select(data.target, case), variables, grid, window), window

    return fit_codec(
        pairs,
        variables,
        grid,
        shrinkage=shrinkage,
        per_cell=whole,
        looks=looks(),
        coords=channel_coords(data.target, grid, target.channel_dims),
    )


def _windows(experiment: config.Experiment, grid: Grid) -> Iterator[Window]:
    """Random windows of the training's size, or of 512 cells a side."""
    rng, crop = np.random.default_rng(experiment.train.seed), experiment.train.crop
    sizes = [min(n, crop.get(dim, 512)) for dim, n in zip(grid.dims, grid.shape, strict=True)]
    while True:
        corner = [int(rng.integers(n - size + 1)) for n, size in zip(grid.shape, sizes, strict=True)]
        yield tuple(slice(first, first + size) for first, size in zip(corner, sizes, strict=True))


def _slabs(grid: Grid) -> Iterator[Window]:
    """The grid in slabs along its first axis, each of at most WHOLE / 8 cells."""
    rows = max(1, WHOLE // 8 // prod(grid.shape[1:]))
    for first in range(0, grid.shape[0], rows):
        yield (slice(first, min(grid.shape[0], first + rows)), *(slice(0, n) for n in grid.shape[1:]))


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


def _spread(cases: Sequence[T], most: int) -> list[T]:
    """At most ``most`` cases, evenly spread."""
    chosen = np.linspace(0, len(cases) - 1, min(most, len(cases))).round().astype(int)
    return [cases[index] for index in chosen]
