"""The page around the figures: sections in the order in which a reader asks."""

from collections.abc import Callable, Iterable
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

import xarray as xr

from sciffusion.evaluation.report.gather import Shown, climate_maps_of, figures_of, left_out, maps_of
from sciffusion.evaluation.report.section import Section
from sciffusion.evaluation.report.sections import SECTIONS
from sciffusion.evaluation.report.tables import attributes, facts, indices_table, numbers_table, scorecard_table
from sciffusion.evaluation.report.words import GLOSSARY, MAPS, MASKED
from sciffusion.evaluation.scorecard import notes
from sciffusion.evaluation.verdict import WHOLE, Statement, statements

if TYPE_CHECKING:
    from sciffusion.evaluation.evaluation import Evaluation

__all__ = ["render"]

MOST_VARIABLES = (6, 4, 2, 1)  # that get figures: as many as the page's size allows; numbers are given for all
LARGEST = 9.5e6  # bytes of a page that can be sent by mail


def render(evaluation: "Evaluation") -> str:
    """The report as HTML: no file, font or script from elsewhere, under 10 MB."""
    names = [str(name) for name in evaluation.scores["variable"].values]
    for most in sorted({min(most, len(names)) for most in MOST_VARIABLES}, reverse=True):
        page = _page(evaluation, names[:most])
        if len(page.encode()) < LARGEST:
            break
    return page


def _page(evaluation: "Evaluation", shown: list[str]) -> str:
    parts = [(section, _body(evaluation, section, shown)) for section in SECTIONS]
    sections = "".join(
        f'<section id="{one.key}"><h2>{one.title}</h2><p class="says">{one.says}</p>{body}</section>'
        for one, body in parts
    )
    links = " ".join(f'<a href="#{one.key}">{one.title}</a>' for one, _ in parts)
    style = files("sciffusion.evaluation.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Ensemble evaluation</title><style>{style}</style></head>"
        f"<body><main>{_header(evaluation)}<nav>{links}</nav>{sections}</main></body></html>"
    )


def _body(evaluation: "Evaluation", section: Section, shown: list[str]) -> str:
    own: dict[str, Callable[[], str]] = {
        "verdict": lambda: _verdicts(evaluation),
        "scorecard": lambda: _scorecard(evaluation),
        "maps": lambda: _maps(evaluation, shown),
        "spectra": lambda: _spectra_note(evaluation.scores) + _figures(evaluation, section, shown),
        "climate": lambda: _climate(evaluation, section, shown),
        "method": lambda: _method(evaluation),
    }
    return own.get(section.key, lambda: _figures(evaluation, section, shown))()


def _header(evaluation: "Evaluation") -> str:
    scores = evaluation.scores
    names = ", ".join(str(name) for name in scores["variable"].values)
    alarm = ""
    if scores.attrs["sample"] == "IN-SAMPLE":
        words = "Every case was used in training or validation: nothing below is evidence of skill."
        alarm = f'<p class="alarm"><b>IN-SAMPLE.</b> {words}</p>'
    return f"<h1>Ensemble evaluation</h1><p class='soft'>{escape(names)}</p>{alarm}{facts(evaluation)}"


def _verdicts(evaluation: "Evaluation") -> str:
    text = ""
    for name, one in evaluation.side_by_side.items():
        cards = "".join(_card(variable, found, one.scores) for variable, found in statements(one.scores).items())
        title = f"<h3>{escape(name)}</h3>" if evaluation.others else ""
        text += f'{title}<div class="cards">{cards}</div>'
    return text


def _card(name: str, found: list[Statement], scores: xr.Dataset) -> str:
    marks = {True: "good", False: "bad", None: "plain"}
    items = "".join(f'<li class="{marks[one.good]}">{escape(one.text)}</li>' for one in found)
    units = escape(str(scores["units"].sel(variable=name).item()))
    return f'<div class="card"><h4>{escape(name)} <span class="soft">{units}</span></h4><ul>{items}</ul></div>'


