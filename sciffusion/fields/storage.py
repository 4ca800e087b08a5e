"""How an ensemble's numbers are kept: as they are, or on request rounded or packed, with a bound of the error.

Rounding keeps the first bits of the mantissa (Klower et al. 2021, doi:10.1038/s43588-021-00156-2): the values stay
floats, and what follows compresses well. Packing turns values of a given range into 16-bit integers (CF section 8.1).
Both are checked value by value when they are written; a value that does not fit is an error, never a wrong number.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sciffusion.errors import SciffusionError

__all__ = ["STORAGE", "Encoder", "Exact", "Packed", "Rounded", "Storage", "encoded"]

STORAGE = "storage"  # entry of an ensemble's identity
_MISSING = -32768  # the integer of a packed NaN
_STEPS = 65534  # from -32767 to 32767


class Encoder(Protocol):
    """What a variable's values go through on their way to the disk."""

    def dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Dtype on disk of values of ``dtype``."""

    def fill(self) -> float | int:
        """What stands on disk where nothing is."""

    def attributes(self) -> dict[str, Any]:
        """What a reader has to know, and the bound of the error."""

    def encode(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Values as they are kept. Raises SciffusionError, naming ``name``, when one does not fit."""

    def decode(self, stored: NDArray[Any]) -> NDArray[Any]:
        """What a reader gets."""

    def bound(self, values: NDArray[Any]) -> NDArray[Any]:
        """Largest error allowed for each of ``values``."""


@dataclass(frozen=True)
class Exact:
    """Nothing is changed."""

    def dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The same."""
        return dtype

    def fill(self) -> float:
        """NaN."""
        return float("nan")

    def attributes(self) -> dict[str, Any]:
        """None."""
        return {}

    def encode(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """The values themselves."""
        return values

    def decode(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The values themselves."""
        return stored

    def bound(self, values: NDArray[Any]) -> NDArray[Any]:
        """Zero."""
        return np.zeros_like(values)


