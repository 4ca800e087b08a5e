"""Pointwise transforms of a physical variable, invertible on its range, for numpy arrays and tensors alike.

A transform that is affine, t = slope x + offset, keeps linear constraints linear; the others do not. ``inverse`` lands
in the variable's range whatever it is given, so decoded fields are never out of bounds. NaN stays NaN.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from sciffusion.errors import NotAffine, SciffusionError
from sciffusion.settings import Variable

__all__ = ["Bounded", "Censored", "Log1p", "Sqrt", "Standardise", "Transform", "from_json", "make", "of_settings"]

Array = TypeVar("Array", np.ndarray, Tensor)


class Transform:
    """From physical units (``forward``) to the space in which the residual is taken, and back (``inverse``)."""

    name: ClassVar[str]
    affine: ClassVar[bool] = False

    def forward(self, x: Array) -> Array:
        """Transform a field in physical units."""
        raise NotImplementedError

    def inverse(self, t: Array) -> Array:
        """Return to physical units, within the variable's range."""
        raise NotImplementedError

    def slope_and_offset(self) -> tuple[float, float]:
        """(slope, offset) of t = slope x + offset. Raises NotAffine for a curved transform."""
        raise NotAffine(
            f"the transform {self.name!r} is not affine",
            "constrain only variables with transform: standardise, or turn the constraint off",
        )

    def fitted(self, x: np.ndarray) -> "Transform":
        """The transform with the parameters left open chosen for the sample ``x`` of the variable."""
        return self

    def to_json(self) -> dict[str, Any]:
        """Name and parameters."""
        return {"name": self.name} | {key: value for key, value in asdict(self).items()}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Standardise(Transform):
    """t = x: centring and scaling are the codec's, per channel."""

    name: ClassVar[str] = "standardise"
    affine: ClassVar[bool] = True

    def forward(self, x: Array) -> Array:
        """The field itself."""
        return x

    def inverse(self, t: Array) -> Array:
        """The field itself."""
        return t

    def slope_and_offset(self) -> tuple[float, float]:
        """(1, 0)."""
        return 1.0, 0.0


@dataclass(frozen=True)
class Log1p(Transform):
    """t = log(1 + x / scale) for x >= 0 (precipitation, concentrations); negative x counts as 0.

    A scale of NaN is still to be fitted: to a tenth of the mean of the positive values, so that light and heavy rain
    are kept apart alike.
    """

    scale: float = math.nan
    name: ClassVar[str] = "log1p"

    def forward(self, x: Array) -> Array:
        """Transform a field in physical units."""
        m = _module(x)
        return m.log1p(_at_least_zero(x) / self.scale)  # type: ignore[no-any-return]

    def fitted(self, x: np.ndarray) -> Transform:
        """Choose the scale, if it is open."""
        if not math.isnan(self.scale):
            return self
        positive = x[x > 0]
        if not positive.size:
            raise SciffusionError("transform log1p on a field without positive values", "set its scale")
        return Log1p(0.1 * float(positive.mean(dtype=np.float64)))

    def inverse(self, t: Array) -> Array:
        """Return to physical units, at least 0."""
        return self.scale * _module(t).expm1(_at_least_zero(t))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Censored(Log1p):
    """Log1p for values from ``threshold`` on, and all below it at one place apart: for fields that are often exactly 0.

    Wet values have t = log(1 + x / scale) >= w; dry ones t = w - ``GAP``. What lies below the middle between them is 0
    again, the rest at least ``threshold``: so a continuous model gives exact zeros, and no drizzle below the threshold.
    A threshold of NaN is still to be fitted, to a hundredth of the mean of the positive values.
    """

    threshold: float = math.nan
    name: ClassVar[str] = "censored"

    GAP: ClassVar[float] = 0.5

    @property
    def _wet(self) -> float:
        return math.log1p(self.threshold / self.scale)

    def forward(self, x: Array) -> Array:
        """Transform a field in physical units; what is missing stays so."""
        wet = super().forward(x)
        return _module(x).where(x < self.threshold, wet * 0 + (self._wet - self.GAP), wet)  # type: ignore[no-any-return]

    def fitted(self, x: np.ndarray) -> Transform:
        """Choose scale and threshold, where they are open."""
        positive = x[x > 0]
        if math.isnan(self.threshold) and not positive.size:
            raise SciffusionError("transform censored on a field without positive values", "set scale and threshold")
        scale = Log1p(self.scale).fitted(x)
        threshold = 0.01 * float(positive.mean(dtype=np.float64)) if math.isnan(self.threshold) else self.threshold
        return Censored(scale.scale, threshold)  # type: ignore[attr-defined]

    def inverse(self, t: Array) -> Array:
        """Return to physical units: exactly 0, or at least the threshold."""
        wet = super().inverse(_clip(t, self._wet, math.inf))
        return _module(t).where(t < self._wet - self.GAP / 2, wet * 0, wet)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Sqrt(Transform):
    """t = sqrt(x / scale) for x >= 0; negative x counts as 0."""

    scale: float = 1.0
    name: ClassVar[str] = "sqrt"

    def forward(self, x: Array) -> Array:
        """Transform a field in physical units."""
        return _module(x).sqrt(_at_least_zero(x) / self.scale)  # type: ignore[no-any-return]

    def inverse(self, t: Array) -> Array:
        """Return to physical units, at least 0."""
        return _at_least_zero(t) ** 2 * self.scale