def _scorecard(evaluation: "Evaluation") -> str:
    text = scorecard_table(evaluation.scores, list(evaluation.side_by_side))
    text += "".join(f'<p class="note">{escape(words)}.</p>' for words in notes(evaluation.scores))
    for name, one in evaluation.side_by_side.items():
        if one.in_sample is not None:
            owner = f": {escape(name)}" if evaluation.others else ""
            text += (
                f'<div class="alarm"><h3>IN-SAMPLE{owner}</h3><p>The same scores on cases of training '
                "and validation, no evidence of skill; a large gap to the table above is a sign of overfitting.</p>"
                f"{scorecard_table(one.in_sample, [name])}</div>"
            )
    return text


def _maps(evaluation: "Evaluation", shown: list[str]) -> str:
    case = escape(str(evaluation.maps.attrs.get("case", "")))
    text = f"<p>The case shown: {case}. {MAPS}</p>"
    for variable in shown:
        text += f"<h3>{escape(variable)}</h3>"
        for name, pictures in maps_of(evaluation, variable):
            text += f"<h4>{escape(name)}</h4>" if evaluation.others else ""
            text += _grid(pictures, set())
    return text


def _climate(evaluation: "Evaluation", section: Section, shown: list[str]) -> str:
    """Table, figures and maps of whole years; why something is left out."""
    scores = evaluation.scores
    text = indices_table(scores, list(evaluation.side_by_side))
    methods = dict.fromkeys(map(str, scores["year_interval_method"].values)) if "years" in scores else {}
    excerpt = str(scores.attrs.get("climate_excerpt", ""))
    text += f'<p class="note">Of an excerpt of the data: {escape(excerpt)}.</p>' if excerpt and methods else ""
    text += "".join(f'<p class="note">Intervals: {escape(words)}.</p>' for words in methods if text)
    text += _figures(evaluation, section, shown)
    for variable in shown:
        pictures = list(climate_maps_of(evaluation, variable))
        text += f"<h3>{escape(variable)}, cell by cell</h3>{_grid(pictures, set())}" if pictures else ""
    left = str(scores.attrs.get("climate_left_out", ""))
    return text + "".join(f'<p class="note">Left out: {escape(words)}.</p>' for words in left.split("; ") if words)


def _figures(evaluation: "Evaluation", section: Section, shown: list[str]) -> str:
    """Figures by variable, then what was left out and why."""
    found = {name: list(figures_of(evaluation, section, name)) for name in shown}
    text = _blocks(found) if section.plots else ""
    text += numbers_table(evaluation.scores, section.columns, list(evaluation.side_by_side))
    for reason, plots in left_out(evaluation, section).items():
        text += f'<p class="note">Left out: {escape(", ".join(plots))}; {escape(reason)}.</p>'
    left = evaluation.scores.sizes["variable"] - len(shown)
    return text + (f'<p class="note">{left} more variables have numbers in the scorecard only.</p>' if left else "")


def _blocks(found: dict[str, list[Shown]]) -> str:
    """A row of figures per variable; one row for all where each has a single figure. A caption stands once."""
    captions: set[str] = set()
    if max(map(len, found.values())) == 1 and len(found) > 1:
        every = [one for figures in found.values() for one in figures]
        for one in every:
            one.drawing.add_to_title(one.variable)
        return _grid(every, captions)
    titled = ((escape(name), _grid(figures, captions)) for name, figures in found.items() if figures)
    return "".join(f"<h3>{name}</h3>{grid}" for name, grid in titled)


def _grid(figures: Iterable[Shown], captions: set[str]) -> str:
    drawn = "".join(_figure(one, captions) for one in figures)
    return f'<div class="figures">{drawn}</div>'


def _figure(one: Shown, captions: set[str]) -> str:
    """With its caption where that has not been said yet."""
    words = "" if one.caption in captions else one.caption
    captions.add(one.caption)
    caption = f"<figcaption>{escape(words)}</figcaption>" if words else ""
    return f"<figure>{one.drawing.inline()}{caption}</figure>"


def _spectra_note(scores: xr.Dataset) -> str:
    units, window = scores.attrs["wavenumber_units"], scores.attrs["spectral_window"]
    masked = f" {MASKED}" if float(scores["coverage"].isel(system=0).min()) < WHOLE else ""
    return f'<p class="note">Wavenumber in {escape(units)}; window: {escape(window)}.{masked}</p>'


def _method(evaluation: "Evaluation") -> str:
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(words)}</dd>" for term, words in GLOSSARY.items())
    return f"<dl>{terms}</dl>{attributes(evaluation)}"
