"""Tables of the report."""

import json
from html import escape
from typing import TYPE_CHECKING, Any

import xarray as xr

from sciffusion.evaluation.scorecard import HEADER, rows

if TYPE_CHECKING:
    from sciffusion.evaluation.evaluation import Evaluation

__all__ = ["attributes", "facts", "scorecard_table"]

JSON_ATTRIBUTES = ("sciffusion_identity", "sciffusion_settings")
LONGEST = 600  # characters of an attribute that are shown


def scorecard_table(scores: xr.Dataset) -> str:
    """The same numbers as in the terminal, the ensemble's rows in bold."""
    ours = str(scores["system"].values[0])
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADER)
    body = "".join(_row(cells, ours) for cells in rows(scores))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(cells: tuple[str, ...], ours: str) -> str:
    first = cells[1] == ours
    shown = [escape(cells[0]) if first else "", *(_cell(cell) for cell in cells[1:])]
    return f'<tr class="{"first ours" if first else ""}">' + "".join(f"<td>{cell}</td>" for cell in shown) + "</tr>"


def _cell(text: str) -> str:
    """The interval smaller than the number."""
    value, bracket, interval = text.partition(" [")
    return f"{escape(value)} <small>[{escape(interval)}</small>" if bracket else escape(text)


def facts(evaluation: "Evaluation") -> str:
    """What was scored, at a glance."""
    scores, known = evaluation.scores, _flat(evaluation.provenance)
    entries = {
        "members": scores.attrs["members"],
        "cases": scores.attrs["cases"],
        "scored on": scores.attrs["sample"],
        "compared with": ", ".join(str(name) for name in scores["baseline"].values) or "no baseline",
    }
    entries.update({words: value for words, value in _origin(known).items() if value})
    items = "".join(f"<div><b>{escape(str(value))}</b><span>{words}</span></div>" for words, value in entries.items())
    return f'<div class="facts">{items}</div>'


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
