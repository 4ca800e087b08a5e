"""Scores as functions: xarray in, xarray out, one call each.

Every function takes an ensemble and its reference, both DataArrays or both Datasets (scored variable by variable), in
memory, lazy or dask-backed, and the options of `accumulate.Options`: ``member``, ``dims`` or ``keep``, ``weights``,
``over``, ``memory``, ``backend``, ``device``. ``interval=0.95`` adds the dim ``estimate`` with value, lower and upper,
from a block bootstrap over time, and ``block`` sets the length of its blocks. Attributes say how a number was computed.
The measures behind them can be accumulated in parts and merged (`accumulate.accumulate`).
"""

from collections.abc import Sequence
from typing import TypeVar, Unpack

import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation import dispersion, events, single_cells, whole_fields
from sciffusion.evaluation.accumulate import Options, accumulate
from sciffusion.evaluation.crps import Estimator
from sciffusion.evaluation.measure import Measure
from sciffusion.evaluation.single_cells import CRPS

__all__ = [
    "acc",
    "bias",
    "binned_spread_skill",
    "brier_score",
    "crps",
    "energy_score",
    "fractions_skill_score",
    "mae",
    "mse",
    "pit_histogram",
    "pooled_crps",
    "quantile_score",
    "rank_histogram",
    "reliability",
    "rmse",
    "roc",
    "roc_area",
    "score",
    "skill_score",
    "spread",
    "spread_skill",
    "threshold_weighted_crps",
    "variogram_score",
]

Data = TypeVar("Data", xr.DataArray, xr.Dataset)
Levels = float | Sequence[float]


class Settings(Options, total=False):
    """The options, and those of the interval."""

    interval: float | None
    block: int | None


def score(measure: Measure, ensemble: Data, reference: Data, *others: Data, **settings: Unpack[Settings]) -> Data:
    """Any measure of `single_cells`, `dispersion`, `events` or `whole_fields`.

    ``others`` are the fields named by ``measure.extras``.

    Raises SciffusionError when the reference lacks a variable of the ensemble, and as `accumulate` does.
    """
    if not isinstance(ensemble, xr.Dataset):
        return _one(measure, ensemble, reference, others, settings)
    names = [str(name) for name, array in ensemble.data_vars.items() if array.dtype.kind in "fiu" and array.ndim]
    for name in names:
        if not all(isinstance(data, xr.Dataset) and name in data for data in (reference, *others)):
            raise SciffusionError(f"there is no {name!r} to compare with", "choose variables that all have")
    found = {n: _one(measure, ensemble[n], reference[n], [o[n] for o in others], settings) for n in names}
    return xr.Dataset(found)


def _one(
    measure: Measure,
    ensemble: xr.DataArray,
    reference: xr.DataArray,
    others: Sequence[xr.DataArray],
    settings: Settings,
) -> xr.DataArray:
    options = dict(settings)
    interval, block = options.pop("interval", None), options.pop("block", None)
    extras = dict(zip(measure.extras, others, strict=True))
    return accumulate(measure, ensemble, reference, **options, **extras).result(interval, block)  # type: ignore[arg-type]


def _levels(values: Levels) -> tuple[float, ...]:
    found = tuple(float(v) for v in ([values] if isinstance(values, int | float) else values))
    if not found:
        raise SciffusionError("no threshold or level is given", "give one or more")
    return found


def _cells(sizes: int | Sequence[int]) -> tuple[int, ...]:
    """Sizes of blocks or windows."""
    found = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    if not found or min(found) < 1:
        raise SciffusionError(f"sizes {found}", "give one or more numbers of cells, each 1 or more")
    return found


