"""Power by degree of spherical harmonics, on Gauss or equiangular grids of the whole sphere.

Harmonics are orthonormal over the sphere: f = sum_lm c_lm P_lm(sin latitude) exp(i m longitude), and the power of
degree l, |c_l0|^2 + 2 sum_m |c_lm|^2, is that share of the area mean of f^2 (so c is in units of f). Integrals over
latitude use Gauss-Legendre weights on a Gauss grid, and Clenshaw-Curtis or Fejér weights on equal steps with or
without poles. Up to ``degree`` the products are integrated exactly: n - 1 for n Gauss latitudes, (n - 1) // 2 for n
equal steps, and never more than the longitudes resolve. What lies beyond is not counted, and part of it is aliased.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft
from scipy.special import roots_legendre

from sciffusion.errors import SciffusionError

__all__ = ["Harmonics"]

SAME = 1e-6  # difference of latitudes in degrees that is rounding


@dataclass(frozen=True)
class Harmonics:
    """Transform of fields (n, latitude, longitude); ``latitudes`` (latitude,) in degrees, either way round."""

    latitudes: np.ndarray
    longitudes: int

    @cached_property
    def quadrature(self) -> tuple[np.ndarray, int]:
        """Weights (latitude,) with sum 1, and the degree up to which products are integrated exactly.

        Raises SciffusionError for latitudes that are neither Gauss points nor equal steps over the whole sphere.
        """
        n, x = len(self.latitudes), np.sin(np.deg2rad(self.latitudes))
        nodes, weights = roots_legendre(n)
        order = np.argsort(x)
        if np.allclose(np.rad2deg(np.arcsin(nodes)), self.latitudes[order], atol=1e-3):
            return _in_order(weights / 2, order), min(n - 1, (self.longitudes - 1) // 2)
        for poles, at in ((True, np.linspace(-90, 90, n)), (False, -90 + 180 / n * (np.arange(n) + 0.5))):
            if np.allclose(at, self.latitudes[order], atol=SAME + 1e-4 * 180 / n):
                return _in_order(_equal_steps(n, poles), order), min((n - 1) // 2, (self.longitudes - 1) // 2)
        raise SciffusionError(
            "the latitudes are neither Gauss points nor equal steps from pole to pole", "regrid to such a grid first"
        )

    @property
    def degree(self) -> int:
        """The highest degree that is measured."""
        return self.quadrature[1]

    def power(self, fields: np.ndarray) -> np.ndarray:
        """Power (n, degree) of ``fields`` (n, latitude, longitude)."""
        power = np.zeros((len(fields), self.degree + 1))
        for m, coefficients in self.coefficients(fields):
            power[:, m:] += (1 if m == 0 else 2) * np.abs(coefficients) ** 2
        return power

    def coefficients(self, fields: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """For every order m, the coefficients (n, l - m) of the degrees l = m, m + 1, ..."""
        weights, degree = self.quadrature
        waves = fft.rfft(np.asarray(fields, dtype=np.float64), axis=2)[:, :, : degree + 1] / self.longitudes
        for m in range(degree + 1):
            legendre = np.stack(list(self._legendre(m, degree)))
            yield m, np.einsum("ny,ly->nl", waves[:, :, m] * weights, legendre)

    def _legendre(self, m: int, degree: int) -> Iterator[np.ndarray]:
        """Associated Legendre functions of order m with mean square 1 over the sphere (Holmes & Featherstone 2002)."""
        x = np.sin(np.deg2rad(self.latitudes))
        log = 0.5 * (np.log(2 * np.arange(1, m + 1) + 1) - np.log(2 * np.arange(1, m + 1))).sum()
        with np.errstate(divide="ignore", under="ignore"):
            here = np.exp(log + m * 0.5 * np.log(np.maximum(1 - x**2, 0))) if m else np.ones_like(x)
        before = np.zeros_like(x)
        yield here
        for n in range(m + 1, degree + 1):
            a = np.sqrt((2 * n - 1) * (2 * n + 1) / ((n - m) * (n + m)))
            b = np.sqrt((2 * n + 1) * (n + m - 1) * (n - m - 1) / ((n - m) * (n + m) * max(2 * n - 3, 1)))
            before, here = here, a * x * here - b * before
            yield here


def _in_order(weights: np.ndarray, order: np.ndarray) -> np.ndarray:
    placed = np.empty_like(weights)
    placed[order] = weights
    return placed


def _equal_steps(n: int, poles: bool) -> np.ndarray:
    """Clenshaw-Curtis (with poles) or Fejér's first rule, weights with sum 1 (Waldvogel 2006)."""
    angle = np.pi * np.arange(n) / (n - 1) if poles else np.pi * (np.arange(n) + 0.5) / n
    k = np.arange(1, (n - 1) // 2 + 1)
    half = np.where(2 * k == n - 1, 0.5, 1.0) if poles else np.ones(len(k))
    series = 1 - 2 * (half / (4 * k**2 - 1) * np.cos(2 * k * angle[:, None])).sum(axis=1)
    weights = series / ((n - 1) if poles else n)
    if poles:
        weights[[0, -1]] /= 2
    return np.asarray(weights)
