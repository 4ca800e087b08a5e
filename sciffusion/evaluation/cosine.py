"""Spectra of open domains by the discrete cosine transform, which needs no window and keeps the variance exactly.

The field is continued evenly across its edges, so nothing jumps (Denis et al. 2002,
doi:10.1175/1520-0493(2002)130<1812:SDOTDA>2.0.CO;2). A slope in the data leaves a trace of k^-2 per axis: the Hann
window is the default, this the choice where the largest scales matter.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft

from sciffusion.evaluation.spectra import Shells

__all__ = ["CosineShells"]


@dataclass(frozen=True)
class CosineShells(Shells):
    """Shells of the wavenumber's length of a DCT-II along every axis."""

    @property
    def window(self) -> str:
        """What was done about open boundaries."""
        return "none: cosine transform (DCT-II) of the evenly continued field"

    @property
    def width(self) -> float:
        """Width of a shell: half a wave along the shortest axis."""
        return super().width / 2

    def coefficients(self, fields: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Modes whose gathered power is the variance; masked cells count as the mean."""
        axes = tuple(range(-len(self.shape), 0))
        inside = np.where(valid, fields, 0).astype(np.float64)
        mean = inside.sum(axis=axes, keepdims=True) / valid.sum()
        modes = fft.dctn(np.where(valid, inside - mean, 0), axes=axes, norm="ortho")
        return np.asarray(modes / np.sqrt(valid.sum()))

    def degrees(self, edges: np.ndarray) -> np.ndarray:
        """The number of modes, all of them real and independent."""
        return np.histogram(self._modes[0], edges)[0][None].astype(np.float64)

    @cached_property
    def _modes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        axes = [np.arange(n) / (2 * n * d) for n, d in zip(self.shape, self.spacing, strict=True)]
        length = np.sqrt(sum(k**2 for k in np.meshgrid(*axes, indexing="ij"))).reshape(-1)
        return length, self._shell(length), np.ones(length.size)
