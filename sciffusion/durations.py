"""Lengths of time as people write them: 90s, 10min, 2h, 1h30min, 02:00:00, 1-12:00:00."""

import re

from sciffusion.errors import SciffusionError

__all__ = ["clock", "seconds"]

UNITS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}
_CLOCK = re.compile(r"(?:(?P<d>\d+)-)?(?P<h>\d+):(?P<min>\d\d):(?P<s>\d\d)")
_WORDS = re.compile(r"(?:(\d+(?:\.\d+)?)\s*(d|h|min|m|s)\s*)+")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)")


def seconds(text: str) -> float:
    """Seconds of ``text``. Raises SciffusionError for anything else, a number without unit among them."""
    text = text.strip().lower()
    if match := _CLOCK.fullmatch(text):
        return float(sum(UNITS[unit] * int(count) for unit, count in match.groupdict(default="0").items()))
    if not _WORDS.fullmatch(text):
        raise SciffusionError(f"{text!r} is no length of time", "write it like 90s, 10min, 2h, 1h30min or 02:00:00")
    return sum(UNITS[unit] * float(count) for count, unit in _PART.findall(text))


def clock(duration: float) -> str:
    """``duration`` in seconds as HH:MM:SS."""
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"
