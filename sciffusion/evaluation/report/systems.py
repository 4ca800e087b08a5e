"""Whose line is whose: colours, markers, names and units of the systems in the figures of one variable."""

from typing import Any

import numpy as np
import xarray as xr

from sciffusion.evaluation.report.figures import COLOURS, ENSEMBLE, MARKERS

__all__ = ["has", "known_systems", "member_name", "own_colour", "style", "unit", "wave_units"]


def style(one: xr.Dataset, system: str, size: float = 3.5) -> dict[str, Any]:
    """Blue dots for the first ensemble, another colour and marker for each other system."""
    place = list(one.attrs.get("order", [str(name) for name in one["system"].values])).index(system)
    colour = ENSEMBLE if place == 0 else COLOURS[(place - 1) % len(COLOURS)]
    return {"color": colour, "marker": MARKERS[place % len(MARKERS)], "ms": size, "lw": 1.8 if place == 0 else 1.3}


def own_colour(one: xr.Dataset) -> str:
    """Of the ensemble that is judged."""
    return str(style(one, str(one["system"].values[0]))["color"])


def unit(one: xr.Dataset) -> str:
    """The variable's units in brackets."""
    text = str(one["units"].item())
    return f" ({text})" if text else ""


def wave_units(one: xr.Dataset) -> str:
    """Units of the wavenumbers."""
    return str(one["scale"].attrs["units"])


def known_systems(one: xr.Dataset, name: str) -> list[str]:
    """Systems that have numbers of this kind."""
    return [str(system) for system in one["system"].values if one[name].sel(system=system).notnull().any()]


def has(one: xr.Dataset, name: str) -> bool:
    """Whether the judged ensemble has numbers of this kind."""
    if name not in one:
        return False
    values = one[name].isel(system=0) if "system" in one[name].dims else one[name]
    return bool(values.notnull().any()) if values.dtype.kind in "fiub" else bool(np.size(values))


def member_name(one: xr.Dataset, system: str) -> str:
    """The system, and that its line is one of members, not of their mean."""
    return f"{system} (members)" if int(one["members"].sel(system=system)) > 1 else system
