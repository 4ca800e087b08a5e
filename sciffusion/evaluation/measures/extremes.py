"""Rare events: return levels with intervals, dependence of the upper tails.

Fits are by ``scipy.stats`` (maximum likelihood); intervals by the delta method from the curvature of the likelihood
(Coles 2001, section 3.3).
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import xarray as xr
from scipy import stats
from scipy.special import gamma

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.measures.places import mapped

__all__ = ["gev_levels", "return_levels_gev", "return_levels_gpd", "tail_dependence"]

LEAST = 10  # maxima or exceedances that a fit needs
QUANTILE = 1.959964
Parameters = np.ndarray


def return_levels_gev(
    maxima: xr.DataArray, periods: Sequence[float] = (2, 5, 10, 20, 50, 100), dim: str = "year"
) -> xr.Dataset:
    """Levels exceeded once in so many blocks on average, by a generalised extreme value distribution.

    Parameters
    ----------
    maxima
        One maximum per block (a year, say) along ``dim``.
    periods
        In blocks, above 1.

    Returns
    -------
    Dataset with ``level`` and ``interval`` (..., period, bound): 95 %; ``parameters`` (..., parameter): shape (positive
    is heavy), location, scale. NaN with fewer than ten maxima, or where no fit was found.
    """
    _check(periods)
    return _levels(
        maxima, dim, periods, partial(_gev, np.asarray(periods, dtype=float)), ("shape", "location", "scale")
    )


def return_levels_gpd(
    field: xr.DataArray,
    periods: Sequence[float],
    dim: str = "time",
    *,
    quantile: float = 0.95,
    per_block: float = 365.25,
) -> xr.Dataset:
    """The same from the values beyond the ``quantile`` of each series, by a generalised Pareto distribution.

    ``per_block`` values make a block: 365.25 for daily data and periods in years. Exceedances are taken to be
    independent; decluster first where they are not. ``parameters``: shape, threshold, scale.
    """
    _check(periods)
    function = partial(_gpd, np.asarray(periods, dtype=float), quantile, per_block)
    return _levels(field, dim, periods, function, ("shape", "threshold", "scale"))


def tail_dependence(
    first: xr.DataArray,
    second: xr.DataArray,
    quantiles: Sequence[float] = (0.9, 0.95, 0.99),
    dims: Sequence[str] = ("time",),
) -> xr.Dataset:
    """How extremes go together (Coles, Heffernan & Tawn 1999): ``chi`` and ``chi_bar`` (..., quantile).

    chi = P(second extreme | first extreme), which tends to 0 where tails are independent (any Gaussian pair of
    correlation below 1) and to 1 where they are the same. chi_bar tends to 1 for dependent tails and to the correlation
    for a Gaussian pair; it tells how fast chi vanishes.
    """
    first, second = (one.stack(pool=list(dims), create_index=False) for one in xr.align(first, second, join="exact"))
    both = mapped(
        partial(_chi, np.asarray(quantiles)), [first, second], ["pool"], {"part": 2, "quantile": len(quantiles)}
    )
    both = both.assign_coords(quantile=list(quantiles))
    return xr.Dataset({"chi": both.isel(part=0), "chi_bar": both.isel(part=1)})


def _chi(quantiles: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    use = np.isfinite(first) & np.isfinite(second)
    ranks = [stats.rankdata(one[use]) / (use.sum() + 1) for one in (first, second)]
    joint = np.array([np.mean((ranks[0] > q) & (ranks[1] > q)) for q in quantiles])
    with np.errstate(divide="ignore", invalid="ignore"):
        chi_bar = 2 * np.log(1 - quantiles) / np.log(joint) - 1
    return np.stack([joint / (1 - quantiles), np.where(joint > 0, chi_bar, -1.0)])


def gev_levels(maxima: np.ndarray, periods: Sequence[float]) -> np.ndarray:
    """Return levels (period, ...) of many series of maxima (n, ...) at once: GEV by L-moments, in closed form.

    In small samples as efficient as maximum likelihood (Hosking 1990, doi:10.1111/j.2517-6161.1990.tb01775.x). NaN
    where a value is missing.
    """
    _check(periods)
    with np.errstate(invalid="ignore", divide="ignore"):
        shape, location, scale = _l_moments(maxima)
        reduced = -np.log1p(-1 / np.asarray(periods, dtype=np.float64)).reshape(-1, *[1] * (maxima.ndim - 1))
        return np.asarray(location + scale / shape * (1 - reduced**shape))


def _check(periods: Sequence[float]) -> None:
    if min(periods) <= 1:
        raise SciffusionError(f"a return period of {min(periods):g} blocks", "give periods longer than one block")


def _levels(
    field: xr.DataArray,
    dim: str,
    periods: Sequence[float],
    function: Callable[[np.ndarray], np.ndarray],
    names: tuple[str, ...],
) -> xr.Dataset:
    size = len(periods)
    found = mapped(function, [field], [dim], {"entry": 3 * size + 3})
    coords = {"period": list(periods), "bound": ["lower", "upper"], "parameter": list(names)}
    units = {"units": field.attrs.get("units", "")}
    parts = [found.isel(entry=slice(i * size, (i + 1) * size)).rename(entry="period") for i in range(3)]
    ds = xr.Dataset(
        {"level": parts[0].assign_attrs(units), "interval": xr.concat(parts[1:], "bound").assign_attrs(units)}
    )
    ds["interval"] = ds["interval"].transpose(..., "period", "bound")
    return ds.assign(parameters=found.isel(entry=slice(-3, None)).rename(entry="parameter")).assign_coords(coords)


def _gev(periods: np.ndarray, sample: np.ndarray) -> np.ndarray:
    sample = sample[np.isfinite(sample)].astype(np.float64)
    if len(sample) < LEAST or np.ptp(sample) == 0:
        return np.full(3 * len(periods) + 3, np.nan)
    start = _l_moments(sample)
    fitted = np.array(stats.genextreme.fit(sample, float(start[0]), loc=float(start[1]), scale=float(start[2])))

    def level(theta: Parameters) -> np.ndarray:
        return np.asarray(stats.genextreme.isf(1 / periods, *theta))

    low, high = _delta(fitted, lambda theta: stats.genextreme.nnlf(theta, sample), level)
    return np.concatenate([level(fitted), low, high, [-fitted[0], *fitted[1:]]])


def _gpd(periods: np.ndarray, quantile: float, per_block: float, sample: np.ndarray) -> np.ndarray:
    sample = sample[np.isfinite(sample)].astype(np.float64)
    threshold = np.quantile(sample, quantile) if len(sample) else np.nan
    beyond = sample[sample > threshold] - threshold
    if len(beyond) < LEAST:
        return np.full(3 * len(periods) + 3, np.nan)
    shape, _, scale = stats.genpareto.fit(beyond, floc=0)
    rate = len(beyond) / len(sample) * per_block

    def level(theta: Parameters) -> np.ndarray:
        return np.asarray(threshold + stats.genpareto.isf(1 / (rate * periods), theta[0], scale=theta[1]))

    def loss(theta: Parameters) -> float:
        return float(stats.genpareto.nnlf((theta[0], 0, theta[1]), beyond))

    fitted = np.array([shape, scale])
    low, high = _delta(fitted, loss, level)
    return np.concatenate([level(fitted), low, high, [shape, threshold, scale]])


def _l_moments(sample: np.ndarray) -> np.ndarray:
    """Shape (scipy's sign), location and scale (3, ...) of series (n, ...) (Hosking 1990)."""
    x, n = np.sort(sample, axis=0), len(sample)
    i = np.arange(n) / (n - 1)
    b0, b1, b2 = x.mean(axis=0), np.tensordot(i, x, 1) / n, np.tensordot(i * (i * (n - 1) - 1) / (n - 2), x, 1) / n
    l2 = 2 * b1 - b0
    c = 2 / (3 + (6 * b2 - 6 * b1 + b0) / l2) - np.log(2) / np.log(3)
    k = 7.8590 * c + 2.9554 * c**2
    k = np.where(np.abs(k) > 1e-6, k, 1e-6)
    scale = l2 * k / ((1 - 2.0**-k) * gamma(1 + k))
    return np.stack([k, b0 - scale * (1 - gamma(1 + k)) / k, scale])


def _delta(
    fitted: Parameters, loss: Callable[[Parameters], float], level: Callable[[Parameters], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of ``level`` from the Hessian of the negative log-likelihood; NaN where that is not positive."""
    step = 1e-3 * np.maximum(np.abs(fitted), np.abs(fitted[-1]) * np.array([0.1] + [1.0] * (len(fitted) - 1)))
    unit = np.diag(step)
    n = len(fitted)
    hessian = np.empty((n, n))
    for i, j in np.ndindex(n, n):
        corners = [s * t * loss(fitted + s * unit[i] + t * unit[j]) for s in (1, -1) for t in (1, -1)]
        hessian[i, j] = sum(corners) / (4 * step[i] * step[j])
    slope = np.stack([(level(fitted + unit[i]) - level(fitted - unit[i])) / (2 * step[i]) for i in range(n)])
    try:
        variance = np.einsum("ip,ij,jp->p", slope, np.linalg.inv(hessian), slope)
    except np.linalg.LinAlgError:
        variance = np.full(slope.shape[1], np.nan)
    half = QUANTILE * np.sqrt(np.where(variance > 0, variance, np.nan))
    return level(fitted) - half, level(fitted) + half
