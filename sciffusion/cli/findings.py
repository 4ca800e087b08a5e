"""What ``sciffusion init`` found, as it is kept for the proposal and as it is printed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sciffusion.fields.labels import label_text
from sciffusion.fields.pairing import Consistency
from sciffusion.fields.survey import Survey

__all__ = ["CoarseFound", "StaticFound", "describe"]


@dataclass(frozen=True)
class CoarseFound:
    """What is known of the coarse data: their source's settings, fields, factor, alignment and consistency.

    ``served``: case dim of the target -> positions that the coarse data have an entry for; ``extra_dims``: case dims
    that only the coarse data have.
    """

    source: dict[str, Any]
    variables: list[str]
    factor: dict[str, float]
    align: str
    consistency: Consistency
    served: dict[str, np.ndarray]
    extra_dims: list[str]


@dataclass(frozen=True)
class StaticFound:
    """Static fields: their source's settings and names."""

    source: dict[str, Any]
    variables: list[str]


def describe(
    settings: Mapping[str, Any], comments: Mapping[str, str], fine: Survey, coarse: CoarseFound | None
) -> list[str]:
    """Lines for the terminal: grid, cases, every field with what was decided for it, the coarse data, what is left."""
    return [
        *_grid_lines(fine),
        *_field_lines(settings, comments, fine),
        *(_coarse_lines(coarse, fine) if coarse else []),
    ]


def _grid_lines(fine: Survey) -> list[str]:
    layout, ds = fine.layout, fine.ds
    sizes = " x ".join(f"{dim} {ds.sizes[dim]}" for dim in layout.dims)
    kind = {"sphere": "latitude-longitude", "plane": "plane"}[fine.geometry]
    wraps = f", periodic {', '.join(fine.periodic)}" if fine.periodic else ""
    lines = [f"grid       {sizes} ({kind}{wraps})"]
    lines.append("cases      " + (", ".join(_extent(ds, dim) for dim in layout.case_dims) or "one"))
    channels = [_extent(ds, dim) for dim in layout.channel_dims]
    return [*lines, "channels   " + ", ".join(channels)] if channels else lines


def _field_lines(settings: Mapping[str, Any], comments: Mapping[str, str], fine: Survey) -> list[str]:
    variables = settings["target"]["variables"]
    lines = []
    for name, fact in fine.facts.items():
        if name not in variables:
            lines.append(f"left out   {name}: constant in the samples")
            continue
        note = comments.get(f"target.variables.{name}", "").removeprefix(fact.units).lstrip("; ")
        chosen = ", ".join(f"{key} {value}" for key, value in variables[name].items())
        text = f"{name:<10} {fact.minimum:.4g} to {fact.maximum:.4g} {fact.units}".rstrip()
        lines.append("; ".join(filter(None, [text, note, chosen])))
    return lines


def _coarse_lines(coarse: CoarseFound, fine: Survey) -> list[str]:
    ratio = ", ".join(f"{dim} / {value:g}" for dim, value in coarse.factor.items())
    lines = [f"coarse     {', '.join(coarse.variables)}; {ratio}"]
    for dim, places in coarse.served.items():
        if places.size < fine.ds.sizes[dim]:
            lines.append(
                f"           has entries for {places.size} of {fine.ds.sizes[dim]} along {dim}; the others are left out"
            )
    lines += [f"           varies along {dim} too: every entry is a case of its own" for dim in coarse.extra_dims]
    return lines + _consistency_lines(coarse.consistency)


def _consistency_lines(check: Consistency) -> list[str]:
    if not check.difference:
        return ["           cannot be compared with C(fine): no variable and case in common"]
    worst = min(check.correlation, key=lambda name: check.correlation[name])
    if check.correlation[worst] < 0.5:
        return [
            f"WARNING    coarse {worst} hardly follows the target (correlation {check.correlation[worst]:.2f}):"
            " a free-running model's days are not the target's, see the how-to on independent coarse models"
        ]
    differs = ", ".join(f"{name} {value:.1g}" for name, value in check.difference.items())
    return [f"           {'equals' if check.exact else 'is not'} C(fine); difference in sd: {differs}"]


def _extent(ds: xr.Dataset, dim: str) -> str:
    if dim not in ds.coords:
        return f"{dim} {ds.sizes[dim]}"
    values = ds[dim].values
    return f"{dim} {ds.sizes[dim]} ({label_text(values[0])} to {label_text(values[-1])})"
