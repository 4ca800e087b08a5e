"""Spectra of films: windows of several times whose grid has an axis of frames, which is not one of space.

A film's power at a wavenumber is the mean of its frames' power; its modes are those of every frame.
"""

from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.spectra import Basis

__all__ = ["Films"]


@dataclass(frozen=True)
class Films:
    """The basis ``still`` of one frame, for fields whose axis ``axis`` is the frames."""

    still: Basis
    axis: int

    @property
    def bands(self) -> tuple[str, ...]:
        """Those of a frame."""
        return self.still.bands

    @property
    def wavenumber(self) -> np.ndarray:
        """That of a frame."""
        return self.still.wavenumber

    @property
    def nyquist(self) -> float:
        """That of a frame."""
        return self.still.nyquist

    @property
    def units(self) -> str:
        """Those of a frame."""
        return self.still.units

    @property
    def wavelength(self) -> tuple[float, str]:
        """That of a frame."""
        return self.still.wavelength

    @property
    def window(self) -> str:
        """What is done in a frame."""
        return self.still.window

    def coefficients(self, fields: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Fields (n, *grid) to modes (n, frame, *modes)."""
        frames = zip(np.moveaxis(fields, 1 + self.axis, 0), np.moveaxis(valid, self.axis, 0), strict=True)
        return np.stack([self.still.coefficients(each, there) for each, there in frames], axis=1)

    def gather(self, power: np.ndarray) -> np.ndarray:
        """Power (frame, *modes) to the frames' mean (band, shell)."""
        return np.asarray(np.mean([self.still.gather(each) for each in power], axis=0))

    def density(self, sums: np.ndarray) -> np.ndarray:
        """As of a frame."""
        return self.still.density(sums)

    def degrees(self, edges: np.ndarray) -> np.ndarray:
        """As of one frame: the frames of a film hang together."""
        return self.still.degrees(edges)