def crps(
    ensemble: Data,
    reference: Data,
    *,
    estimator: Estimator = "fair",
    alpha: float = 0.95,
    stream: int | None = None,
    **settings: Unpack[Settings],
) -> Data:
    """Continuous ranked probability score, in the units of the reference.

    Parameters
    ----------
    ensemble, reference
        (member, ...) and (...).
    estimator
        fair (unbiased in the number of members), standard (of the empirical distribution), or almost fair, of which
        ``alpha`` is the fair share (Lang et al. 2024, arXiv:2412.15832).
    stream
        Hold only this many members at a time: an unbiased estimate of the fair score, whose standard error per cell
        is in the attribute ``streaming_error``.
    settings
        See the module.
    """
    if stream is not None and stream < 2:
        raise SciffusionError(f"stream={stream}", "hold two or more members at a time")
    measure = CRPS(estimator, alpha) if stream is None else single_cells.Streamed(at_a_time=stream)
    return score(measure, ensemble, reference, **settings)


def threshold_weighted_crps(
    ensemble: Data, reference: Data, thresholds: Levels, *, upper: bool = True, **settings: Unpack[Settings]
) -> Data:
    """Fair CRPS of values above (or below) each threshold, dim ``threshold`` (Gneiting & Ranjan 2011)."""
    return score(single_cells.ThresholdCRPS(_levels(thresholds), upper), ensemble, reference, **settings)


def quantile_score(
    ensemble: Data, reference: Data, levels: Levels = (0.05, 0.5, 0.95), **settings: Unpack[Settings]
) -> Data:
    """Pinball loss of the ensemble's quantiles, dim ``level``."""
    wanted = _levels(levels)
    if not all(0 < level < 1 for level in wanted):
        raise SciffusionError(f"quantiles at {', '.join(f'{level:g}' for level in wanted)}", "give levels from 0 to 1")
    return score(single_cells.QuantileScore(wanted), ensemble, reference, **settings)


def rmse(ensemble: Data, reference: Data, **settings: Unpack[Settings]) -> Data:
    """Root mean squared error of the ensemble mean."""
    return score(single_cells.ErrorOfMean("rmse"), ensemble, reference, **settings)


def mse(ensemble: Data, reference: Data, **settings: Unpack[Settings]) -> Data:
    """Mean squared error of the ensemble mean."""
    return score(single_cells.ErrorOfMean("mse"), ensemble, reference, **settings)


def mae(ensemble: Data, reference: Data, **settings: Unpack[Settings]) -> Data:
    """Mean absolute error of the ensemble mean."""
    return score(single_cells.ErrorOfMean("mae"), ensemble, reference, **settings)


def bias(ensemble: Data, reference: Data, **settings: Unpack[Settings]) -> Data:
    """Mean of ensemble mean minus reference."""
    return score(single_cells.ErrorOfMean("bias"), ensemble, reference, **settings)


def acc(
    ensemble: Data, reference: Data, climatology: Data, *, centred: bool = True, **settings: Unpack[Settings]
) -> Data:
    """Anomaly correlation of the ensemble mean, of departures from ``climatology``."""
    return score(single_cells.ACC(centred), ensemble, reference, climatology, **settings)


def spread(ensemble: Data, reference: Data, **settings: Unpack[Settings]) -> Data:
    """Root of the mean unbiased variance of the members, where the reference is there."""
    return score(dispersion.Dispersion("spread"), ensemble, reference, **settings)


def spread_skill(ensemble: Data, reference: Data, **settings: Unpack[Settings]) -> Data:
    """sqrt((m + 1) / m) x spread over RMSE of the mean: 1 is calibrated, less over-confident (Fortin et al. 2014)."""
    return score(dispersion.Dispersion("spread_skill"), ensemble, reference, **settings)


def binned_spread_skill(
    ensemble: Data, reference: Data, *, bins: int = 12, scale: float = 1.0, **settings: Unpack[Settings]
) -> Data:
    """Spread and RMSE of the mean, dim ``quantity``, in ``bins`` classes of spread with nearly equal area.

    Spreads are told apart by 4 % from 1/1000 to 64 times ``scale``, which should be about the sd of the variable.
    """
    return score(dispersion.BinnedSpreadSkill(bins, scale), ensemble, reference, **settings)


def rank_histogram(ensemble: Data, reference: Data, *, seed: int = 0, **settings: Unpack[Settings]) -> Data:
    """Frequency of the reference's rank among the members over that of a flat histogram, dim ``rank``.

    Ties are broken at random, by ``seed`` and cell alone. With ``interval``, the attributes ``p_flat``, ``p_slope``
    and ``p_curvature`` test the histogram against a flat one by the same block bootstrap.
    """
    return score(dispersion.Ranks(seed), ensemble, reference, **settings)


