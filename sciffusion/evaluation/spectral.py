"""Spectra of members, of their mean and of the truth, and how error and spread share out among scales.

All from one transform per field, since the transform of the mean is the mean of the transforms. Members that are right
have the truth's spectrum; their mean is smoother wherever the members differ, and that is no fault.
"""

from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.spectra import Basis, half_octaves
from sciffusion.evaluation.tally import Sums

__all__ = ["KINDS", "Spectral", "bin_matrix"]

KINDS = ("truth", "members", "mean", "variance", "error", "cross")


@dataclass(frozen=True)
class Spectral:
    """Power per (band, shell) in total, and per (band, half-octave bin) for every case.

    ``variance`` is the members' variance times (m + 1) / m, comparable with ``error``, the power of mean minus truth;
    ``cross`` is the real cross-power of mean and truth, from which the coherence follows.
    """

    basis: Basis

    @property
    def edges(self) -> np.ndarray:
        """Edges of the half-octave bins."""
        wavenumber = self.basis.wavenumber
        return half_octaves(float(wavenumber[wavenumber > 0].min()), self.basis.nyquist)

    def measure(self, pair: Pair) -> Sums:
        """Sums of one case."""
        valid = pair.complete
        shells = {kind: self.basis.gather(power) for kind, power in self._powers(pair, valid).items()}
        bins = bin_matrix(self.basis.wavenumber, self.edges)
        by_case = {f"bins_{kind}": power @ bins for kind, power in shells.items()}
        return Sums(by_case=by_case, total={f"shells_{kind}": power for kind, power in shells.items()})

    def _powers(self, pair: Pair, valid: np.ndarray) -> dict[str, np.ndarray]:
        truth = self.basis.coefficients(pair.truth[None], valid)[0]
        total, square, m = np.zeros_like(truth), np.zeros(truth.shape), len(pair.members)
        for member in pair.members:
            modes = self.basis.coefficients(member[None], valid)[0]
            total += modes
            square += _power(modes)
        mean = total / m
        powers = {"truth": _power(truth), "members": square / m, "mean": _power(mean), "error": _power(mean - truth)}
        spread = (
            np.maximum(square - m * powers["mean"], 0) * (m + 1) / (m * (m - 1))
            if m > 1
            else np.full(truth.shape, np.nan)
        )
        return powers | {"variance": spread, "cross": (mean * truth.conj()).real}


def bin_matrix(wavenumber: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """1 where a shell (row) lies in a bin (column); the zeroth shell and those beyond the last edge lie in none."""
    index = np.searchsorted(edges, wavenumber * (1 - 1e-9), side="left") - 1
    return np.asarray((index[:, None] == np.arange(len(edges) - 1)) & (wavenumber > 0)[:, None])


def _power(modes: np.ndarray) -> np.ndarray:
    return np.asarray(modes.real**2 + modes.imag**2)