@dataclass(frozen=True)
class Bounded(Transform):
    """t = arcsin(2 u - 1), u = (x - low) / (high - low): finite at the bounds, where mass may sit (cloud cover)."""

    low: float
    high: float
    name: ClassVar[str] = "bounded"

    def forward(self, x: Array) -> Array:
        """Transform a field in physical units; values beyond the bounds count as the bounds."""
        u = (2 * x - (self.low + self.high)) / (self.high - self.low)
        return _module(x).arcsin(_clip(u, -1.0, 1.0))  # type: ignore[no-any-return]

    def inverse(self, t: Array) -> Array:
        """Return to physical units, within the bounds."""
        u: Array = (1 + _module(t).sin(_clip(t, -math.pi / 2, math.pi / 2))) / 2
        return _clip(self.low + (self.high - self.low) * u, self.low, self.high)


def make(
    name: str,
    scale: float | None = None,
    bounds: tuple[float, float] | None = None,
    threshold: float | None = None,
) -> Transform:
    """The transform of a variable's settings. Raises SciffusionError for a missing or senseless parameter."""
    if name == "standardise":
        return Standardise()
    if name == "bounded":
        if bounds is None or not (math.isfinite(bounds[0]) and bounds[0] < bounds[1] < math.inf):
            raise SciffusionError(f"transform bounded with bounds {bounds}", "write bounds: [low, high]")
        return Bounded(*bounds)
    if name in ("log1p", "sqrt"):
        kind = Log1p if name == "log1p" else Sqrt
        if scale is None:
            return kind()
        if not 0 < scale < math.inf:
            raise SciffusionError(f"transform {name} with scale {scale}", "write a positive scale in the field's units")
        return kind(scale)
    if name == "censored":
        for value in (scale, threshold):
            if value is not None and not 0 < value < math.inf:
                raise SciffusionError(f"transform censored with {value}", "write positive numbers in the field's units")
        return Censored(scale or math.nan, threshold or math.nan)
    raise SciffusionError(f"no transform is called {name!r}", "known: standardise, log1p, censored, sqrt, bounded")


def of_settings(settings: Variable) -> Transform:
    """The transform of a variable, open parameters still open."""
    return make(settings.transform, settings.scale, settings.bounds, settings.threshold)


def from_json(entry: dict[str, Any]) -> Transform:
    """The inverse of `Transform.to_json`."""
    bounds = (entry["low"], entry["high"]) if entry["name"] == "bounded" else None
    return make(entry["name"], entry.get("scale"), bounds, entry.get("threshold"))


def _module(x: np.ndarray | Tensor) -> Any:
    return torch if isinstance(x, Tensor) else np


def _at_least_zero(x: Array) -> Array:
    return _clip(x, 0.0, math.inf)


def _clip(x: Array, low: float, high: float) -> Array:
    if isinstance(x, Tensor):
        return x.clamp(low, high)
    clipped: np.ndarray = np.clip(x, low, high)
    return clipped
