"""Intervals by resampling whole blocks, because neighbouring times and neighbouring cells are not independent.

Sums are given as (case, region). With at least ten independent blocks of consecutive cases, blocks of cases are
resampled (Künsch 1989) and the interval speaks of other times. With fewer, regions are resampled, each with all of its
cases: such an interval speaks of the sampling of space within these cases only, and its label says so. With fewer than
ten regions as well there is no interval, and the label gives the reason.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["LEAST_BLOCKS", "Resampling", "block_length", "bounds", "persistence"]

LEAST_BLOCKS = 10
Sums = Mapping[str, np.ndarray]
Metric = Callable[[Sums], np.ndarray]


@dataclass(frozen=True)
class Resampling:
    """How often each block of (case, region) is drawn in every resample: ``counts`` (resample, case, region)."""

    counts: np.ndarray | None
    label: str
    over_cases: bool = False

    @classmethod
    def plan(
        cls, cases: int, used: np.ndarray | None, length: int, *, resamples: int = 1000, seed: int = 0
    ) -> "Resampling":
        """Choose the blocks: ``used`` (region,) marks regions with data, ``length`` is how many cases hang together.

        Without regions (None), which sums of whole fields have not, only cases can be resampled.
        """
        generator = np.random.default_rng(seed)
        blocks = cases // length
        few = f"{cases} case(s) hold only {blocks} independent block(s) in time, {LEAST_BLOCKS} are needed"
        if used is None and blocks < LEAST_BLOCKS:
            return cls(None, f"withheld: {few}")
        used = np.ones(1, dtype=bool) if used is None else used
        regions = int(used.sum())
        if blocks >= LEAST_BLOCKS:
            counts = _time_counts(generator, cases, length, resamples)
            label = f"block bootstrap over {blocks} blocks of {length} consecutive case(s)"
            return cls(np.broadcast_to(counts[:, :, None], (resamples, cases, len(used))), label, over_cases=True)
        if regions < LEAST_BLOCKS:
            return cls(None, f"withheld: {few}, and there are only {regions} spatial blocks")
        counts = _space_counts(generator, used, resamples)
        label = f"within-period spatial blocks: {regions} regions resampled, each with all of its cases, because {few}; the interval says nothing about other periods"  # noqa: E501
        return cls(np.broadcast_to(counts[:, None, :], (resamples, cases, len(used))), label)

    def interval(self, metric: Metric, sums: Sums, level: float = 0.95) -> np.ndarray:
        """Percentile interval (2,) of ``metric`` of the sums (case, region), which it gets as (resample,)."""
        if self.counts is None:
            return np.full(2, np.nan)
        return bounds(_quiet(metric, _Resampled(self, sums)), level)

    def of_cases(self, metric: Metric, sums: Sums, level: float = 0.95) -> np.ndarray | None:
        """Intervals (*own, 2) of ``metric`` of sums (case, *own) that have no regions; None unless cases are resampled.

        The metric gets (resample, *own).
        """
        if self.counts is None or not self.over_cases:
            return None
        drawn = {name: np.tensordot(self.counts[:, :, 0], value, 1) for name, value in sums.items()}
        return bounds(_quiet(metric, drawn), level)

    @property
    def cases_label(self) -> str:
        """How intervals of whole fields came about."""
        return self.label if self.over_cases else "withheld: whole fields have no regions to resample; " + self.label

    def drawn(self, value: np.ndarray) -> np.ndarray | None:
        """Resamples (resample, *own) of a sum (case, *own, region)."""
        if self.counts is None:
            return None
        if self.over_cases:
            return np.tensordot(self.counts[:, :, 0], value.sum(axis=-1), 1)
        return np.tensordot(self.counts[:, 0], np.moveaxis(value.sum(axis=0), -1, 0), 1)

    def effective_blocks(self, value: np.ndarray) -> float:
        """By how many blocks a sum (case, region) is carried: (sum x)^2 / sum x^2 over what is resampled.

        A rare event that happened in two or three blocks has an interval that means nothing.
        """
        blocks = value.sum(axis=1 if self.over_cases else 0)
        return float(blocks.sum() ** 2 / (blocks**2).sum()) if blocks.any() else 0.0


def bounds(drawn: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Percentile interval (*own, 2) along the resamples (resample, *own), of what is finite."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    finite = np.isfinite(drawn)
    if finite.all():
        return np.moveaxis(np.quantile(drawn, tails, axis=0), 0, -1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.moveaxis(np.nanquantile(np.where(finite, drawn, np.nan), tails, axis=0), 0, -1)


def _quiet(metric: Metric, sums: Sums) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return metric(sums)


class _Resampled(Mapping[str, np.ndarray]):
    """Sums (case, region) as (resample,), each made when the metric asks for it."""

    def __init__(self, plan: Resampling, sums: Sums) -> None:
        self.plan, self.sums = plan, sums

    def __getitem__(self, name: str) -> np.ndarray:
        value, counts = self.sums[name], self.plan.counts
        assert counts is not None
        if self.plan.over_cases:
            return np.asarray(counts[:, :, 0] @ value.sum(axis=1))
        return np.asarray(counts[:, 0] @ value.sum(axis=0))

    def __iter__(self) -> Iterator[str]:
        return iter(self.sums)

    def __len__(self) -> int:
        return len(self.sums)


def block_length(series: np.ndarray) -> int:
    """How many consecutive cases hang together: ``persistence`` of ``series`` (case, region), rounded up."""
    return int(np.ceil(persistence(series)))


def persistence(series: np.ndarray) -> float:
    """By how much cases that hang together raise the variance of their mean: 1 + 2 sum of the autocorrelation.

    The sum ends at the first zero. ``series`` (case, region): the autocorrelation is averaged over regions, since a
    mean over the whole domain hides how long a situation lasts at one place.
    """
    if len(series) < 3 or series.shape[1] == 0:
        return 1.0
    anomaly = series - series.mean(axis=0)
    variance = (anomaly**2).mean()
    if not variance > 0:
        return 1.0
    total = 1.0
    for lag in range(1, len(series) // 2 + 1):
        correlation = (anomaly[lag:] * anomaly[:-lag]).mean() / variance
        if correlation <= 0:
            break
        total += 2 * correlation
    return float(total)


def _time_counts(generator: np.random.Generator, cases: int, length: int, resamples: int) -> np.ndarray:
    """Circular blocks: every case is as likely as any other to be drawn."""
    starts = generator.integers(cases, size=(resamples, -(-cases // length)))
    drawn = (starts[:, :, None] + np.arange(length)) % cases
    rows = drawn.reshape(resamples, -1)[:, :cases]
    return np.stack([np.bincount(row, minlength=cases) for row in rows]).astype(np.float64)


def _space_counts(generator: np.random.Generator, used: np.ndarray, resamples: int) -> np.ndarray:
    regions = int(used.sum())
    counts = np.zeros((resamples, len(used)))
    counts[:, used] = generator.multinomial(regions, np.full(regions, 1 / regions), size=resamples)
    return counts
