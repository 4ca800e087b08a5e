"""An evaluation of data on disk, as its settings say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from sciffusion.evaluation.evaluation import Evaluation
from sciffusion.evaluation.protocol import evaluate
from sciffusion.evaluation.settings import DataSource, EvaluationSettings
from sciffusion.fields.open import open_source
from sciffusion.fields.reader import is_ensemble_store, open_ensemble

__all__ = ["evaluate_files"]


def evaluate_files(settings: EvaluationSettings, **options: Any) -> Evaluation:
    """Open the data and judge them. ``options`` of `evaluate` that change no number: progress, state."""
    return evaluate(
        _opened(settings.ensembles, settings.partial),
        _open(settings.reference),
        baselines=_opened(settings.baselines, settings.partial),
        coarse=None if settings.coarse is None else _open(settings.coarse),
        training=None if settings.training is None else _open(settings.training),
        grid=settings.dims,
        periodic=settings.periodic,
        member=settings.member,
        variables=settings.variables,
        estimator=settings.estimator,
        window=settings.window,
        block=settings.block,
        force_indices=settings.force_indices,
        **options,
    )


def _opened(sources: Mapping[str, DataSource], partial: bool) -> dict[str, xr.Dataset]:
    return {name: _open(source, partial=partial) for name, source in sources.items()}


def _open(source: DataSource, *, partial: bool = False) -> xr.Dataset:
    """An ensemble store of ours, complete unless ``partial``, or any other data."""
    if len(source.paths) == 1 and is_ensemble_store(Path(source.paths[0])):
        return open_ensemble(source.paths[0], partial=partial).rename(source.rename)
    return open_source(source)
