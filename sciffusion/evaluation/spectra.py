"""Power spectra in physical wavenumbers: shells on planes and boxes, zonal on latitude-longitude spheres.

A basis turns fields (n, *grid) into Fourier coefficients and gathers power into (band, shell). The sum of the power
over all shells is the (windowed) variance of the field exactly, for every shape and spacing: shells are of the physical
wavenumber, cycles per unit of length, and the corners beyond the smallest Nyquist wavenumber are kept.

A domain that is not periodic is multiplied by a Hann window along its open axes and the power divided by the mean of
the squared window; without it the jump across the edge fills the fine scales with power that the field does not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import fft
from scipy.special import gamma

from sciffusion.evaluation.backend import NUMPY, Array, Backend

__all__ = ["EARTH_RADIUS", "Basis", "Shells", "Zonal", "half_octaves", "slope", "unresolved"]

EARTH_RADIUS = 6371.0  # km
USABLE = 0.8  # share of the Nyquist wavenumber up to which spectra are compared
CUT = 1e-3  # by which power falls at once beyond the truncation of a spectral model; smooth spectra do not
NOTHING = 1e-6  # share of the power that may be left there; packing into 16 bits leaves some 1e-9


class Basis(Protocol):
    """What a spectrum needs to know of a domain."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""

    @property
    def wavenumber(self) -> np.ndarray:
        """Wavenumber of every shell."""

    @property
    def nyquist(self) -> float:
        """The highest wavenumber that the grid resolves in every direction."""

    @property
    def units(self) -> str:
        """Units of the wavenumber."""

    @property
    def wavelength(self) -> tuple[float, str]:
        """Wavelength times wavenumber, and the units of wavelengths."""

    @property
    def window(self) -> str:
        """What was done about open boundaries."""

    def coefficients(self, fields: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Fields (n, *grid), where ``valid`` (*grid) is False of any value, to complex modes (n, *modes)."""

    def gather(self, power: np.ndarray) -> np.ndarray:
        """Real power of modes (*modes) to sums (band, shell)."""

    def density(self, sums: np.ndarray) -> np.ndarray:
        """Sums (..., shell) to power per unit of wavenumber."""

    def degrees(self, edges: np.ndarray) -> np.ndarray:
        """Independent real numbers behind the power of one field between successive edges, (band, len(edges) - 1)."""


@dataclass(frozen=True)
class Shells:
    """Shells of the wavenumber's length, on a grid of one to three axes with its own spacing on each.

    The width of a shell is the largest of the axes' fundamental wavenumbers, so that none is empty.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    periodic: tuple[bool, ...]
    length_units: str = ""

    bands: tuple[str, ...] = ("domain",)

    @property
    def units(self) -> str:
        """Units of the wavenumber."""
        return f"cycles per {self.length_units or 'unit length'}"

    @property
    def wavelength(self) -> tuple[float, str]:
        """Wavelengths are one over wavenumbers."""
        return 1.0, self.length_units or "unit length"

    @property
    def window(self) -> str:
        """What was done about open boundaries."""
        return "none (periodic)" if all(self.periodic) else "Hann along open axes, divided by its mean square"

    @property
    def width(self) -> float:
        """Width of a shell."""
        return max(1 / (n * d) for n, d in zip(self.shape, self.spacing, strict=True) if n > 1)

    @property
    def nyquist(self) -> float:
        """The smallest of the axes' Nyquist wavenumbers."""
        return min(0.5 / d for n, d in zip(self.shape, self.spacing, strict=True) if n > 1)

    @property
    def wavenumber(self) -> np.ndarray:
        """Mean wavenumber of the modes of each shell, (shell,)."""
        length, shell, multiplicity = self._modes
        return np.asarray(np.bincount(shell, length * multiplicity) / np.maximum(np.bincount(shell, multiplicity), 1))

    def coefficients(self, fields: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Modes whose gathered power is the weighted variance: the window's mean is removed, masked cells count 0."""
        taper = self._taper * valid
        anomaly = np.where(valid, fields, 0).astype(np.float64)
        axes = tuple(range(-len(self.shape), 0))
        anomaly -= (anomaly * taper).sum(axis=axes, keepdims=True) / taper.sum()
        scale = 1 / (np.sqrt((taper**2).mean()) * taper.size)
        return np.asarray(fft.rfftn(anomaly * taper, axes=axes) * scale)

    def power(self, fields: Array, backend: Backend = NUMPY) -> Array:
        """Power of ``fields`` (n, *grid) without gaps per shell, (n, shell), a few fields at a time."""
        _, shell, multiplicity = self._modes
        shells, axes = int(shell.max()) + 1, tuple(range(1, len(self.shape) + 1))
        found = backend.blank(fields, len(fields), shells)
        taper, flat = backend.array(self._taper), backend.array(self._taper.reshape(-1) / self._taper.sum())
        scale = backend.array(multiplicity / ((self._taper**2).mean() * self._taper.size**2))
        step = max(1, backend.values // (2 * self._taper.size))
        for start in range(0, len(fields), step):
            x = backend.double(backend.array(fields[start : start + step]))
            x = x - (x.reshape(len(x), -1) @ flat).reshape(-1, *[1] * len(axes))
            x *= taper
            modes = backend.xp.fft.rfftn(x, None, axes)
            power = (modes.real**2 + modes.imag**2).reshape(len(x), -1) * scale
            found[start : start + step] = backend.back(backend.binned(power, shell, shells), fields)
        return found

    def gather(self, power: np.ndarray) -> np.ndarray:
        """Sum over shells, counting twice the modes whose conjugates are not stored."""
        _, shell, multiplicity = self._modes
        return np.bincount(shell, power.reshape(-1) * multiplicity)[None]

    def density(self, sums: np.ndarray) -> np.ndarray:
        """Power per unit of wavenumber, (..., shell), free of the jitter of how many lattice points a shell holds.

        The mean power of the shell's modes times the modes that a continuum has between its edges: for slopes and
        curves. Shells beyond the Nyquist wavenumber, of which a part is missing, are completed.
        """
        rank, index = len(self.shape), np.arange(sums.shape[-1])
        inner, outer = (np.maximum(index + side, 0) * self.width for side in (-0.5, 0.5))
        ball = np.pi ** (rank / 2) / gamma(rank / 2 + 1)
        extent = np.prod([n * d for n, d in zip(self.shape, self.spacing, strict=True)])
        _, shell, multiplicity = self._modes
        ideal = ball * (outer**rank - inner**rank) * extent
        return np.asarray(sums * ideal / np.maximum(np.bincount(shell, multiplicity), 1) / self.width)

    def degrees(self, edges: np.ndarray) -> np.ndarray:
        """The number of modes; a window makes neighbours depend on each other, 2 to an open axis."""
        length, _, multiplicity = self._modes
        open_axes = sum(not wraps for wraps in self.periodic)
        return np.asarray(np.histogram(length, edges, weights=multiplicity)[0][None] / 2.0**open_axes)

    @cached_property
    def _modes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Wavenumber, shell and multiplicity of each mode of ``rfftn``, flattened."""
        axes = [fft.fftfreq(n, d) for n, d in zip(self.shape[:-1], self.spacing[:-1], strict=True)]
        last = fft.rfftfreq(self.shape[-1], self.spacing[-1])
        mesh = np.meshgrid(*axes, last, indexing="ij")
        length = np.sqrt(sum(k**2 for k in mesh)).reshape(-1)
        twice = np.full(len(last), 2.0)
        twice[0] = 1
        twice[-1] = 1 if self.shape[-1] % 2 == 0 else 2
        return length, self._shell(length), np.broadcast_to(twice, mesh[0].shape).reshape(-1)

    def _shell(self, length: np.ndarray) -> np.ndarray:
        """The nearest shell; half-way goes up, whatever rounding does to it in other units."""
        return np.floor(length / self.width + 0.5 + 1e-9).astype(int)

    @cached_property
    def _taper(self) -> np.ndarray:
        taper = np.ones(self.shape)
        for axis, (n, wraps) in enumerate(zip(self.shape, self.periodic, strict=True)):
            if not wraps and n > 2:
                hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)
                taper = taper * hann.reshape([-1 if i == axis else 1 for i in range(len(self.shape))])
        return taper


@dataclass(frozen=True)
class Zonal:
    """Power by zonal wavenumber (waves around a latitude circle), averaged by area over bands of latitude.

    ``weights`` (latitude,) are cell areas; ``rows`` (band, latitude) tells which rows belong to which band;
    ``axes`` are the axes of latitude and longitude among the grid's two.
    """

    weights: np.ndarray
    rows: np.ndarray
    bands: tuple[str, ...]
    longitudes: int
    axes: tuple[int, int] = (0, 1)
    units: str = "waves around the latitude circle"
    window: str = "none (periodic)"

    @property
    def wavelength(self) -> tuple[float, str]:
        """Circumference of the Earth over the wavenumber; towards the poles waves are shorter by cos(latitude)."""
        return 2 * np.pi * EARTH_RADIUS, "km at the equator"

    @property
    def nyquist(self) -> float:
        """Half the number of longitudes."""
        return self.longitudes / 2

    @property
    def wavenumber(self) -> np.ndarray:
        """0, 1, ..., half the number of longitudes."""
        return np.arange(self.longitudes // 2 + 1, dtype=np.float64)

    def coefficients(self, fields: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Modes (n, latitude, m); the zonal mean is kept in m = 0, masked cells are set to their row's mean."""
        fields = np.moveaxis(fields, [1 + axis for axis in self.axes], [1, 2]).astype(np.float64)
        valid = np.transpose(valid, self.axes)
        inside = np.where(valid, fields, 0)
        mean = inside.sum(axis=2, keepdims=True) / np.maximum(valid.sum(axis=1), 1)[:, None]
        anomaly = np.where(valid, inside - mean, 0)
        share = np.maximum(valid.mean(axis=1), 1 / self.longitudes)
        modes: np.ndarray = fft.rfft(anomaly, axis=2) / (self.longitudes * np.sqrt(share)[:, None])
        modes[:, :, 0] = mean[:, :, 0]
        return modes

    def gather(self, power: np.ndarray) -> np.ndarray:
        """Area mean over the rows of each band, counting twice the modes whose conjugates are not stored."""
        twice = np.full(power.shape[-1], 2.0)
        twice[0] = 1
        twice[-1] = 1 if self.longitudes % 2 == 0 else 2
        share = self.rows * self.weights
        return np.asarray(share / share.sum(axis=1, keepdims=True) @ power * twice)

    def density(self, sums: np.ndarray) -> np.ndarray:
        """Power per wavenumber: the shells are one wavenumber wide."""
        return sums

    def degrees(self, edges: np.ndarray) -> np.ndarray:
        """Two to a mode and independent row; rows closer than a wavelength are taken to be dependent."""
        m = self.wavenumber[1:]
        rows = np.maximum(self.rows.sum(axis=1)[:, None] * m / self.nyquist, 1)
        return np.stack([np.histogram(m, edges, weights=2 * n)[0] for n in rows])


def half_octaves(lowest: float, nyquist: float, usable: float = USABLE) -> np.ndarray:
    """Edges of half-octave bins, rising to exactly ``usable`` times the Nyquist wavenumber from below ``lowest``."""
    bins = int(np.ceil(2 * np.log2(usable * nyquist / lowest) + 1e-9))
    return usable * nyquist * 2.0 ** (-0.5 * np.arange(bins, -1, -1))


def unresolved(power: np.ndarray, wavenumber: np.ndarray) -> np.ndarray:
    """Where ``power`` (..., wavenumber), rising in wavenumber, is what rounding leaves beyond a truncation.

    There and at all finer ones it is under ``CUT`` times the most within half an octave before, and under ``NOTHING``
    times the sum. Spectra that fall steeply but smoothly have no such cut.
    """
    power = np.nan_to_num(power)
    rest = np.maximum.accumulate(power[..., ::-1], axis=-1)[..., ::-1]
    limit = np.zeros(power.shape)
    first = np.searchsorted(wavenumber, wavenumber / np.sqrt(2) * (1 - 1e-9))
    for i in range(1, power.shape[-1]):
        limit[..., i] = CUT * power[..., min(first[i], i - 1) : i].max(axis=-1)
    cut = rest < np.minimum(limit, NOTHING * power.sum(axis=-1, keepdims=True))
    return np.asarray(np.logical_or.accumulate(cut, axis=-1))


def slope(wavenumber: np.ndarray, density: np.ndarray, between: Sequence[float]) -> float:
    """Exponent of a power law fitted to a spectral density between two wavenumbers, every octave counting the same."""
    inside = (wavenumber >= between[0]) & (wavenumber <= between[1]) & (density > 0)
    x, y = np.log(wavenumber[inside]), np.log(density[inside])
    weight = np.sqrt(1 / wavenumber[inside])
    return float(np.polyfit(x, y, 1, w=weight)[0])
