"""Do neighbouring cells hang together as they should? Correlation of neighbours, of whole fields and of departures.

Departures are members minus ensemble mean, and truth minus ensemble mean: members exchangeable with the truth have the
same correlation in both, whatever the condition explains. A sampler that gets every cell right by itself and no
pattern has departures without correlation, which no score of single cells can see.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sciffusion.evaluation.lags import lagged
from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.tally import Sums

__all__ = ["METRICS", "Neighbours"]

KINDS = ("departure_members", "departure_truth", "field_members", "field_truth")
AT_ONCE = 1 << 18  # cells of members


@dataclass(frozen=True)
class Neighbours:
    """Sums of products and squares of neighbours, by region of the first of the two; all axes count the same."""

    weights: np.ndarray
    regions: np.ndarray
    periodic: tuple[bool, ...]

    def measure(self, pair: Pair) -> Sums:
        """Sums (region,) of one case."""
        valid = pair.complete
        count = int(self.regions.max()) + 1
        sums = {f"{part}_{kind}": np.zeros(count) for kind in KINDS for part in ("product", "square")}
        for kind, fields in self._fields(pair, valid):
            product, square = self._of(fields, valid, count)
            sums[f"product_{kind}"] += product
            sums[f"square_{kind}"] += square
        return Sums(by_case=sums)

    def _fields(self, pair: Pair, valid: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """What is correlated (n, *grid): departures from the ensemble mean, fields without their mean over the domain.

        Members come a few at a time, so that no second ensemble is held.
        """
        truth = np.where(valid, pair.truth, 0).astype(np.float64)
        field = truth - (truth * valid).sum() / max(valid.sum(), 1)
        mean = np.where(valid, pair.moments[0], 0)
        yield "departure_truth", -mean[None]
        yield "field_truth", field[None]
        step = max(1, AT_ONCE // truth.size)
        for start in range(0, len(pair.members), step):
            deviation = np.where(valid, pair.members[start : start + step] - truth, 0)
            yield "departure_members", deviation - mean
            yield "field_members", deviation + field

    def _of(self, fields: np.ndarray, valid: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        product, square = np.zeros(count), np.zeros(count)
        for axis, wraps in enumerate(self.periodic):
            if valid.shape[axis] < 2:
                continue
            (a, b), (u, v) = lagged(fields, axis + 1, 1, wraps), lagged(valid * self.weights, axis, 1, wraps)
            region, area = lagged(self.regions, axis, 1, wraps)[0].reshape(-1), np.sqrt(u * v)
            products, squares = np.einsum("n...,n...->...", a, b), (a * a + b * b).sum(axis=0) / 2
            product += np.bincount(region, (products * area).reshape(-1), minlength=count)
            square += np.bincount(region, (squares * area).reshape(-1), minlength=count)
        return product, square


def _correlation(kind: str, s: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(s[f"product_{kind}"] / s[f"square_{kind}"])


METRICS = {
    "departure_correlation_members": (
        lambda s: _correlation("departure_members", s),
        "correlation of neighbouring cells, members minus ensemble mean",
    ),
    "departure_correlation_truth": (
        lambda s: _correlation("departure_truth", s),
        "correlation of neighbouring cells, truth minus ensemble mean",
    ),
    "departure_correlation_difference": (
        lambda s: _correlation("departure_members", s) - _correlation("departure_truth", s),
        "correlation of neighbouring departures, members less truth (0 is right)",
    ),
    "neighbour_correlation_members": (
        lambda s: _correlation("field_members", s),
        "correlation of neighbouring cells of the members, about the mean of the domain",
    ),
    "neighbour_correlation_truth": (
        lambda s: _correlation("field_truth", s),
        "correlation of neighbouring cells of the truth, about the mean of the domain",
    ),
}
