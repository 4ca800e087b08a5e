"""Conversion of units between files of the same quantity: a small linear algebra of unit strings.

A unit is ``value = slope * x + offset`` in SI base units with integer powers of them, so that ``mm/day``, ``mm d-1``
and ``kg m-2 s-1`` (of water) compare by meaning. Written by udunits' grammar as far as gridded data use it.
"""

import re
from dataclasses import dataclass

from sciffusion.errors import SciffusionError

__all__ = ["conversion", "same_units"]

Powers = tuple[tuple[str, int], ...]
WATER_DENSITY = 1000.0  # kg m-3: a kg m-2 of precipitation is a mm

_BASE: dict[str, tuple[float, dict[str, int]]] = {
    "m": (1.0, {"m": 1}),
    "metre": (1.0, {"m": 1}),
    "meter": (1.0, {"m": 1}),
    "ft": (0.3048, {"m": 1}),
    "g": (1e-3, {"kg": 1}),
    "gram": (1e-3, {"kg": 1}),
    "s": (1.0, {"s": 1}),
    "sec": (1.0, {"s": 1}),
    "second": (1.0, {"s": 1}),
    "min": (60.0, {"s": 1}),
    "minute": (60.0, {"s": 1}),
    "h": (3600.0, {"s": 1}),
    "hr": (3600.0, {"s": 1}),
    "hour": (3600.0, {"s": 1}),
    "d": (86400.0, {"s": 1}),
    "day": (86400.0, {"s": 1}),
    "K": (1.0, {"K": 1}),
    "kelvin": (1.0, {"K": 1}),
    "mol": (1.0, {"mol": 1}),
    "N": (1.0, {"kg": 1, "m": 1, "s": -2}),
    "Pa": (1.0, {"kg": 1, "m": -1, "s": -2}),
    "pascal": (1.0, {"kg": 1, "m": -1, "s": -2}),
    "bar": (1e5, {"kg": 1, "m": -1, "s": -2}),
    "atm": (101325.0, {"kg": 1, "m": -1, "s": -2}),
    "J": (1.0, {"kg": 1, "m": 2, "s": -2}),
    "W": (1.0, {"kg": 1, "m": 2, "s": -3}),
    "Hz": (1.0, {"s": -1}),
    "L": (1e-3, {"m": 3}),
    "knot": (1852.0 / 3600.0, {"m": 1, "s": -1}),
    "kt": (1852.0 / 3600.0, {"m": 1, "s": -1}),
    "Sv": (1e6, {"m": 3, "s": -1}),
    "DU": (4.4615e-4, {"mol": 1, "m": -2}),
    "rad": (1.0, {}),
    "radian": (1.0, {}),
    "degree": (0.017453292519943295, {}),
    "percent": (1e-2, {}),
    "psu": (1e-3, {}),
    "ppm": (1e-6, {}),
    "ppb": (1e-9, {}),
}
_PREFIXES = {"n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "c": 1e-2, "d": 1e-1, "h": 1e2, "k": 1e3, "M": 1e6, "G": 1e9}
_PREFIXED = ("m", "g", "s", "Pa", "bar", "J", "W", "Hz", "L", "mol", "metre", "meter", "gram", "pascal", "N", "K")
_LONG_PREFIXES = {"milli": 1e-3, "centi": 1e-2, "deci": 1e-1, "hecto": 1e2, "kilo": 1e3, "micro": 1e-6}
_CELSIUS = re.compile(r"(deg(rees?)?[ _]?c(elsius)?|celsius|°c|c)", re.IGNORECASE)
_FAHRENHEIT = re.compile(r"(deg(rees?)?[ _]?f(ahrenheit)?|fahrenheit|°f)", re.IGNORECASE)
_NONE = {"", "1", "-", "none", "dimensionless", "unitless", "(0 - 1)", "(0-1)", "0-1", "fraction", "proportion", "~"}
_TOKEN = re.compile(r"([A-Za-zµ%°_]+?)\s*(?:\^|\*\*)?\s*([+-]?\d+)?$")


@dataclass(frozen=True)
class _Unit:
    """``x`` in this unit is ``slope * x + offset`` in the base units ``powers``."""

    slope: float
    offset: float
    powers: Powers


def same_units(first: str, second: str) -> bool:
    """Whether two unit strings mean the same (``m/s`` and ``m s**-1``). An unknown string equals only itself."""
    if first.strip() == second.strip():
        return True
    one, two = _parse(first), _parse(second)
    return one is not None and one == two


def conversion(source: str, target: str, name: str = "") -> tuple[float, float]:
    """(slope, offset) with ``value[target] = slope * value[source] + offset``.

    Raises SciffusionError, naming ``name``, when the units measure different things or one is unknown.
    """
    if source.strip() == target.strip():
        return 1.0, 0.0
    label = f"{name}: " if name else ""
    one, two = _parse(source), _parse(target)
    if one is None or two is None:
        raise SciffusionError(
            f"{label}units {source!r} cannot be converted to {target!r}:"
            f" {(source if one is None else target)!r} is not a known unit",
            "convert the file, or correct its units attribute",
        )
    factor = _equivalence(dict(one.powers), dict(two.powers))
    if factor is None:
        raise SciffusionError(
            f"{label}units {source!r} cannot be converted to {target!r}: they measure different quantities",
            "check that this is the same quantity as in training, or correct the units attribute",
        )
    return factor * one.slope / two.slope, (factor * one.offset - two.offset) / two.slope


def _equivalence(one: dict[str, int], two: dict[str, int]) -> float | None:
    """1 for equal powers; a density for a mass of water per area against its depth; None when incomparable."""
    difference = {key: one.get(key, 0) - two.get(key, 0) for key in {*one, *two}}
    difference = {key: power for key, power in difference.items() if power}
    if not difference:
        return 1.0
    if difference == {"kg": 1, "m": -3}:
        return 1 / WATER_DENSITY
    if difference == {"kg": -1, "m": 3}:
        return WATER_DENSITY
    return None


def _parse(text: str) -> _Unit | None:
    text = re.sub(r"\s*(of )?water( equivalent)?$", "", text.strip())
    if text.lower() in _NONE:
        return _Unit(1.0, 0.0, ())
    if _CELSIUS.fullmatch(text):
        return _Unit(1.0, 273.15, (("K", 1),))
    if _FAHRENHEIT.fullmatch(text):
        return _Unit(5 / 9, 459.67 * 5 / 9, (("K", 1),))
    slope, powers = 1.0, dict[str, int]()
    for position, group in enumerate(text.replace("per ", "/").split("/")):
        for token in re.split(r"(?<!\*)[\s.·⋅](?!\*)|(?<!\*)\*(?!\*)", group.strip()):
            factor = _token(token, -1 if position else 1) if token else (1.0, {})
            if factor is None:
                return None
            slope *= factor[0]
            for base, power in factor[1].items():
                powers[base] = powers.get(base, 0) + power
    return _Unit(slope, 0.0, tuple(sorted((base, power) for base, power in powers.items() if power)))


def _token(token: str, sign: int) -> tuple[float, dict[str, int]] | None:
    """One factor such as ``m``, ``s-1``, ``m**2`` or ``1000``."""
    try:
        return float(token) ** sign, {}
    except ValueError:
        pass
    match = _TOKEN.match(token)
    symbol = _symbol(match[1]) if match else None
    if match is None or symbol is None:
        return None
    power = sign * int(match[2] or 1)
    return symbol[0] ** power, {base: exponent * power for base, exponent in symbol[1].items()}


def _symbol(name: str) -> tuple[float, dict[str, int]] | None:
    """Scale and powers of a unit name, with its prefix or plural."""
    fixed = {"%": "percent", "deg": "degree", "degK": "K", "°": "degree", "hours": "h", "mb": "mbar", "gpm": "m"}
    name = fixed.get(name, name)
    if name in _BASE:
        return _BASE[name]
    if name[:1] in _PREFIXES and name[1:] in _PREFIXED:
        scale, powers = _BASE[name[1:]]
        return _PREFIXES[name[0]] * scale, powers
    for prefix, factor in _LONG_PREFIXES.items():
        if name.lower().startswith(prefix) and name[len(prefix) :].rstrip("s") in _PREFIXED:
            scale, powers = _BASE[name[len(prefix) :].rstrip("s")]
            return factor * scale, powers
    lower = name.lower()
    plural = lower[:-1] if lower.endswith("s") and len(lower) > 2 else lower
    return _BASE.get(plural) if len(plural) > 2 else None
