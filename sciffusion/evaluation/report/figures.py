"""Figures as inline SVG whose lines and words take the page's colour, so that they suit light, dark and paper."""

import io
import itertools
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import NullLocator

__all__ = ["COLOURS", "ENSEMBLE", "INK", "MARKERS", "Drawing", "figure", "powers", "styled"]

INK = "#010203"  # stands for the page's text colour until the SVG is written
ENSEMBLE = "#1f86d6"
COLOURS = (
    "#e08a00",
    "#0f9d75",
    "#c85fa0",
    "#d5502a",
    "#8a7fd0",
    "#9a8a00",
)  # baselines, told apart by the colour-blind
MARKERS = "os^DvPX"  # the same for print without colours

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "axes.titley": 1.0,
    "axes.formatter.limits": (-3, 4),
    "text.parse_math": False,
}
_serial = itertools.count()


def styled() -> AbstractContextManager[None]:
    """The style of the report, for as long as a figure is drawn; words of the data are no mathematics in it."""
    return mpl.rc_context(_STYLE)


def figure(
    width: float = 4.6, height: float = 3.1, ratios: tuple[float, ...] = (1.0,), top: float = 0.3
) -> tuple[Figure, list[Axes]]:
    """A figure in inches and its axes, one above the other with these heights, sharing x; ``top`` is left for words."""
    canvas = Figure(figsize=(width, height))
    margins = {"left": 0.7 / width, "right": 1 - 0.2 / width, "bottom": 0.5 / height, "top": 1 - top / height}
    room = {"height_ratios": ratios, "hspace": 0.12, **margins}
    axes = canvas.subplots(len(ratios), 1, sharex=True, squeeze=False, gridspec_kw=room)[:, 0]
    for one in axes:
        one.patch.set_alpha(0)
        one.minorticks_off()
        one.grid(color=INK, alpha=0.13, linewidth=0.6)
        one.set_axisbelow(True)
    canvas.patch.set_alpha(0)
    return canvas, list(axes)


def powers(axis: Axis) -> None:
    """Label a logarithmic axis by at most five powers of ten in plain text, a short one by 1, 2 and 5 times those."""
    low, high = (np.log10(bound) for bound in axis.get_view_interval())
    step = max(1, int(np.ceil((high - low) / 5)))
    exponents = range(int(np.ceil(low)), int(np.floor(high)) + 1, step)
    if len(exponents) > 1:
        axis.set_ticks([10.0**n for n in exponents], [_power(n) for n in exponents])
    else:
        fine = [c * 10.0**n for n in range(int(np.floor(low)), int(np.ceil(high)) + 1) for c in (1, 2, 5)]
        inside = [value for value in fine if low <= np.log10(value) <= high]
        axis.set_ticks(inside, [f"{value:g}" for value in inside])
    axis.set_minor_locator(NullLocator())


def _power(exponent: int) -> str:
    if 0 <= exponent <= 3:
        return str(10**exponent)
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@dataclass(frozen=True)
class Drawing:
    """A figure, described by ``words`` for those who cannot see it."""

    canvas: Figure
    words: str

    def inline(self) -> str:
        """As an SVG element of the page, whose ink is the page's text colour."""
        serial = next(_serial)
        text = self._svg().replace(INK, "currentColor")
        text = re.sub(r'\bid="', f'id="f{serial}-', text)
        text = re.sub(r'(href="#|url\(#)', rf"\g<1>f{serial}-", text)
        head, rest = text.split(">", 1)
        head = re.sub(r' (width|height)="[^"]*"', "", head)
        return f'{head} role="img" aria-label="{escape(self.words, quote=True)}">{rest}'

    def add_to_title(self, words: str) -> None:
        """Say in the title what else the figure is of."""
        title = self.canvas.axes[0].get_title(loc="left")
        for text in self.canvas.axes[0].findobj(lambda one: isinstance(one, Text) and one.get_text() == title):
            text.set(text=f"{title}: {words}")  # in its place; set_title would move it

    def save(self, stem: Path) -> list[Path]:
        """As STEM.svg, and STEM.png on white paper, for a document of the reader's own."""
        vector, pixels = stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png")
        vector.write_text(self._svg(), encoding="utf-8")
        with styled():
            self.canvas.patch.set(alpha=1, facecolor="white")
            self.canvas.savefig(pixels, dpi=200)
            self.canvas.patch.set_alpha(0)
        return [vector, pixels]

    def _svg(self) -> str:
        buffer = io.StringIO()
        with mpl.rc_context({**_STYLE, "svg.hashsalt": "sciffusion"}):
            self.canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        text = buffer.getvalue()
        return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