def pit_histogram(ensemble: Data, reference: Data, *, bins: int = 10, **settings: Unpack[Settings]) -> Data:
    """Density of the probability integral transform relative to a flat one, dim ``probability``."""
    return score(events.PIT(bins), ensemble, reference, **settings)


def brier_score(
    ensemble: Data,
    reference: Data,
    thresholds: Levels,
    *,
    upper: bool = True,
    fair: bool = True,
    **settings: Unpack[Settings],
) -> Data:
    """Brier score of exceeding each threshold (falling below it if not ``upper``), dim ``threshold``."""
    return score(events.Brier(_levels(thresholds), upper, fair), ensemble, reference, **settings)


def roc(
    ensemble: Data, reference: Data, thresholds: Levels, *, upper: bool = True, **settings: Unpack[Settings]
) -> Data:
    """Relative operating characteristic of exceeding each threshold: dims ``threshold``, ``probability``, ``rate``."""
    return score(events.ROC(_levels(thresholds), upper), ensemble, reference, **settings)


def roc_area(
    ensemble: Data, reference: Data, thresholds: Levels, *, upper: bool = True, **settings: Unpack[Settings]
) -> Data:
    """Area under the relative operating characteristic, dim ``threshold``: 1/2 is no better than chance."""
    return score(events.ROCArea(_levels(thresholds), upper), ensemble, reference, **settings)


def reliability(
    ensemble: Data, reference: Data, thresholds: Levels, *, upper: bool = True, **settings: Unpack[Settings]
) -> Data:
    """How often each threshold was exceeded, by forecast probability, as observed and by isotonic regression."""
    return score(events.Reliability(_levels(thresholds), upper), ensemble, reference, **settings)


def energy_score(ensemble: Data, reference: Data, **settings: Unpack[Settings]) -> Data:
    """Fair energy score of whole fields, per square root of the area: a uniform error of 1 scores 1."""
    return score(whole_fields.Energy(), ensemble, reference, **settings)


def variogram_score(ensemble: Data, reference: Data, *, order: float = 0.5, **settings: Unpack[Settings]) -> Data:
    """Fair variogram score of pairs of cells 1, 2 and 4 cells apart along every axis."""
    return score(whole_fields.Variogram(order), ensemble, reference, **settings)


def pooled_crps(
    ensemble: Data,
    reference: Data,
    sizes: int | Sequence[int] = (1, 2, 4, 8),
    *,
    estimator: Estimator = "fair",
    **settings: Unpack[Settings],
) -> Data:
    """CRPS after averaging over blocks of ``sizes`` cells along each axis, dim ``pool``."""
    return score(whole_fields.PooledCRPS(_cells(sizes), estimator), ensemble, reference, **settings)


def fractions_skill_score(
    ensemble: Data,
    reference: Data,
    thresholds: Levels,
    windows: int | Sequence[int] = (1, 3, 9),
    *,
    upper: bool = True,
    **settings: Unpack[Settings],
) -> Data:
    """Fractions skill score of exceeding each threshold (falling below it if not ``upper``) in windows of cells.

    Dims ``threshold`` and ``window``.
    """
    return score(whole_fields.FSS(_levels(thresholds), _cells(windows), upper), ensemble, reference, **settings)


def skill_score(
    ensemble: Data,
    reference: Data,
    baseline: Data,
    measure: Measure | None = None,
    **settings: Unpack[Settings],
) -> Data:
    """1 - score of the ensemble over score of the baseline (an ensemble, or without members), on the cells both have.

    ``measure`` is any measure of cells; the default is the fair CRPS. Intervals resample both together.
    """
    if isinstance(measure, whole_fields.FieldMeasure):
        raise SciffusionError("the skill of a score of whole fields", "divide the scores of both, case by case")
    return score(single_cells.Skill(measure or CRPS()), ensemble, reference, baseline, **settings)
