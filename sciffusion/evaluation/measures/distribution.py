"""Distributions of values compared: densities, quantiles, distances. Weighted, NaN left out, exact (by sorting).

``dims`` are pooled, all by default; the others are kept. ``weights`` (for instance ``cos(latitude)``) broadcast.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import xarray as xr
from scipy import stats

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.distributions import LEVELS

__all__ = ["exceedance_ratio", "kolmogorov_smirnov", "log_density", "quantile_pairs", "wasserstein", "wet_fraction"]

Dims = Sequence[str] | None


def wasserstein(
    first: xr.DataArray, second: xr.DataArray, dims: Dims = None, weights: xr.DataArray | None = None
) -> xr.DataArray:
    """Wasserstein-1 distance of the distributions of two arrays, in their units (``scipy.stats``)."""
    found = _compared(stats.wasserstein_distance, first, second, dims, weights)
    return found.assign_attrs(long_name="Wasserstein-1 distance", units=first.attrs.get("units", ""))


def kolmogorov_smirnov(
    first: xr.DataArray, second: xr.DataArray, dims: Dims = None, weights: xr.DataArray | None = None
) -> xr.DataArray:
    """Largest distance of the two cumulative distributions.

    No p-value: values on a grid are not independent. Use the distance of two parts of the truth as a yardstick.
    """
    return _compared(_largest_distance, first, second, dims, weights).assign_attrs(
        long_name="Kolmogorov-Smirnov distance", units="1"
    )


def quantile_pairs(
    first: xr.DataArray,
    second: xr.DataArray,
    dims: Dims = None,
    levels: Sequence[float] | np.ndarray = LEVELS,
    weights: xr.DataArray | None = None,
) -> xr.Dataset:
    """Quantiles ``first`` and ``second`` (..., level), to 99.99 % by default: a QQ plot."""
    function = partial(_quantiles, np.asarray(levels))
    found = {}
    for name, array in (("first", first), ("second", second)):
        one = _pooled(function, [(array, dims)], weights, {"level": len(levels)})
        found[name] = one.assign_coords(level=list(levels)).assign_attrs(units=array.attrs.get("units", ""))
    return xr.Dataset(found)


def log_density(
    field: xr.DataArray,
    edges: Sequence[float] | np.ndarray,
    dims: Dims = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Natural logarithm of the probability density in the classes between ``edges``, (..., class); -inf where empty."""
    bounds = np.asarray(edges, dtype=np.float64)
    found = _pooled(partial(_log_density, bounds), [(field, dims)], weights, {"class": len(bounds) - 1})
    middle = (bounds[1:] + bounds[:-1]) / 2
    return found.assign_coords({"class": middle}).assign_attrs(long_name="log density")


def exceedance_ratio(
    first: xr.DataArray,
    second: xr.DataArray,
    thresholds: Sequence[float],
    dims: Dims = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """How much more often ``first`` exceeds each threshold than ``second``, (..., threshold)."""
    marks = xr.DataArray(list(thresholds), dims="threshold", coords={"threshold": list(thresholds)})
    often = [_mean((one > marks).where(one.notnull()), _dims(one, dims), weights) for one in (first, second)]
    return (often[0] / often[1]).assign_attrs(long_name="ratio of frequencies of exceedance", units="1")


def wet_fraction(
    field: xr.DataArray, threshold: float = 1.0, dims: Dims = None, weights: xr.DataArray | None = None
) -> xr.DataArray:
    """Share of values of at least ``threshold`` (1 mm per day by convention, in the units of the field)."""
    wet = (field >= threshold).where(field.notnull())
    return _mean(wet, _dims(field, dims), weights).assign_attrs(
        long_name=f"share of values >= {threshold:g}", units="1"
    )


def _mean(values: xr.DataArray, dims: Sequence[str], weights: xr.DataArray | None) -> xr.DataArray:
    return values.mean(dims) if weights is None else values.weighted(weights.fillna(0)).mean(dims)


def _dims(array: xr.DataArray, dims: Dims) -> list[str]:
    return [str(dim) for dim in (array.dims if dims is None else dims) if dim in array.dims]


def _compared(
    function: Callable[..., float],
    first: xr.DataArray,
    second: xr.DataArray,
    dims: Dims,
    weights: xr.DataArray | None,
) -> xr.DataArray:
    def of(a: np.ndarray, b: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.asarray(function(a, b, u, v) if len(a) and len(b) else np.nan)

    return _pooled(of, [(first, dims), (second, dims)], weights, {})


def _pooled(
    function: Callable[..., np.ndarray],
    arrays: Sequence[tuple[xr.DataArray, Dims]],
    weights: xr.DataArray | None,
    out: dict[str, int],
) -> xr.DataArray:
    """``function`` of the values that are there, pooled over their dims, and of their weights."""
    pooled = [array for one, dims in arrays for array in [one] if _dims(one, dims)]
    if len(pooled) < len(arrays):
        raise SciffusionError("an array has none of the dims to pool", "name dims that both have")
    shares = [xr.ones_like(one, dtype=float) if weights is None else weights.broadcast_like(one) for one, _ in arrays]
    parts = [
        part.stack(
            {f"pool{i % len(arrays)}": _dims(arrays[i % len(arrays)][0], arrays[i % len(arrays)][1])},
            create_index=False,
        )
        for i, part in enumerate([*(one for one, _ in arrays), *shares])
    ]

    def clean(*values: np.ndarray) -> np.ndarray:
        half = len(values) // 2
        use = [np.isfinite(a) & (w > 0) for a, w in zip(values[:half], values[half:], strict=True)]
        return function(*(a[u].astype(np.float64) for a, u in zip(values, [*use, *use], strict=True)))

    names = [f"pool{i}" for i in range(len(arrays))]
    found: xr.DataArray = xr.apply_ufunc(
        clean,
        *parts,
        input_core_dims=[[name] for name in [*names, *names]],
        output_core_dims=[list(out)],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": out, "allow_rechunk": True},
    )
    return found


def _largest_distance(first: np.ndarray, second: np.ndarray, u: np.ndarray, v: np.ndarray) -> float:
    values = np.sort(np.concatenate([first, second]))
    return float(np.abs(_cumulative(first, u, values) - _cumulative(second, v, values)).max())


def _cumulative(sample: np.ndarray, weights: np.ndarray, at: np.ndarray) -> np.ndarray:
    order = np.argsort(sample)
    total = np.concatenate([[0], np.cumsum(weights[order])]) / weights.sum()
    return np.asarray(total[np.searchsorted(sample[order], at, side="right")])


def _quantiles(levels: np.ndarray, sample: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Linear between order statistics, as ``numpy.quantile`` where weights are equal."""
    if not len(sample):
        return np.full(len(levels), np.nan)
    order = np.argsort(sample)
    share = np.cumsum(weights[order]) - weights[order]
    last = share[-1] if len(sample) > 1 else 1.0
    return np.asarray(np.interp(levels, share / last, sample[order]))


def _log_density(edges: np.ndarray, sample: np.ndarray, weights: np.ndarray) -> np.ndarray:
    area, _ = np.histogram(sample, edges, weights=weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(area / weights.sum() / np.diff(edges)))
