"""Noise that hangs together in time: the members' noise as a first-order autoregressive process over the cases.

Notation: cases at times t, innovations e(s) independent standard normal fields at times s a fixed step apart, rho the
correlation of neighbours. The noise of a case is a weighted sum over its own innovation and past ones,

    z(t) = sum_{k=0}^{K} w_k e(t - k step),   w_k = rho^k / sqrt(sum_j rho^2j)                           (1)

so its variance is 1, and at lag l <= K its covariance is rho^l (1 - rho^{2 (K + 1 - l)}) / (1 - rho^{2 (K + 1)}), 0
beyond (2); K is the first with rho^K < 1/1000. An innovation is keyed by the label that a case at its time would have,
so z(t) is bitwise the same whichever other cases are drawn, and for rho = 0 it is the independent noise of the case.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import exp, sqrt
from typing import Any

import numpy as np
import xarray as xr

from sciffusion import durations
from sciffusion.errors import SciffusionError
from sciffusion.fields.cases import Case, encode_label
from sciffusion.fields.cf import INDEPENDENT
from sciffusion.fields.labels import is_time

__all__ = ["Coherence"]

SMALL, MOST = 1e-3, 1000  # weight that is left out, relative to the first; number of terms allowed
MEND = "write the correlation of consecutive cases (0.9), or how long until it is 1/e (12h); 0.9/6h names the step too"


@dataclass(frozen=True)
class Coherence:
    """``rho`` is the correlation of the noise of cases that are ``step`` seconds apart along ``dim``."""

    dim: str
    rho: float
    step: float

    @classmethod
    def parse(cls, text: str, cases: Sequence[Case], conditions: Iterable[xr.Dataset]) -> "Coherence":
        """Read ``0.9``, ``12h``, ``0.9/6h`` or ``12h/6h``; the step is that of ``conditions`` unless it is given.

        Raises SciffusionError where cases have no times, or times that are not whole steps apart.
        """
        dim = _time_dim(cases)
        length, _, given = text.partition("/")
        times = [case.values[dim] for case in cases]
        axes = [data[dim].values for data in conditions if dim in data.coords and data[dim].ndim == 1]
        step = durations.seconds(given) if given else _step([*times, *(value for axis in axes for value in axis)], dim)
        rho = _correlation(length, step)
        _require_steps(times, step, dim)
        return cls(dim, rho, step)

    @property
    def weights(self) -> list[float]:
        """w_0 ... w_K of (1), by + * / and sqrt alone, so that they are the same on every machine."""
        powers, total = [1.0], 1.0
        while self.rho > 0 and powers[-1] >= SMALL:
            powers.append(powers[-1] * self.rho)
            total += powers[-1] * powers[-1]
        return [power / sqrt(total) for power in powers]

    def applied(self, case: Case) -> Case:
        """``case`` with the labels and weights of the innovations that its noise is made of."""
        place, value = case.dims.index(self.dim), case.values[self.dim]

        def labels(steps: int) -> tuple[Any, ...]:
            own = encode_label(_earlier(value, steps * self.step))
            return (*case.labels[:place], own, *case.labels[place + 1 :])

        return replace(case, past=tuple((weight, labels(k)) for k, weight in enumerate(self.weights)))

    def to_json(self) -> dict[str, Any]:
        """As part of an ensemble's identity."""
        return {"dim": self.dim, "rho": self.rho, "step_seconds": self.step, "terms": len(self.weights)}

    def __str__(self) -> str:
        if self.rho == 0:
            return INDEPENDENT
        return (
            f"AR(1) along {self.dim}: the noise of cases {durations.clock(self.step)} apart has correlation "
            f"{self.rho:g}; a sum over {len(self.weights)} innovations, what is left out weighs less than {SMALL:g}"
        )

    def measured(self, earlier: np.ndarray, later: np.ndarray) -> tuple[float, float, float]:
        """Sums for the correlation of members' deviations from the mean, (member, *cells) of two consecutive cases.

        Products and squares, over the cells that all members have; they add up over pairs of cases.
        """
        one, two = (values - values.mean(axis=0) for values in (earlier.astype(np.float64), later.astype(np.float64)))
        here = np.isfinite(one) & np.isfinite(two)
        one, two = one[here], two[here]
        return float(one @ two), float(one @ one), float(two @ two)


def _time_dim(cases: Sequence[Case]) -> str:
    """The case dim of times; where there are two, that of lead times."""
    values: Mapping[str, Any] = cases[0].values
    leads = [dim for dim, value in values.items() if isinstance(value, np.timedelta64)]
    dates = [dim for dim, value in values.items() if is_time(np.array([value]))]
    if not leads and not dates:
        raise SciffusionError("time coherence of cases without times", "give conditions with a coordinate of dates")
    return (leads or dates)[0]


def _correlation(text: str, step: float) -> float:
    try:
        rho = float(text)
    except ValueError:
        rho = round(exp(-step / durations.seconds(text)), 12)  # rounded: libraries differ in the last bit
    if not 0 <= rho < 1 or rho**MOST >= SMALL:
        raise SciffusionError(f"--time-coherence {text}: a correlation of {rho:g} between cases", MEND)
    return rho


def _seconds(value: Any, origin: Any) -> float:
    difference = value - origin
    if isinstance(difference, timedelta):
        return difference.total_seconds()
    return float(difference / np.timedelta64(1, "s"))


def _step(times: Sequence[Any], dim: str) -> float:
    """The smallest distance of two different times."""
    places = np.unique([_seconds(time, times[0]) for time in times])
    if len(places) < 2:
        raise SciffusionError(f"one {dim} only", "name the step: --time-coherence 0.9/6h")
    return float(np.diff(places).min())


def _require_steps(times: Sequence[Any], step: float, dim: str) -> None:
    places = np.array([_seconds(time, times[0]) for time in times]) / step
    if not np.allclose(places, np.round(places), rtol=0, atol=1e-6):
        what = f"{dim}: cases are not a whole number of {durations.clock(step)} apart"
        raise SciffusionError(what, "name a step that divides all distances: --time-coherence 0.9/6h")


def _earlier(value: Any, by: float) -> Any:
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return value.astype(f"{value.dtype.kind}8[ns]") - np.timedelta64(round(by * 1e9), "ns")
    return value - timedelta(seconds=by)
