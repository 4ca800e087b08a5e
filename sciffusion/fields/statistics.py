"""Statistics of the training residuals in one pass: means per cell, their shrinkage, spreads, the leading mode.

Notation per channel: residuals r_i at a cell, n of them in folds k; cell weights w; g the weighted mean over cells and
cases; d the cell's mean of r - g over all cases, d_{-k} over those outside fold k.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

__all__ = ["FOLDS", "FoldMoments", "Moments", "Scaling", "Sketch", "Totals", "fold_of", "leading_rms", "shell_rms"]

FOLDS = 3


def fold_of(index: int, count: int, folds: int = FOLDS) -> int:
    """Fold of case ``index`` of ``count``: contiguous blocks, because neighbouring cases resemble each other."""
    return index * folds // count


@dataclass
class Moments:
    """Count, mean and sum of squared deviations per cell, (channel, *grid), updated case by case (Welford 1962)."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def zeros(cls, shape: Sequence[int]) -> "Moments":
        """Moments of no case at all."""
        return cls(np.zeros(shape, np.int32), np.zeros(shape), np.zeros(shape))

    def update(self, r: np.ndarray) -> None:
        """Take in one case (channel, *grid); NaN is left out."""
        present = ~np.isnan(r)
        self.count += present
        change = np.where(present, r - self.mean, 0.0)
        self.mean += change / np.maximum(self.count, 1)
        self.squares += change * np.where(present, r - self.mean, 0.0)


class FoldMoments:
    """`Moments` per fold of the cases, from which each fold's mean without its own cases follows.

    A mean that is subtracted from the very cases it was computed from makes them look closer to it than new cases are:
    on the ERA5 week by 10 % of the sd. So residuals are taken, and their spread measured, against d_{-k}, the cell's
    mean deviation over the other folds. With one fold there is no such mean, and nothing is kept of it.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.folds: dict[int, Moments] = {}

    def update(self, r: np.ndarray, fold: int) -> None:
        """Take in one case (channel, *grid) of ``fold``; NaN is left out."""
        self.folds.setdefault(fold, Moments.zeros(self.shape)).update(r)

    def scaling(self, weights: np.ndarray, shrinkage: float | Literal["fit"]) -> "Scaling":
        """What is subtracted and divided by: see `Scaling`. ``weights`` (*grid)."""
        moments = [self.folds[fold] for fold in sorted(self.folds)]
        n = np.sum([m.count for m in moments], axis=0)
        sums = np.sum([m.count * m.mean for m in moments], axis=0)
        total = np.maximum(_per_channel(weights * n), 1e-300)
        g = _per_channel(weights * sums) / total
        d = np.where(n > 0, sums / np.maximum(n, 1) - g, 0.0)
        others = [_mean(sums - m.count * m.mean, n - m.count, g) for m in moments]
        a = _shrinkage(moments, others, weights, g) if shrinkage == "fit" else np.full(g.shape, float(shrinkage))
        squares = [
            weights * (m.squares + m.count * (m.mean - g - a * d_k) ** 2)
            for m, d_k in zip(moments, others, strict=True)
        ]
        sd = np.sqrt(sum(_per_channel(square) for square in squares) / total).ravel()
        held_out = np.stack([(g + a * d_k).astype(np.float32) for d_k in others])
        return Scaling((g + a * d).astype(np.float32), sd, a.ravel(), n > 0, held_out)


def _mean(sums: np.ndarray, count: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Mean deviation from ``g`` over the cases counted, 0 where there are none."""
    return np.where(count > 0, sums / np.maximum(count, 1) - g, 0.0)


def _shrinkage(
    moments: Sequence[Moments], others: Sequence[np.ndarray], weights: np.ndarray, g: np.ndarray
) -> np.ndarray:
    """The factor a per channel that minimises sum_k sum_{i in k} w (r_i - g - a d_{-k})^2, kept within [0, 1]."""
    pairs = list(zip(moments, others, strict=True))
    gain = sum(_per_channel(weights * m.count * (m.mean - g) * d) for m, d in pairs)
    cost = sum(_per_channel(weights * m.count * d**2) for m, d in pairs)
    return np.clip(gain / np.where(cost > 0, cost, 1.0), 0.0, 1.0)


@dataclass(frozen=True)
class Scaling:
    """z = (r - mean) / sd: ``mean``, ``valid`` (channel, *grid); ``sd``, ``shrinkage`` (channel,).

    ``held_out`` (fold, channel, *grid): the mean without each fold's cases, for these cases; None without folds.
    """

    mean: np.ndarray
    sd: np.ndarray
    shrinkage: np.ndarray
    valid: np.ndarray
    held_out: np.ndarray | None = None


