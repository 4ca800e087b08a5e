"""The page around the figures: sections in the order in which a reader asks."""

from collections.abc import Callable
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

import xarray as xr

from sciffusion.evaluation.report import curves, maps
from sciffusion.evaluation.report.tables import attributes, facts, scorecard_table
from sciffusion.evaluation.report.words import CAPTIONS, GLOSSARY
from sciffusion.evaluation.scorecard import interval_notes
from sciffusion.evaluation.verdict import WHOLE, Statement, statements

if TYPE_CHECKING:
    from sciffusion.evaluation.evaluation import Evaluation

__all__ = ["render"]

MOST_FIGURES = 6  # variables that get figures; numbers are given for all
SECTIONS = {
    "verdict": "Verdict",
    "scorecard": "Scorecard",
    "maps": "One case in pictures",
    "skill": "Where and when it is good",
    "calibration": "Is the spread right?",
    "spectra": "Is the detail right at every scale?",
    "distributions": "Are the values right, extremes included?",
    "method": "How this was computed",
}


def render(evaluation: "Evaluation") -> str:
    """The report as HTML: no file, font or script from elsewhere."""
    scores = evaluation.scores
    shown = [str(name) for name in scores["variable"].values][:MOST_FIGURES]
    body = {
        "verdict": _verdict(scores),
        "scorecard": _scorecard(evaluation),
        "maps": _maps(evaluation.maps, scores, shown),
        "skill": _by_variable(scores, shown, _skill_figures),
        "calibration": _by_variable(scores, shown, _calibration_figures),
        "spectra": _spectra_note(scores) + _by_variable(scores, shown, _spectral_figures),
        "distributions": _by_variable(scores, shown, _distribution_figures),
        "method": _method(evaluation),
    }
    sections = "".join(f'<section id="{key}"><h2>{SECTIONS[key]}</h2>{text}</section>' for key, text in body.items())
    links = " ".join(f'<a href="#{key}">{words}</a>' for key, words in SECTIONS.items())
    style = files("sciffusion.evaluation.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Ensemble evaluation</title><style>{style}</style></head>"
        f"<body><main>{_header(evaluation)}<nav>{links}</nav>{sections}</main></body></html>"
    )


def _header(evaluation: "Evaluation") -> str:
    scores = evaluation.scores
    names = ", ".join(str(name) for name in scores["variable"].values)
    alarm = ""
    if scores.attrs["sample"] == "IN-SAMPLE":
        words = "Every case was used in training: nothing below is evidence of skill."
        alarm = f'<p class="alarm"><b>IN-SAMPLE.</b> {words}</p>'
    return f"<h1>Ensemble evaluation</h1><p class='soft'>{escape(names)}</p>{alarm}{facts(evaluation)}"


def _verdict(scores: xr.Dataset) -> str:
    cards = "".join(_card(name, found, scores) for name, found in statements(scores).items())
    return f'<div class="cards">{cards}</div>'


def _card(name: str, found: list[Statement], scores: xr.Dataset) -> str:
    marks = {True: "good", False: "bad", None: "plain"}
    items = "".join(f'<li class="{marks[one.good]}">{escape(one.text)}</li>' for one in found)
    units = escape(str(scores["units"].sel(variable=name).item()))
    return f'<div class="card"><h3>{escape(name)} <span class="soft">{units}</span></h3><ul>{items}</ul></div>'


def _scorecard(evaluation: "Evaluation") -> str:
    text = scorecard_table(evaluation.scores)
    text += "".join(f'<p class="note">{escape(words)}.</p>' for words in interval_notes(evaluation.scores))
    if evaluation.in_sample is not None:
        text += (
            '<div class="alarm"><h3>IN-SAMPLE</h3><p>The same scores on cases that the model was trained on. '
            "They are no evidence of skill; a large gap to the table above is a sign of overfitting.</p>"
            f"{scorecard_table(evaluation.in_sample)}</div>"
        )
    return text


def _maps(pictures: xr.Dataset, scores: xr.Dataset, shown: list[str]) -> str:
    text = f"<p>{escape(str(pictures.attrs.get('case', '')))}. {CAPTIONS['maps']}</p>"
    for name in shown:
        units = str(scores["units"].sel(variable=name).item())
        found = [*maps.case_maps(pictures, name, units), *maps.mean_maps(pictures, name, units)]
        drawn = "".join(f"<figure>{one}</figure>" for one in found)
        text += f'<h3>{escape(name)}</h3><div class="figures">{drawn}</div>'
    return text


def _by_variable(scores: xr.Dataset, shown: list[str], draw: Callable[[xr.Dataset], list[tuple[str, str]]]) -> str:
    text = ""
    for name in shown:
        figures = "".join(
            f"<figure>{drawn}<figcaption>{CAPTIONS[key]}</figcaption></figure>"
            for key, drawn in draw(scores.sel(variable=name))
        )
        text += f'<h3>{escape(name)}</h3><div class="figures">{figures}</div>'
    left = scores.sizes["variable"] - len(shown)
    return text + (f'<p class="note">{left} more variables have numbers in the scorecard only.</p>' if left else "")


def _skill_figures(one: xr.Dataset) -> list[tuple[str, str]]:
    return [("by_case", curves.by_case(one)), ("by_region", curves.by_region(one))]


def _calibration_figures(one: xr.Dataset) -> list[tuple[str, str]]:
    if one["spread_skill"].isel(system=0).isnull():
        return []
    return [
        ("rank_histogram", curves.rank_histogram(one)),
        ("spread_skill", curves.spread_skill(one)),
        ("scales", curves.scales(one)),
    ]


def _spectral_figures(one: xr.Dataset) -> list[tuple[str, str]]:
    return [("spectrum", curves.spectrum(one, str(band))) for band in one["band"].values]


def _distribution_figures(one: xr.Dataset) -> list[tuple[str, str]]:
    return [("densities", curves.densities(one)), ("quantiles", curves.quantiles(one))]


def _spectra_note(scores: xr.Dataset) -> str:
    units, window = scores.attrs["wavenumber_units"], scores.attrs["spectral_window"]
    masked = f" {CAPTIONS['masked']}" if float(scores["coverage"].isel(system=0).min()) < WHOLE else ""
    return f'<p class="note">Wavenumber in {escape(units)}; window: {escape(window)}.{masked}</p>'


def _method(evaluation: "Evaluation") -> str:
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(words)}</dd>" for term, words in GLOSSARY.items())
    return f"<dl>{terms}</dl>{attributes(evaluation)}"
