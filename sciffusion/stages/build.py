"""From an experiment's settings and data to untrained stages.

Everything that is measured (codec, noise range, normalisation of conditions) is measured here, on training cases only.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from math import prod
from typing import Any, Literal

import numpy as np

from sciffusion import config, registry
from sciffusion.conditioners.base import Conditioner, Training
from sciffusion.conditioners.coarse import CoarseField
from sciffusion.datasets.pairs import ExperimentData
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Case, select
from sciffusion.fields.codec import FieldCodec
from sciffusion.fields.fit import fit_codec
from sciffusion.fields.grid import Grid
from sciffusion.fields.statistics import fold_of
from sciffusion.fields.variables import channel_coords, stack, target_variables
from sciffusion.stages.base import Parts, Stage
from sciffusion.stages.constraint import CoarseConstraint
from sciffusion.stages.denoiser import DenoiserStage
from sciffusion.stages.framed import frame_of
from sciffusion.stages.items import Window
from sciffusion.stages.levels import fitted_range
from sciffusion.stages.measure import bounds, measure, spread
from sciffusion.stages.networked import NetworkStage

__all__ = ["build_stage"]

WHOLE = 2**23  # values of a field up to which statistics are kept per cell


def build_stage(
    settings: config.Stage,
    experiment: config.Experiment,
    data: ExperimentData,
    earlier: Mapping[str, Stage] | None = None,
) -> Any:
    """The untrained stage of ``settings``, behind the trained ones ``earlier`` of the same experiment."""
    earlier = earlier or {}
    cases = spread(data.cases["train"], experiment.train.statistics_cases)
    conditioners = _conditioners(settings, experiment, data, cases, earlier)
    if earlier:
        codec = next(iter(earlier.values())).codec
    else:
        coarse: Any = conditioners.get(settings.baseline or "")
        codec = _codec(experiment, data, cases, settings.shrinkage, coarse)
    parts = Parts(codec, conditioners, earlier)
    if isinstance(settings, config.DenoiserStage | config.FlowMapStage):
        return _build_denoiser(settings, experiment, data, parts)
    return registry.get("stages", settings.kind)(settings, parts)


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


def _build_denoiser(
    settings: config.DenoiserStage | config.FlowMapStage,
    experiment: config.Experiment,
    data: ExperimentData,
    parts: Parts,
) -> DenoiserStage:
    constraint = None
    if settings.constraint is not None:
        known: dict[str, Any] = {n: c for stage in parts.earlier.values() for n, c in stage.conditioners.items()}
        constraint = _constraint((known | dict(parts.conditioners))[settings.constraint], parts.codec)
    frame, leading_rms = frame_of(settings, parts), parts.codec.leading_rms
    if not frame.plain:
        measured = measure(experiment, data, frame, NetworkStage(settings, parts))
        frame.cpu().set(measured)
        leading_rms = measured.leading_rms
    levels = fitted_range(settings.noise, leading_rms)
    kind: type[DenoiserStage] = registry.get("stages", settings.kind)
    stage = kind(settings, parts, levels, constraint, frame)
    stage.check_noise()
    if settings.sampler.threshold is not None and stage.bounds is not None:
        found = bounds(experiment, data, stage, settings.sampler.threshold)
        stage.cpu().bounds = found
    return stage


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
