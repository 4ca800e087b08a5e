"""Power, cross and ensemble spectra of fields in physical wavenumbers.

Power sums to the variance of the field (of the windowed field, for open domains); ``density=True`` gives power per unit
of wavenumber, the curve whose slope one reads. Cells that are NaN are left out of the window.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation.domain import Domain, Window
from sciffusion.evaluation.harmonics import Harmonics
from sciffusion.evaluation.layout import member_dim
from sciffusion.evaluation.measures.places import grid_of, mapped
from sciffusion.evaluation.spectra import EARTH_RADIUS, Basis, unresolved

__all__ = ["coherence", "cross_spectrum", "degree_spectrum", "ensemble_spectra", "power_spectrum", "ralsd"]

DIMS = ("band", "wavenumber")


def power_spectrum(
    field: xr.DataArray,
    dims: Sequence[str] | None = None,
    *,
    periodic: Sequence[str] | None = None,
    window: Window = "hann",
    density: bool = False,
) -> xr.DataArray:
    """Power of ``field`` by wavenumber: in shells on planes and in boxes, along latitude circles on a globe.

    Parameters
    ----------
    field
        Dims in any order; those that are not the grid's are kept.
    dims
        One to three grid dims; default: the horizontal ones.
    periodic
        Dims that wrap around; default: longitude, if it goes round the Earth.
    window
        hann or dct, for domains with open ends.
    density
        Power per unit of wavenumber instead of power.

    Returns
    -------
    DataArray (..., band, wavenumber) with coordinates wavenumber and wavelength and their units; band is dropped where
    there is one.

    Raises
    ------
    SciffusionError
        When the grid cannot be told, or a cosine transform is asked for on a domain that wraps around.
    """
    basis, space = _basis(field, dims, periodic, window)
    sums = mapped(partial(_power, basis), [field], space, _sizes(basis))
    return _labelled(sums, basis, density).assign_attrs(long_name=f"power of {field.name or 'the field'}")


def cross_spectrum(
    first: xr.DataArray,
    second: xr.DataArray,
    dims: Sequence[str] | None = None,
    *,
    periodic: Sequence[str] | None = None,
    window: Window = "hann",
) -> xr.Dataset:
    """Co-spectrum and quadrature spectrum of two fields, and the power of both; settings as ``power_spectrum``."""
    basis, space = _basis(first, dims, periodic, window)
    first, second = xr.align(first, second, join="exact")
    parts = mapped(partial(_cross, basis), [first, second], space, {"part": 4, **_sizes(basis)})
    names = ("power_first", "power_second", "co", "quadrature")
    return xr.Dataset({name: _labelled(parts.isel(part=i), basis, False) for i, name in enumerate(names)})


def coherence(
    first: xr.DataArray,
    second: xr.DataArray,
    over: Sequence[str] = (),
    dims: Sequence[str] | None = None,
    *,
    periodic: Sequence[str] | None = None,
    window: Window = "hann",
) -> xr.Dataset:
    """Squared ``coherence`` |<ab*>|^2 / (<aa*> <bb*>) and ``phase`` in degrees, by wavenumber.

    Means are over the modes of a shell and over the dims ``over``; two independent fields have a squared coherence of
    one over the number of modes and fields behind the mean.
    """
    cross = cross_spectrum(first, second, dims, periodic=periodic, window=window).mean(list(over))
    size = (cross["co"] ** 2 + cross["quadrature"] ** 2) / (cross["power_first"] * cross["power_second"])
    phase = np.rad2deg(xr.ufuncs.arctan2(cross["quadrature"], cross["co"]))
    text = {"coherence": "squared coherence", "phase": "phase by which the first leads"}
    return xr.Dataset(
        {
            "coherence": size.assign_attrs(long_name=text["coherence"], units="1"),
            "phase": phase.assign_attrs(long_name=text["phase"], units="degree"),
        }
    )


def ensemble_spectra(
    ensemble: xr.DataArray,
    reference: xr.DataArray,
    member: str | None = None,
    dims: Sequence[str] | None = None,
    *,
    over: Sequence[str] = (),
    periodic: Sequence[str] | None = None,
    window: Window = "hann",
) -> xr.Dataset:
    """Spectra of the truth, the members, their mean, their anomalies and the error of the mean, and what follows.

    ``anomalies`` is the members' departure from their mean, times (m + 1) / (m - 1), comparable with ``error``, the
    power of mean minus truth: ``spread_skill`` is the root of their ratio. ``coherence`` is that of mean and truth.
    Means are over ``over``, for instance ``["time"]``.
    """
    axis = member_dim(ensemble.to_dataset(name="field"), member)
    if axis is None:
        raise SciffusionError("there is no ensemble dimension", "name it: member=")
    space = list(grid_of(ensemble, dims, periodic).dims)
    spectrum = partial(power_spectrum, dims=space, periodic=periodic, window=window)
    m, mean = ensemble.sizes[axis], ensemble.mean(axis)
    found = {
        "truth": spectrum(reference).mean(list(over)),
        "members": spectrum(ensemble).mean([axis, *over]),
        "mean": spectrum(mean).mean(list(over)),
        "anomalies": spectrum(ensemble - mean).mean([axis, *over]) * ((m + 1) / (m - 1) if m > 1 else np.nan),
        "error": spectrum(mean - reference).mean(list(over)),
    }
    found["spread_skill"] = xr.ufuncs.sqrt(found["anomalies"] / found["error"])
    both = coherence(mean, reference, over, space, periodic=periodic, window=window)
    return xr.Dataset(found).assign(coherence=both["coherence"]).assign_attrs(members=m)


def degree_spectrum(field: xr.DataArray, dims: Sequence[str] | None = None) -> xr.DataArray:
    """Power of ``field`` by degree of spherical harmonics, (..., degree); its sum is the area mean of the square.

    The field covers the globe on Gauss latitudes or equal steps, without gaps (a gap makes the spectrum NaN). Raises
    SciffusionError for other grids.
    """
    grid = grid_of(field, dims)
    north, east = grid.latitude_axis, grid.longitude_axis
    if grid.rank != 2 or north is None or east is None or not grid.periodic[east]:
        raise SciffusionError(
            "spherical harmonics need latitudes and longitudes of the whole globe", "see power_spectrum"
        )
    harmonics = Harmonics(grid.positions(north), grid.shape[east])
    space = [grid.dims[north], grid.dims[east]]
    power = mapped(lambda one: harmonics.power(one[None])[0], [field], space, {"degree": harmonics.degree + 1})
    degree = np.arange(harmonics.degree + 1)
    with np.errstate(divide="ignore"):
        length = 2 * np.pi * EARTH_RADIUS / np.sqrt(degree * (degree + 1.0))
    attrs = {"long_name": f"power of {field.name or 'the field'} by degree"}
    power = power.assign_coords(degree=("degree", degree), wavelength=("degree", length, {"units": "km"}))
    return power.assign_attrs(attrs)


def ralsd(power: xr.DataArray, reference: xr.DataArray, dim: str = "wavenumber") -> xr.DataArray:
    """Radially averaged log-spectral distance in dB: root mean square over ``dim`` of 10 log10(power / reference).

    CORDEX-ML-Bench (arXiv:2606.29172). Wavenumber zero, empty shells, and shells where neither has more than rounding
    leaves, as beyond the truncation of a spectral model, are left out. ``dim`` rises.
    """
    either = xr.ufuncs.fmax(power, reference).where(reference[dim] > 0)
    find = partial(unresolved, wavenumber=reference[dim].values)
    noise = xr.apply_ufunc(find, either, input_core_dims=[[dim]], output_core_dims=[[dim]], dask="parallelized")
    ratio = (power / reference).where((power > 0) & (reference > 0) & (reference[dim] > 0) & ~noise)
    distance: xr.DataArray = xr.ufuncs.sqrt(((10 * xr.ufuncs.log10(ratio)) ** 2).mean(dim))
    return distance.assign_attrs(long_name="log-spectral distance", units="dB")


def _basis(
    field: xr.DataArray, dims: Sequence[str] | None, periodic: Sequence[str] | None, window: Window
) -> tuple[Basis, list[str]]:
    grid = grid_of(field, dims, periodic)
    return Domain.of(grid, window).basis, list(grid.dims)


def _sizes(basis: Basis) -> dict[str, int]:
    return dict(zip(DIMS, (len(basis.bands), len(basis.wavenumber)), strict=True))


def _power(basis: Basis, field: np.ndarray) -> np.ndarray:
    modes = basis.coefficients(field[None], np.isfinite(field))[0]
    return basis.gather(np.abs(modes) ** 2)


def _cross(basis: Basis, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Power of both, co-spectrum and quadrature, (4, band, shell)."""
    valid = np.isfinite(first) & np.isfinite(second)
    a, b = (basis.coefficients(one[None], valid)[0] for one in (first, second))
    both = a * np.conj(b)
    return np.stack([basis.gather(x) for x in (np.abs(a) ** 2, np.abs(b) ** 2, both.real, both.imag)])


def _labelled(sums: xr.DataArray, basis: Basis, density: bool) -> xr.DataArray:
    factor = basis.density(np.ones(len(basis.wavenumber))) if density else np.ones(len(basis.wavenumber))
    length, units = basis.wavelength
    with np.errstate(divide="ignore"):
        wavelength = length / basis.wavenumber
    labelled = (sums * xr.DataArray(factor, dims="wavenumber")).assign_coords(
        band=list(basis.bands),
        wavenumber=("wavenumber", basis.wavenumber, {"units": basis.units}),
        wavelength=("wavenumber", wavelength, {"units": units}),
    )
    labelled = labelled.isel(band=0, drop=True) if labelled.sizes["band"] == 1 else labelled
    return labelled.assign_attrs(window=basis.window)
