"""Tables of the report."""

import json
import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sciffusion.evaluation.measures.indices import INDICES
from sciffusion.evaluation.scorecard import header, rows
from sciffusion.evaluation.verdict.words import interval_words, number

if TYPE_CHECKING:
    from sciffusion.evaluation.evaluation import Evaluation

__all__ = ["attributes", "facts", "indices_table", "numbers_table", "scorecard_table"]

JSON_ATTRIBUTES = ("sciffusion_identity", "sciffusion_settings")
SHOWN = 12  # digits of a fingerprint
MOST_DIGITS = 6  # after the point
LONGEST = 600  # characters of an attribute that are shown


def scorecard_table(scores: xr.Dataset, judged: Sequence[str]) -> str:
    """The same numbers as in the terminal, the rows of the ``judged`` ensembles in bold."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header(scores))
    first = str(scores["system"].values[0])
    body = "".join(_row(cells, cells[1] == first, cells[1] in judged) for cells in rows(scores))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def numbers_table(scores: xr.Dataset, columns: Sequence[tuple[str, str]], judged: Sequence[str]) -> str:
    """A row per variable and system, a column per score that has any number."""
    known = [(words, name) for words, name in columns if name in scores and scores[name].notnull().any()]
    if not known:
        return ""
    head = "".join(f"<th>{escape(words.strip())}</th>" for words in ("variable", "system", *(w for w, _ in known)))
    body = ""
    for variable in scores["variable"].values:
        for index, system in enumerate(scores["system"].values):
            one = scores.sel(variable=variable, system=system)
            cells = (_label(scores, str(variable)), str(system), *(_with_interval(one, name) for _, name in known))
            body += _row(cells, index == 0, str(system) in judged)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def indices_table(scores: xr.Dataset, judged: Sequence[str]) -> str:
    """A row per climate index of every variable: truth and systems, means over years with their intervals."""
    if "climate_index_truth" not in scores or not scores["climate_index_truth"].notnull().any():
        return ""
    systems = [str(name) for name in scores["system"].values]
    head = "".join(f"<th>{escape(words)}</th>" for words in ("index", "truth", *systems))
    body = ""
    for variable in map(str, scores["variable"].values):
        for index in map(str, scores["climate_index"].values):
            one = scores.sel(variable=variable, climate_index=index)
            if one["climate_index_truth"].isnull():
                continue
            units = str(one["climate_index_units"].item())
            about, words = escape(f"{units}; {variable}"), INDICES[index]
            title = f'<td class="words"><b>{words.title}</b> {words.text} <small>[{about}]</small></td>'
            cells = [_with_interval(one, "climate_index_truth", 4)]
            cells += [_with_interval(one.sel(system=name), "climate_index_members", 4) for name in systems]
            body += f"<tr>{title}" + "".join(f"<td>{_cell(cell)}</td>" for cell in cells) + "</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _with_interval(one: xr.Dataset, name: str, significant: int = 3) -> str:
    """With as many digits as the interval is wide; without one, that many ``significant`` ones."""
    value = float(one[name])
    low, high = one[f"{name}_interval"].values if f"{name}_interval" in one else (math.nan, math.nan)
    digits = max(0, 1 - math.floor(math.log10(high - low))) if high > low else MOST_DIGITS + 1
    if digits > MOST_DIGITS:
        return number(value, significant) + interval_words(np.array([low, high]))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _label(scores: xr.Dataset, variable: str) -> str:
    units = str(scores["units"].sel(variable=variable).item())
    return f"{variable} [{units}]" if units else variable


def _row(cells: tuple[str, ...], first: bool, judged: bool) -> str:
    shown = [escape(cells[0]) if first else "", *(_cell(cell) for cell in cells[1:])]
    looks = " ".join(["first"] * first + ["ours"] * judged)
    return f'<tr class="{looks}">' + "".join(f"<td>{cell}</td>" for cell in shown) + "</tr>"


def _cell(text: str) -> str:
    """The interval smaller than the number."""
    value, bracket, interval = text.partition(" [")
    return f"{escape(value)} <small>[{escape(interval)}</small>" if bracket else escape(text)


def facts(evaluation: "Evaluation") -> str:
    """What was scored, at a glance; what differs between ensembles side by side as a table."""
    scores, judged = evaluation.scores, evaluation.side_by_side
    baselines = [str(name) for name in scores["baseline"].values if name not in judged]
    shared = {
        "cases": scores.attrs["cases"],
        "scored on": scores.attrs["sample"],
        "compared with": ", ".join(baselines) or "no baseline",
    }
    own = {name: _own_facts(one) for name, one in judged.items()}
    if not evaluation.others:
        return _tiles(own[evaluation.name] | shared) + _hashes(evaluation.data)
    return _tiles(shared) + _comparison(own) + _hashes(evaluation.data)


def _own_facts(evaluation: "Evaluation") -> dict[str, Any]:
    known = _origin(_flat(evaluation.provenance))
    return {"members": evaluation.scores.attrs["members"]} | {words: value for words, value in known.items() if value}


def _tiles(entries: dict[str, Any]) -> str:
    items = "".join(f"<div><b>{escape(str(value))}</b><span>{words}</span></div>" for words, value in entries.items())
    return f'<div class="facts">{items}</div>'


def _comparison(own: dict[str, dict[str, Any]]) -> str:
    """A row per ensemble."""
    columns = list(dict.fromkeys(words for entries in own.values() for words in entries))
    head = "".join(f"<th>{words}</th>" for words in ("ensemble", *columns))
    body = ""
    for name, entries in own.items():
        cells = "".join(f"<td>{escape(str(entries.get(words, '–')))}</td>" for words in columns)
        body += f'<tr class="ours"><td>{escape(name)}</td>{cells}</tr>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _hashes(data: dict[str, str]) -> str:
    """The first digits of the data's fingerprints; the YAML beside the report has all of them."""
    if not data:
        return ""
    words = ", ".join(f"{escape(name)} <code>{escape(digest[:SHOWN])}</code>" for name, digest in data.items())
    return f'<p class="note">SHA-256 of the data: {words}.</p>'


