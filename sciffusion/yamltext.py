"""The YAML of an experiment as text: read without surprises, changed by ``a.b=value``, and where an entry stands in it.

Two surprises of YAML 1.1 are switched off: dates stay text (``2026-03-25`` is a label), and a key given twice is an
error instead of silently losing the first.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from sciffusion.errors import SciffusionError

__all__ = ["apply_override", "line_of", "parse", "walk"]


class _Loader(yaml.SafeLoader):
    """SafeLoader that keeps dates as text and refuses repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping whose keys occur once."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice in one section", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str, path: str | Path = "") -> Any:
    """Read YAML. Raises SciffusionError naming the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}{f', line {mark.line + 1}' if mark else ''}"
        problem = getattr(error, "problem", None) or str(error)
        raise SciffusionError(
            f"{where}: not valid YAML: {problem}", "mend the YAML at or just before that line"
        ) from None


def apply_override(settings: dict[str, Any], override: str) -> None:
    """Apply one ``a.b.0.c=value`` in place; the value is read as YAML, list entries are found by index or name."""
    key, separator, value = override.partition("=")
    if not separator or not key.strip():
        raise SciffusionError(f"--set {override}: no '='", "write for example --set train.steps=100")
    *path, last = key.strip().split(".")
    node: Any = settings
    for part in path:
        node = node[_position(node, part, override)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, (dict, list)):
            raise SciffusionError(f"--set {override}: {part!r} is not a section", "check the path in the YAML")
    node[_position(node, last, override) if isinstance(node, list) else last] = parse(value, f"--set {override}")


def _position(node: list[Any], part: str, override: str) -> int:
    """Index of a list entry, by number or by the entry's ``name``."""
    for index, entry in enumerate(node):
        if part == str(index) or (isinstance(entry, dict) and entry.get("name") == part):
            return index
    raise SciffusionError(f"--set {override}: no entry {part!r} in the list", "use its index or its name")


def walk(settings: Any, location: Sequence[int | str]) -> list[int | str]:
    """The part of a pydantic location that are keys of ``settings``: without the tags of unions, with entries' names.

    A last part that is not there (a missing or unknown entry) is kept.
    """
    found: list[int | str] = []
    node = settings
    for place, part in enumerate(location):
        last = place == len(location) - 1
        if isinstance(node, dict) and part in node:
            node = node[part]
            found.append(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
            found.append(node.get("name", part) if isinstance(node, dict) else part)
        elif isinstance(node, dict) and last and "[" not in str(part) and part != node.get("kind"):
            found.append(part)
    return found


def line_of(text: str, place: Sequence[int | str]) -> int | None:
    """Line of the YAML entry nearest to ``place`` (keys, indices, names of list entries); None without any."""
    if not text:
        return None
    node, line = yaml.compose(text, Loader=yaml.SafeLoader), None
    for part in place:
        inner = _child(node, part)
        if inner is None:
            break
        line, node = inner
    return line


def _child(node: Any, part: int | str) -> tuple[int, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            if part == index or ((name := _child(entry, "name")) is not None and name[1].value == part):
                return entry.start_mark.line + 1, entry
    return None
