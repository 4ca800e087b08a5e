"""YAML with comments: nested mappings to text, short values in one line, a comment per entry where there is one."""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

__all__ = ["render"]

WIDTH = 110
_BARE = re.compile(r"[\w./~](?:[\w./~:+ -]*[\w./~+-])?", re.ASCII)  # text that may stand without quotes


def render(settings: Mapping[str, Any], comments: Mapping[str, str], head: Sequence[str] = ()) -> str:
    """Write ``settings`` as YAML.

    Parameters
    ----------
    settings
        Plain data.
    comments
        Dotted path (list entries by index) -> comment, put behind the entry, or above it when it would not fit.
    head
        Comment lines for the top of the file.
    """
    lines = [f"# {line}" if line else "#" for line in head]
    for key, value in settings.items():
        block = _entry(key, value, comments, (key,), 0)
        if lines and isinstance(value, (Mapping, list)):
            lines.append("")
        lines.append(block)
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, comments: Mapping[str, str], path: tuple[str, ...], depth: int) -> str:
    """One ``key: value``, indented, with its comment."""
    indent, comment = "  " * depth, comments.get(".".join(path), "")
    inner = [dotted for dotted in comments if dotted.startswith(".".join(path) + ".")]
    flat = f"{indent}{_scalar(key)}: {_flow(value)}"
    if not inner and (len(flat) <= WIDTH or not _has_entries(value)):
        return _with_comment(flat, comment, indent)
    start = _with_comment(f"{indent}{_scalar(key)}:", comment, indent)
    if isinstance(value, Mapping):
        return "\n".join([start, *(_entry(k, v, comments, (*path, k), depth + 1) for k, v in value.items())])
    return "\n".join([start, *(_item(v, comments, (*path, str(i)), depth + 1) for i, v in enumerate(value))])


def _item(value: Any, comments: Mapping[str, str], path: tuple[str, ...], depth: int) -> str:
    """One entry of a list; a mapping starts behind the dash."""
    indent = "  " * depth
    if not isinstance(value, Mapping) or not value:
        return _with_comment(f"{indent}- {_flow(value)}", comments.get(".".join(path), ""), indent)
    block = "\n".join(_entry(k, v, comments, (*path, k), depth + 1) for k, v in value.items())
    lines = block.split("\n")
    first = next(i for i, line in enumerate(lines) if not line.lstrip().startswith("#"))
    lines[first] = f"{indent}- {lines[first].lstrip()}"
    return "\n".join(lines)


def _with_comment(line: str, comment: str, indent: str) -> str:
    if not comment:
        return line
    if len(line) + len(comment) + 4 <= WIDTH:
        return f"{line}  # {comment}"
    return f"{indent}# {comment}\n{line}"


def _has_entries(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple)) and len(value) > 0


def _flow(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(entry) for entry in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A scalar as YAML reads it back, quoted only where it must be; dates stay bare, the reader keeps them text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if "e" not in repr(value) or "." in repr(value) else repr(value).replace("e", ".0e")
    if isinstance(value, int):
        return str(value)
    bare = str(value)
    if _BARE.fullmatch(bare) and _reads_back(bare):
        return bare
    quoted = json.dumps(bare, ensure_ascii=False)
    return re.sub("[\x7f-\xa0\u2028\u2029\ufeff]", lambda match: f"\\u{ord(match[0]):04x}", quoted)


def _reads_back(text: str) -> bool:
    """Whether YAML reads the bare text as this text (or as a date, which our reader keeps as text)."""
    try:
        (value,) = yaml.safe_load(f"[{text}]")
    except (yaml.YAMLError, ValueError, TypeError):
        return False
    return value == text or isinstance(value, datetime.date)
