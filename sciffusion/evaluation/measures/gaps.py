"""Spectra of fields with gaps (coasts, swaths), and spectra in time."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import xarray as xr
from scipy import fft, signal
from scipy.special import gamma

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.domain import Domain
from sciffusion.evaluation.measures.places import grid_of, mapped
from sciffusion.evaluation.spectra import Shells, half_octaves

__all__ = ["masked_spectrum", "temporal_spectrum"]

WIDTH = 1e-3  # relative difference of the two Gaussians


def masked_spectrum(
    field: xr.DataArray, dims: Sequence[str] | None = None, *, periodic: Sequence[str] | None = None
) -> xr.DataArray:
    """Power density by wavenumber of a field with gaps, of any shape, without leakage from their edges.

    The variance of the field in octave-wide bands about each wavenumber, from differences of two Gaussian averages,
    each over the cells that are there (the delta-variance of Arévalo et al. 2012,
    doi:10.1111/j.1365-2966.2012.21789.x). A power law keeps its slope, and its level up to the known factor of the
    band's width, which is taken out for a slope of -3 in one dimension.

    Returns
    -------
    DataArray (..., wavenumber): power per unit of wavenumber at four wavenumbers per octave.
    """
    grid = grid_of(field, dims, periodic)
    basis = Domain.of(grid).basis
    if not isinstance(basis, Shells):
        raise SciffusionError("a globe has no plane wavenumbers", "cut a region out, or use power_spectrum")
    edges = half_octaves(2 * basis.width, basis.nyquist)
    wavenumber = np.unique(np.concatenate([edges[1:], edges[1:] / 2**0.25]))
    power = mapped(partial(_delta_variance, basis, wavenumber), [field], grid.dims, {"wavenumber": len(wavenumber)})
    length, units = basis.wavelength
    return power.assign_coords(
        wavenumber=("wavenumber", wavenumber, {"units": basis.units}),
        wavelength=("wavenumber", length / wavenumber, {"units": units}),
    ).assign_attrs(long_name=f"power density of {field.name or 'the field'}")


def _delta_variance(basis: Shells, wavenumber: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Mean square of the band-passed field over the cells that are there, as a density."""
    mask = np.isfinite(field)
    if not mask.any():
        return np.full(len(wavenumber), np.nan)
    inside = np.where(mask, field - field[mask].mean(), 0)
    padding = [(0, 0) if wraps else (0, n) for n, wraps in zip(field.shape, basis.periodic, strict=True)]
    shape = tuple(n + after for n, (_, after) in zip(field.shape, padding, strict=True))
    k2 = _squared_wavenumber(shape, basis.spacing)
    modes = [fft.rfftn(np.pad(part, padding)) for part in (inside, mask.astype(np.float64))]
    crop = tuple(slice(n) for n in field.shape)
    rank = field.ndim
    unit = 0.5 * rank * np.pi ** (rank / 2) / gamma(rank / 2 + 1)  # half the surface of the unit ball
    found = []
    for k in wavenumber:
        variance = 1 / (2 * np.pi**2 * k**2)  # the band is centred on k
        wide, narrow = (_average(modes, k2, variance * (1 + side * WIDTH), shape, crop) for side in (1, -1))
        with np.errstate(invalid="ignore"):
            band = np.where(mask, narrow - wide, 0)
        gain = (4 * np.pi**2 * variance * WIDTH) ** 2
        # mean square = density in n dimensions x integral of |filter|^2, which is a moment of a Gaussian
        integral = gain * 2 * unit * gamma(rank / 2 + 2) / (2 * (4 * np.pi**2 * variance) ** (rank / 2 + 2))
        found.append((band**2).sum() / mask.sum() / integral * 2 * unit * k ** (rank - 1))
    slope = 2.0 + rank  # of the density in n dimensions
    bias = 2 ** (slope / 2) * gamma(rank / 2 + 2 - slope / 2) / gamma(rank / 2 + 2)
    return np.array(found) / bias


def _average(
    modes: Sequence[np.ndarray], k2: np.ndarray, variance: float, shape: tuple[int, ...], crop: tuple[slice, ...]
) -> np.ndarray:
    """Gaussian average of variance ``variance`` over the cells that are there."""
    kernel = np.exp(-2 * np.pi**2 * k2 * variance)
    values, share = (fft.irfftn(part * kernel, s=shape)[crop] for part in modes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(values / share)


def _squared_wavenumber(shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    axes = [fft.fftfreq(n, d) for n, d in zip(shape[:-1], spacing[:-1], strict=True)]
    mesh = np.meshgrid(*axes, fft.rfftfreq(shape[-1], spacing[-1]), indexing="ij")
    return np.asarray(sum(k**2 for k in mesh))


def temporal_spectrum(
    field: xr.DataArray, dim: str = "time", *, window: str = "hann", detrend: bool = True
) -> xr.DataArray:
    """Power density in time of every cell, (..., frequency), by ``scipy.signal.periodogram``.

    Frequencies are in cycles per day for dates, else per unit of the coordinate. Its integral over the frequency is the
    variance about the trend. Raises SciffusionError for unequal steps.
    """
    step, units = _step(field, dim)
    series = field.transpose(..., dim)
    frequency, _ = signal.periodogram(np.zeros(series.sizes[dim]), 1 / step)

    def spectrum(one: np.ndarray) -> np.ndarray:
        level = signal.detrend(one, type="linear" if detrend else "constant")
        return np.asarray(signal.periodogram(level, 1 / step, window=window, detrend=False)[1])

    power = mapped(spectrum, [series], [dim], {"frequency": len(frequency)})
    power = power.assign_coords(frequency=("frequency", frequency, {"units": units}))
    return power.assign_attrs(long_name=f"power density of {field.name or 'the field'} in time", window=window)


def _step(field: xr.DataArray, dim: str) -> tuple[float, str]:
    """The step of ``dim`` and the units of the frequency."""
    values = field[dim].values if dim in field.coords else np.arange(field.sizes[dim])
    steps = np.diff(values)
    if len(steps) < 3:
        raise SciffusionError(f"{dim} has {len(values)} values", "a spectrum in time needs at least four")
    dates = steps.dtype.kind in "mO"
    seconds = np.array([_seconds(step) for step in steps]) if dates else steps.astype(np.float64)
    if not np.allclose(seconds, seconds[0], rtol=1e-6):
        raise SciffusionError(f"the steps of {dim} are unequal", "interpolate to equal steps first")
    units = str(field[dim].attrs.get("units", "step")) if dim in field.coords else "step"
    return (
        (abs(float(seconds[0])) / 86400, "cycles per day") if dates else (abs(float(seconds[0])), f"cycles per {units}")
    )


def _seconds(step: object) -> float:
    return float(step / np.timedelta64(1, "s")) if isinstance(step, np.timedelta64) else float(step.total_seconds())  # type: ignore[attr-defined]
