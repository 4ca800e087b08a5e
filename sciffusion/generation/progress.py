"""How far it is: a bar with the remaining time on a terminal or in a notebook, a line now and then in a batch job."""

import logging
import sys
import time
from typing import Any

__all__ = ["Progress"]

log = logging.getLogger("sciffusion")
_INTERVAL = 30.0  # seconds between log lines


class Progress:
    """Counts items up to ``total``, ``done`` of which were there before; silent when not ``show``.

    ``words`` says what is done to them, ``unit`` what one of them is called.
    """

    def __init__(
        self, total: int, done: int, *, show: bool = True, words: str = "generating", unit: str = "item"
    ) -> None:
        self.total, self.done, self._made, self._words, self._unit = total, done, 0, words, unit
        self._start = self._said = time.monotonic()
        self._show = show
        self._bar: Any = _bar(total, done, words, unit) if show and _interactive() else None

    def update(self, count: int) -> None:
        """Another ``count`` items are complete."""
        self.done, self._made = self.done + count, self._made + count
        if self._bar is not None:
            self._bar.update(count)
        elif self._show and (self.done == self.total or time.monotonic() - self._said > _INTERVAL):
            self._said = time.monotonic()
            log.info(str(self))

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()

    def __str__(self) -> str:
        rate = self._made / max(time.monotonic() - self._start, 1e-9)
        left = (self.total - self.done) / rate if rate else float("inf")
        counted = f"{self._words}: {self.done} of {self.total} {self._unit}s"
        return f"{counted}, {rate:.2f} per second, {_clock(left)} to go"


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _interactive() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _bar(total: int, done: int, words: str, unit: str) -> Any:
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    return tqdm(total=total, initial=done, unit=unit, desc=words)