@dataclass
class Totals:
    """Moments per channel only, for fields that are too large or seen in windows; the mean is the channel's."""

    weight: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def zeros(cls, channels: int) -> "Totals":
        """Moments of no case at all."""
        return cls(np.zeros(channels), np.zeros(channels), np.zeros(channels))

    def update(self, r: np.ndarray, weights: np.ndarray) -> None:
        """Take in one window (channel, *window) with cell weights (*window); NaN is left out (Chan et al. 1979)."""
        present = ~np.isnan(r)
        axes = tuple(range(1, r.ndim))
        mass = np.where(present, weights, 0.0)
        new = mass.sum(axis=axes)
        filled = np.where(present, r, 0.0).astype(np.float64)
        mean = (mass * filled).sum(axis=axes) / np.maximum(new, 1e-300)
        squares = (mass * (filled - mean.reshape(-1, *[1] * (r.ndim - 1))) ** 2).sum(axis=axes)
        total = np.maximum(self.weight + new, 1e-300)
        step = np.where(new > 0, mean - self.mean, 0.0)
        self.squares += squares + step**2 * self.weight * new / total
        self.mean += step * new / total
        self.weight += new

    def scaling(self, rank: int) -> Scaling:
        """Channel means and sds as a `Scaling` that broadcasts over a grid of ``rank`` dims."""
        column = (-1, *[1] * rank)
        sd = np.sqrt(self.squares / np.maximum(self.weight, 1e-300))
        mean = self.mean.reshape(column).astype(np.float32)
        return Scaling(mean, sd, np.zeros_like(sd), (self.weight > 0).reshape(column))


class Sketch:
    """A sample of at most ``most`` cases within a memory limit, from which the leading mode is estimated.

    Cases are kept with equal probability however many there are (reservoir sampling); fields beyond the limit are
    represented by a window of them.
    """

    def __init__(self, most: int = 256, limit: int = 2**28) -> None:
        self.most, self.limit = most, limit
        self.cases: list[np.ndarray] = []
        self.window: tuple[slice, ...] = ()
        self._seen = 0
        self._random = np.random.default_rng(0)

    def update(self, r: np.ndarray) -> None:
        """Take in one case (channel, *grid) of residuals, perhaps."""
        if not self._seen:
            share = min(1.0, (self.limit / 16 / (4 * r.size)) ** (1 / (r.ndim - 1)))
            self.window = tuple(slice(0, max(1, int(n * share))) for n in r.shape[1:])
            self._shape = r.shape
            self.most = max(4, min(self.most, self.limit // (4 * r[(slice(None), *self.window)].size)))
        if r.shape != self._shape:
            return
        self._seen += 1
        place = len(self.cases) if len(self.cases) < self.most else int(self._random.integers(self._seen))
        if place < self.most:
            case = r[(slice(None), *self.window)].astype(np.float32)
            self.cases[place : place + 1] = [case]

    def leading_rms(self, mean: np.ndarray, sd: np.ndarray) -> float:
        """Rms of the leading mode of z = (r - mean) / sd over the sample, at least 1."""
        cut = (
            slice(None),
            *(part if n > 1 else slice(None) for part, n in zip(self.window, mean.shape[1:], strict=True)),
        )
        scale = sd.reshape(-1, *[1] * (mean.ndim - 1)).astype(np.float32)
        z = np.stack([np.nan_to_num((case - mean[cut]) / scale) for case in self.cases])
        return max(1.0, shell_rms(z) if len(z) < 4 else leading_rms(z.reshape(len(z), -1)))


def leading_rms(z: np.ndarray) -> float:
    """Rms of the leading mode of cases ``z`` (case, cell) from their Gram matrix, corrected for noise.

    With n cases of many more cells D the largest eigenvalue l_1 of z z^T / n is about D / n even of white noise; what
    the other eigenvalues show of it is taken off: l_1 - (tr - l_1) / (n - 1) (Yata and Aoshima 2012, J. Multivariate
    Anal. 105, eq. 2.4, for uncentred data).
    """
    n = len(z)
    gram = np.zeros((n, n))
    for start in range(0, z.shape[1], 2**14):
        part = z[:, start : start + 2**14].astype(np.float64)
        gram += part @ part.T
    eigenvalues = np.linalg.eigvalsh(gram / n)
    return float(np.sqrt(max(0.0, eigenvalues[-1] - eigenvalues[:-1].sum() / (n - 1))))


def shell_rms(z: np.ndarray) -> float:
    """Rms of the strongest Fourier mode of ``z`` (case, channel, *grid), averaged over shells of wavenumber.

    The leading modes of a homogeneous field are Fourier modes: this serves where cases are too few for a Gram matrix.
    """
    axes = tuple(range(2, z.ndim))
    power = (np.abs(np.fft.fftn(z, axes=axes)) ** 2).mean(axis=0) / prod(z.shape[2:])
    largest = max(z.shape[2:])
    radius = np.zeros(())
    for n in z.shape[2:]:
        radius = np.add.outer(radius, (np.fft.fftfreq(n) * largest) ** 2)
    shell = np.rint(np.sqrt(radius)).astype(int).ravel()
    mean = [np.bincount(shell, channel.ravel()) / np.maximum(np.bincount(shell), 1) for channel in power]
    return float(np.sqrt(np.max(mean)))


def _per_channel(x: np.ndarray) -> np.ndarray:
    """Sum over the grid, kept broadcastable."""
    total: np.ndarray = x.sum(axis=tuple(range(1, x.ndim)), keepdims=True)
    return total
