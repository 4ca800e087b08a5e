"""Ensembles at scale: what to make, in which process, into which store, and how to go on after an interruption."""

from sciffusion.generation.engine import generate
from sciffusion.generation.heldout import held_out, open_conditions

__all__ = ["generate", "held_out", "open_conditions"]