def attributes(evaluation: "Evaluation") -> str:
    """How the numbers were made, and everything that the ensemble says about its own origin."""
    scores = "".join(_entry(name, value) for name, value in evaluation.scores.attrs.items() if value != "")
    origin = "".join(_entry(name, value) for name, value in _flat(evaluation.provenance).items())
    text = _details("Settings of this evaluation", scores)
    return text + (_details("What the ensemble says of its origin", origin) if origin else "")


def _details(title: str, entries: str) -> str:
    return f'<details><summary>{title}</summary><table class="attributes">{entries}</table></details>'


def _entry(name: str, value: Any) -> str:
    words = str(value)
    words = words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."
    return f"<tr><th>{escape(str(name))}</th><td>{escape(words)}</td></tr>"


def _origin(known: dict[str, Any]) -> dict[str, str]:
    """What the ensemble's attributes say of the sampler, its cost and the model, as far as they do."""
    solver, steps = known.get("sampler.solver", known.get("sampler", "")), known.get("sampler.steps", "")
    cost = next((value for name, value in known.items() if "seconds_per_member" in name), "")
    model = known.get("model.sha256", known.get("sciffusion_model", known.get("model", "")))
    return {
        "sampler": f"{solver}, {steps} steps" if steps else str(solver),
        "seconds per member": str(cost),
        "model": str(model)[:12],
    }


def _flat(provenance: dict[str, Any]) -> dict[str, Any]:
    """The attributes, with those of our own ensembles that hold JSON opened one level deep."""
    entries: dict[str, Any] = {}
    for name, value in provenance.items():
        entries.update(_opened(str(value)) if name in JSON_ATTRIBUTES else {name: value})
    return entries


def _opened(text: str) -> dict[str, Any]:
    try:
        identity = json.loads(text)
    except json.JSONDecodeError:
        return {}
    entries: dict[str, Any] = {}
    for name, value in identity.items() if isinstance(identity, dict) else ():
        inner = {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {name: value}
        entries.update({key: entry for key, entry in inner.items() if entry is not None})
    return entries
