"""Ensembles at scale: what to make, in which process, into which store, and how to go on after an interruption.

The names are imported on first use (PEP 562), so that writing a batch script on a login node does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciffusion.generation.engine import generate
    from sciffusion.generation.heldout import held_out, open_conditions

__all__ = ["generate", "held_out", "open_conditions"]

_HOME = {"generate": "engine", "held_out": "heldout", "open_conditions": "heldout"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