@dataclass(frozen=True)
class Rounded(Exact):
    """Floats with ``bits`` explicit bits of the mantissa, rounded to nearest, ties to even; at least normal numbers.

    The relative error is at most 2^-(bits + 1).
    """

    bits: int

    def attributes(self) -> dict[str, Any]:
        """The number of bits and the bound."""
        return {"quantization_nsb": self.bits, "maximum_relative_error": 2.0 ** -(self.bits + 1)}

    def encode(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Rounded values; NaN and infinities stay."""
        word: Any
        word, explicit = (np.uint32, 23) if values.dtype == np.float32 else (np.uint64, 52)
        cut = explicit - self.bits
        if cut <= 0:
            return values
        raw: NDArray[Any] = np.ascontiguousarray(values).view(word)
        below_half = word((1 << cut - 1) - 1)
        odd = (raw >> word(cut)) & word(1)  # ties go to the even neighbour
        rounded: NDArray[Any] = ((raw + below_half + odd) & ~word((1 << cut) - 1)).view(values.dtype)
        finite = np.isfinite(values)
        if not np.isfinite(rounded[finite]).all():
            raise SciffusionError(f"{name}: a value overflows when it is rounded to {self.bits} bits", "keep more bits")
        kept: NDArray[Any] = np.where(finite, rounded, values)
        return kept

    def bound(self, values: NDArray[Any]) -> NDArray[Any]:
        """Relative to the value; absolute below the smallest normal number."""
        smallest = np.finfo(values.dtype).smallest_normal
        largest: NDArray[Any] = np.maximum(np.abs(values.astype(np.float64)), smallest) * 2.0 ** -(self.bits + 1)
        return largest


@dataclass(frozen=True)
class Packed:
    """16-bit integers for values from ``low`` to ``high``."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Units per integer."""
        return (self.high - self.low) / _STEPS

    @property
    def offset(self) -> float:
        """The value of the integer 0."""
        return (self.high + self.low) / 2

    @property
    def error(self) -> float:
        """Half a step, and the rounding of the reader's float32."""
        return self.scale / 2 + 2.0**-23 * max(abs(self.low), abs(self.high))

    def dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """16-bit integers, whatever the values are."""
        return np.dtype(np.int16)

    def fill(self) -> int:
        """The integer of NaN."""
        return _MISSING

    def attributes(self) -> dict[str, Any]:
        """CF's packing attributes and the bound."""
        packing = {"scale_factor": self.scale, "add_offset": self.offset, "_FillValue": _MISSING}
        return {**packing, "maximum_absolute_error": self.error}

    def encode(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Integers; NaN becomes the fill value."""
        missing = np.isnan(values)
        outside = ~missing & ~((values >= self.low) & (values <= self.high))
        if outside.any():
            worst = float(values[outside][np.argmax(np.abs(values[outside] - self.offset))])
            raise SciffusionError(
                f"{name}: {worst:g} is outside the range of its packing, {self.low:g} to {self.high:g}",
                "begin another output with a wider range in --pack, or use --round-bits; what was complete is intact",
            )
        steps = np.rint((np.where(missing, self.offset, values).astype(np.float64) - self.offset) / self.scale)
        return np.where(missing, _MISSING, steps).astype(np.int16)

    def decode(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Floats; the fill value becomes NaN."""
        values = stored.astype(np.float64) * self.scale + self.offset
        return np.where(stored == _MISSING, np.nan, values).astype(np.float32)

    def bound(self, values: NDArray[Any]) -> NDArray[Any]:
        """The same everywhere."""
        return np.full_like(values, self.error)


@dataclass(frozen=True)
class Storage:
    """What is asked of a store: mantissa bits to keep, ranges to pack by variable, chunk lengths by grid dim."""

    round_bits: int | None = None
    pack: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    chunks: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.round_bits is not None and not 1 <= self.round_bits <= 52:
            raise SciffusionError(
                f"{self.round_bits} bits of the mantissa", "keep 1 to 23 of float32, 1 to 52 of float64"
            )
        for name, (low, high) in self.pack.items():
            if not (np.isfinite([low, high]).all() and low < high):
                raise SciffusionError(f"{name}: no range to pack, {low:g} to {high:g}", "give LOW/HIGH with LOW < HIGH")
        for dim, length in self.chunks.items():
            if length < 1:
                raise SciffusionError(f"chunks of {length} along {dim}", "give a positive length")

    def require(self, variables: Iterable[str], dims: Iterable[str]) -> None:
        """Raise SciffusionError for names that are not among the variables or the dims of one item."""
        for kind, asked, names in (("variable", self.pack, variables), ("grid dimension", self.chunks, dims)):
            known = list(names)
            unknown = [name for name in asked if name not in known]
            if unknown:
                raise SciffusionError(f"no {kind} {unknown[0]!r} to store", f"there are {', '.join(known)}")

    def encoder(self, name: str) -> Encoder:
        """What the values of variable ``name`` go through."""
        if name in self.pack:
            return Packed(*map(float, self.pack[name]))
        return Exact() if self.round_bits is None else Rounded(self.round_bits)

    @property
    def lossy(self) -> bool:
        """Whether anything is rounded or packed."""
        return bool(self.pack) or self.round_bits is not None

    def to_json(self) -> dict[str, Any]:
        """For the identity of a store; {} when nothing is asked."""
        ranges = {name: [float(low), float(high)] for name, (low, high) in sorted(self.pack.items())}
        entry = {"round_bits": self.round_bits, "pack": ranges, "chunks": dict(sorted(self.chunks.items()))}
        return {name: value for name, value in entry.items() if value}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Storage":
        """The inverse of `to_json`."""
        pack = {name: (float(low), float(high)) for name, (low, high) in entry.get("pack", {}).items()}
        return cls(entry.get("round_bits"), pack, dict(entry.get("chunks", {})))


def encoded(name: str, encoder: Encoder, values: NDArray[Any]) -> NDArray[Any]:
    """``values`` as they are kept, after every one has been decoded and compared with its bound."""
    if isinstance(encoder, Exact) and not isinstance(encoder, Rounded):
        return values
    stored = encoder.encode(name, values)
    read = encoder.decode(stored)
    finite = np.isfinite(values)
    error = np.abs(read[finite].astype(np.float64) - values[finite])
    if not (np.array_equal(np.isnan(read), np.isnan(values)) and (error <= encoder.bound(values[finite])).all()):
        raise SciffusionError(f"{name}: was not stored within its error bound", "report this, and store it exactly")
    return stored
