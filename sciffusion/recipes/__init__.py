"""Recipes: one YAML per family of models, laid under the user's own settings so that these stay short.

A recipe holds ``stages`` and ``train`` defaults; nothing about data. Besides it says what it is: a one-line
``description``, the problems it ``suits``, and its ``cost``: network calls per member at full resolution, and training
relative to that of `edm` for the same quality on the same network. Imports only yaml.
"""

import difflib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from sciffusion.errors import SciffusionError

__all__ = ["ABOUT", "about", "adopt", "load", "merge", "names"]

ABOUT = ("description", "suits", "cost")
HINTS = ("replaces", "transforms")  # of a recipe, for `adopt` alone


def names() -> dict[str, str]:
    """Every recipe with its one-line description."""
    return {name: str(_read(name)["description"]) for name in _known()}


def load(name: str) -> dict[str, Any]:
    """The settings of a recipe. Raises SciffusionError for an unknown name, with the nearest known one."""
    known = _known()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SciffusionError(f"recipe: no recipe is called {name!r}", f"{hint}known: {', '.join(known)}")
    return {key: value for key, value in _read(name).items() if key not in (*ABOUT, *HINTS)}


def about(name: str) -> dict[str, Any]:
    """What a recipe says of itself, by the keys of ``ABOUT``."""
    found = _read(name)
    return {key: found[key] for key in ABOUT}


def adopt(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` written for another recipe, made for recipe ``name``.

    What the user's stages say of the data goes where the recipe has its place: the baseline to the first stage, the
    constraint to the last, the network to every stage that has one of its kind. Other entries of stages are the old
    recipe's, and go. What the recipe says itself of baseline and constraint stays, and conditions of kinds that it
    ``replaces`` go, and ``transforms`` of variables become others.
    """
    if str(settings.get("recipe", "edm")) == name:
        return dict(settings)
    mine = {key: value for entry in settings.get("stages", []) for key, value in entry.items() if value is not None}
    rows = load(name)["stages"]
    stages: list[dict[str, Any]] = [{"name": row["name"]} for row in rows]
    for entry, row in zip(stages, rows, strict=True):
        if "network" in mine and _same_kind(mine["network"], row.get("network", {})):
            entry["network"] = mine["network"]
    if "baseline" in mine and "baseline" not in rows[0]:
        stages[0]["baseline"] = next(e["baseline"] for e in settings["stages"] if e.get("baseline"))
    if "constraint" in mine and "constraint" not in rows[-1]:
        stages[-1]["constraint"] = mine["constraint"]
    gone = _read(name).get("replaces", [])
    kept = {key: entry for key, entry in settings.get("conditions", {}).items() if entry.get("kind") not in gone}
    return {
        **_transformed(settings, _read(name).get("transforms", {})),
        "recipe": name,
        "conditions": kept,
        "stages": stages,
    }


def _transformed(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Variables whose transform is a key of ``names`` get the other; a sqrt's scale means nothing to it, and goes."""
    target = settings.get("target", {})
    changed = {}
    for name, how in target.get("variables", {}).items():
        own = dict(how)
        if own.get("transform") in names:
            own = {key: value for key, value in own.items() if key != "scale"}
            own["transform"] = names[how["transform"]]
        changed[name] = own
    return {**settings, "target": {**target, "variables": changed}} if changed else dict(settings)


def _same_kind(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one.get("kind", "unet") == other.get("kind", "unet"))


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``under``: mappings are merged, lists of named entries by ``name``, all else replaced."""
    merged = dict(under)
    for key, value in over.items():
        below = under.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(below, value)
        elif _named(below) and _named(value):
            merged[key] = _merge_rows(below, value)
        else:
            merged[key] = value
    return merged


def _merge_rows(under: Any, over: Any) -> list[dict[str, Any]]:
    """The recipe's row in its order, each entry with the user's of the same name on top; new names at the end.

    Where the user names all of the recipe's entries, the order is the user's.
    """
    mine = {entry["name"]: entry for entry in over}
    if all(entry["name"] in mine for entry in under):
        below = {entry["name"]: entry for entry in under}
        return [merge(below.get(name, {}), entry) for name, entry in mine.items()]
    rows = [merge(entry, mine.pop(entry["name"], {})) for entry in under]
    return rows + [dict(entry) for entry in mine.values()]


def _named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, Mapping) and "name" in entry for entry in value)


def _known() -> list[str]:
    return sorted(path.name[:-5] for path in files(__name__).iterdir() if path.name.endswith(".yaml"))


def _read(name: str) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(files(__name__).joinpath(f"{name}.yaml").read_text())
    return settings
