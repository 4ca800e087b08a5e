"""Problems of which perfect ensembles exist: truth and members are exchangeable draws under the same condition.

Each is a pool of draws (draw, case, y, x); a seed chooses which draw is the truth and which are the members, so that
"perfect" is exact and not a matter of a model. ``training`` are fields of the same kind, of none of the cases.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import xarray as xr
from scipy import fft

from sciffusion.datasets import open_example

MEMBERS = 10


@dataclass(frozen=True)
class Problem:
    """``draws`` (draw, case, y, x), ``training`` (field, y, x); ``coords`` and ``periodic`` describe the grid."""

    draws: np.ndarray
    training: np.ndarray
    coords: dict
    periodic: tuple[str, ...]

    @property
    def dims(self):
        return tuple(self.coords)

    def cast(self, generator):
        """Members (member, case, y, x) and truth (case, y, x), shifted at random along axes that wrap around."""
        draws = self.draws[generator.permutation(len(self.draws))[: MEMBERS + 1]]
        shifts = [int(generator.integers(draws.shape[2 + i])) * (d in self.periodic) for i, d in enumerate(self.dims)]
        draws = np.roll(draws, shifts, axis=(2, 3))
        return draws[1:], draws[0]

    def dataset(self, values, *lead):
        time = np.datetime64("2001-01-01", "ns") + np.arange(self.draws.shape[1]) * np.timedelta64(1, "D")
        coords = {**self.coords, **({"time": time} if "time" in lead else {})}
        return xr.Dataset({"a": ((*lead, *self.dims), values)}, coords)


def spectral_noise(generator, shape, exponent):
    """Gaussian fields of unit variance whose two-dimensional power density falls like k^exponent."""
    n, m = shape[-2:]
    k = np.hypot(fft.fftfreq(n)[:, None], fft.rfftfreq(m)[None])
    k[0, 0] = np.inf
    amplitude = k ** (exponent / 2)
    fields = fft.irfft2(fft.rfft2(generator.normal(size=shape)) * amplitude, s=(n, m))
    return fields / np.sqrt(_variance(amplitude, n, m))


def _variance(amplitude, n, m):
    twice = np.full(amplitude.shape[1], 2.0)
    twice[0] = twice[-1] = 1
    return (amplitude**2 * twice).sum() / (n * m)


def block_means(fields, size):
    *lead, n, m = fields.shape
    return fields.reshape(*lead, n // size, size, m // size, size).mean(axis=(-3, -1))


@cache
def gaussian(cases=30, draws=24, n=32, block=8):
    """Exact posterior draws of a Gaussian field (density k^-3) given its block means: z + K (y - C z)."""
    generator = np.random.default_rng(1)
    unit = np.zeros((n, n))
    unit[0, 0] = 1
    k = np.hypot(fft.fftfreq(n)[:, None], fft.rfftfreq(n)[None])
    k[0, 0] = np.inf
    covariance = fft.irfft2(k**-3.0, s=(n, n))
    covariance /= covariance[0, 0]
    index = np.arange(n)
    dense = covariance[(index[:, None] - index) % n][:, :, (index[:, None] - index) % n]  # (y, y', x, x')
    dense = dense.transpose(0, 2, 1, 3).reshape(n * n, n * n)
    pool = np.zeros((n // block, n // block, n, n))
    for i, j in np.ndindex(n // block, n // block):
        pool[i, j, i * block : (i + 1) * block, j * block : (j + 1) * block] = 1 / block**2
    c = pool.reshape(-1, n * n)
    gain = dense @ c.T @ np.linalg.pinv(c @ dense @ c.T, rcond=1e-10)
    condition = block_means(spectral_noise(generator, (cases, n, n), -3.0), block).reshape(cases, -1)
    prior = spectral_noise(generator, (draws, cases, n, n), -3.0)
    missing = condition - block_means(prior, block).reshape(draws, cases, -1)
    fields = prior + (missing @ gain.T).reshape(prior.shape)
    axis = np.arange(n) * 1000.0
    coords = {"y": ("y", axis, {"units": "m"}), "x": ("x", axis, {"units": "m"})}
    return Problem(fields.astype("f4"), spectral_noise(generator, (200, n, n), -3.0).astype("f4"), coords, ("y", "x"))


def vorticity_step(w, dt, k, keep, damping):
    """One midpoint step of two-dimensional flow, dw/dt = -u . grad w, in Fourier space with exact damping."""
    (ky, kx), square = k, np.where(k[0] ** 2 + k[1] ** 2 > 0, k[0] ** 2 + k[1] ** 2, 1)

    def advection(w):
        stream = w / square
        u, v, wx, wy = (fft.irfft2(part) for part in (1j * ky * stream, -1j * kx * stream, 1j * kx * w, 1j * ky * w))
        return -fft.rfft2(u * wx + v * wy) * keep

    half = w + dt / 2 * advection(w)
    return (w + dt * advection(half)) * damping


def flow(w, steps, dt=0.02, viscosity=2e-7):
    """Vorticity (..., n, n) on a doubly periodic square of side 2 pi, after ``steps``; hyperviscous, dealiased."""
    n = w.shape[-1]
    k = fft.fftfreq(n, 1 / n)[:, None], fft.rfftfreq(n, 1 / n)[None]
    square = k[0] ** 2 + k[1] ** 2
    keep, damping = square < (n / 3) ** 2, np.exp(-viscosity * square**3 * dt)
    modes = fft.rfft2(w) * keep
    for _ in range(steps):
        modes = vorticity_step(modes, dt, k, keep, damping)
    return fft.irfft2(modes)


@cache
def turbulence(cases=30, draws=24, n=48):
    """Vorticity after runs from the same large scales and different small ones: spun up, perturbed, run on."""
    generator = np.random.default_rng(2)
    start = flow(5 * spectral_noise(generator, (cases + 60, n, n), -1.0), 100)
    k = np.hypot(fft.fftfreq(n, 1 / n)[:, None], fft.rfftfreq(n, 1 / n)[None])
    large = fft.irfft2(fft.rfft2(start[:cases]) * (k < 5))
    shifts = [np.divmod(generator.choice(n * n, draws, replace=False), n) for _ in range(cases)]
    small = [
        [np.roll(detail, by, axis=(0, 1)) for by in zip(*shift, strict=True)]
        for detail, shift in zip(start[:cases] - large, shifts, strict=True)
    ]
    fields = flow(large + np.stack(small, axis=1), 20)
    axis = np.arange(n) * 1000.0
    coords = {"y": ("y", axis, {"units": "m"}), "x": ("x", axis, {"units": "m"})}
    return Problem(fields.astype("f4"), start[cases:].astype("f4"), coords, ("y", "x"))


@cache
def era5(draws=24, size=4):
    """Wind of the embedded week at 4 degrees: the smooth part of a time, with the detail of another, shifted around.

    The detail keeps its latitude, so that it stays as strong as ERA5's there; members and truth draw it alike.
    """
    generator = np.random.default_rng(3)
    ds = open_example("era5")["u10"].isel(latitude=slice(0, 180))
    fields = ds.values.astype("f8").reshape(ds.sizes["time"], 180 // size, size, 360 // size, size).mean(axis=(2, 4))
    modes = fft.rfft(fields, axis=2)
    smooth = fft.irfft(modes * (np.arange(modes.shape[2]) < 6), n=fields.shape[2], axis=2)
    detail, cases = fields - smooth, len(fields)
    flat = [generator.choice(cases * fields.shape[2], draws, replace=False) for _ in range(cases)]
    picks = np.divmod(np.stack(flat, axis=1), fields.shape[2])
    noise = [[np.roll(detail[s], r, axis=1) for s, r in zip(*row, strict=True)] for row in zip(*picks, strict=True)]
    other = [np.roll(f, r, axis=1) for f, r in zip(fields, generator.integers(20, 70, cases), strict=True)]
    coords = {
        "lat": ("lat", 88.5 - size * np.arange(180 // size), {"units": "degrees_north"}),
        "lon": ("lon", size * np.arange(360 / size), {"units": "degrees_east"}),
    }
    return Problem((smooth + np.array(noise)).astype("f4"), np.array(other, dtype="f4"), coords, ("lon",))


PROBLEMS = {"gaussian": gaussian, "turbulence": turbulence, "era5": era5}
