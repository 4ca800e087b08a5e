"""The range of each variable in training, and what lies beyond it."""

from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["Moments", "beyond"]

MARGIN = 0.05  # of the range: a held-out case that passes an extreme by less is not worth a warning


class Moments:
    """Running mean, sum of squares, minimum and maximum per channel, blind to NaN (Chan, Golub, LeVeque 1979)."""

    def __init__(self, channels: int) -> None:
        self.count, self.mean, self.squares = np.zeros(channels), np.zeros(channels), np.zeros(channels)
        self.low, self.high = np.full(channels, np.inf), np.full(channels, -np.inf)
        self.missing = False

    @classmethod
    def of(cls, blocks: Iterable[np.ndarray], channels: int) -> "Moments":
        """Moments of several arrays (channel, ...)."""
        moments = cls(channels)
        for block in blocks:
            moments.update(block)
        return moments

    def update(self, x: np.ndarray) -> None:
        """Take in ``x`` (channel, ...)."""
        x = x.reshape(len(self.mean), -1)
        present = ~np.isnan(x)
        self.missing |= not present.all()
        count = present.sum(axis=1)
        total = self.count + count
        mean = np.where(present, x, 0).sum(axis=1) / np.maximum(count, 1)
        deviation = np.where(present, x - mean[:, None], 0)
        step = np.where(count > 0, mean - self.mean, 0)
        self.squares += (deviation**2).sum(axis=1) + step**2 * self.count * count / np.maximum(total, 1)
        self.mean += step * count / np.maximum(total, 1)
        self.count = total
        self.low = np.minimum(self.low, np.where(present, x, np.inf).min(axis=1, initial=np.inf))
        self.high = np.maximum(self.high, np.where(present, x, -np.inf).max(axis=1, initial=-np.inf))

    def standardisation(self, odd: Sequence[bool] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(offset, scale) per channel: mean and sd, but 0 and rms for odd channels; scale 1 for constant ones."""
        odd_channels = np.zeros(len(self.mean), bool) if odd is None else np.asarray(odd, bool)
        variance = self.squares / np.maximum(self.count, 1)
        offset = np.where(odd_channels, 0.0, self.mean)
        scale = np.sqrt(variance + np.where(odd_channels, self.mean**2, 0.0))
        negligible = scale <= 1e-7 * np.maximum(np.abs(self.mean), 1e-30)
        return offset, np.where(negligible, 1.0, scale)


def beyond(
    names: Sequence[str], low: np.ndarray, high: np.ndarray, least: np.ndarray, greatest: np.ndarray
) -> list[str]:
    """One line per name of which [least, greatest] passes [low, high] by more than MARGIN of it; NaN passes nothing."""
    notes: dict[str, str] = {}
    for name, a, b, x, y in zip(names, low, high, least, greatest, strict=True):
        slack = MARGIN * (b - a) + 1e-6 * max(abs(a), abs(b))
        if x < a - slack or y > b + slack:
            notes.setdefault(name, f"{name} {x:.4g} to {y:.4g}, in training {a:.4g} to {b:.4g}")
    return list(notes.values())
