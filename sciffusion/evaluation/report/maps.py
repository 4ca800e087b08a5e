"""Maps: pictures of one case on one colour scale, and of the scores averaged over cases."""

from typing import Any

import numpy as np
import xarray as xr

from sciffusion.evaluation.measures.indices import INDICES
from sciffusion.evaluation.report.figures import INK, Drawing, figure

__all__ = ["RARE", "SHARED", "case_maps", "climate_maps", "mean_maps"]

MOST_CELLS = 360  # along an axis of a picture; finer fields are averaged down
WIDTH, HEIGHT = 4.4, 2.6  # inches
SHARED = ("coarse", "coarse input", "truth")
PICTURES = ("coarse", "truth", "mean", "member 0", "member 1", "member 2")
TITLES = {"coarse": "coarse input", "mean": "ensemble mean", "spread": "ensemble spread (sd)"}
RARE = {"highest": "highest in 20 years", "lowest": "lowest in 20 years"}
DEGREES = {"lat": "latitude (°N)", "latitude": "latitude (°N)", "lon": "longitude (°E)", "longitude": "longitude (°E)"}


def case_maps(maps: xr.Dataset, variable: str, units: str, *, shared: bool = True) -> dict[str, Drawing]:
    """Coarse input, truth, mean and three members on the truth's scale; the spread on its own.

    Without ``shared`` only what is the ensemble's own.
    """
    found = {name: maps[f"{variable}/{name}"] for name in PICTURES if f"{variable}/{name}" in maps}
    low, high, colours = _scale(found["truth"].values)
    shown = {_title(name): field for name, field in found.items() if shared or name not in SHARED}
    pictures = {title: _picture(maps, field, title, units, low, high, colours) for title, field in shown.items()}
    spread = maps[f"{variable}/spread"]
    if spread.notnull().any():
        pictures["ensemble spread"] = _picture(maps, spread, TITLES["spread"], units, 0, _high(spread.values), "magma")
    return pictures


def mean_maps(maps: xr.Dataset, variable: str, units: str) -> dict[str, Drawing]:
    """CRPS and error of the ensemble mean, averaged over all cases."""
    crps, error = maps[f"{variable}/mean CRPS"], maps[f"{variable}/mean error"]
    bound, titles = _high(np.abs(error.values)), ("CRPS, averaged over cases", "error of the mean, averaged over cases")
    return {
        "mean CRPS": _picture(maps, crps, titles[0], units, 0, _high(crps.values), "viridis"),
        "mean error": _picture(maps, error, titles[1], units, -bound, bound, "RdBu_r"),
    }


def climate_maps(
    maps: xr.Dataset, variable: str, name: str, units: str, owner: str, *, shared: bool = True
) -> dict[str, Drawing]:
    """A yearly index or rare value of the truth, and how far the members of ``owner`` are from it.

    Without ``shared`` only the latter.
    """
    if f"{variable}/climate {name}" not in maps:
        return {}
    truth, error = maps[f"{variable}/climate {name}"], maps[f"{variable}/climate error {name}"]
    bound, words = _high(np.abs(error.values)), RARE.get(name) or INDICES[name].title
    found = {}
    if shared:
        low, high, colours = _scale(truth.values)
        found[f"{words} truth"] = _picture(maps, truth, f"{words}: truth", units, low, high, colours)
    title = f"{words}: {owner} − truth"
    return found | {f"{words} {owner}": _picture(maps, error, title, units, -bound, bound, "RdBu_r")}


def _title(name: str) -> str:
    return TITLES.get(name) or (f"member {int(name.split()[1]) + 1}" if name.startswith("member") else name)


def _scale(values: np.ndarray) -> tuple[float, float, str]:
    """Limits without the outermost half per cent; symmetric and diverging for fields that change sign evenly."""
    low, high = (float(v) for v in np.nanquantile(values, [0.005, 0.995]))
    if low < 0 < high and min(-low, high) > 0.3 * max(-low, high):
        bound = max(-low, high)
        return -bound, bound, "RdBu_r"
    return low, high if high > low else low + 1, "viridis"


def _high(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, 0.995)) if finite.size and finite.max() > 0 else 1.0


def _picture(
    maps: xr.Dataset, field: xr.DataArray, title: str, units: str, low: float, high: float, colours: str
) -> Drawing:
    """Two dimensions as a map, three by their middle slice, one as a curve."""
    if field.ndim == 3:
        field = field[field.shape[0] // 2]
    if field.ndim == 1:
        return _curve(field, title, units)
    field, extent = _oriented(maps, field)
    canvas, (axes,) = figure(WIDTH, HEIGHT if field.shape[1] > 1.4 * field.shape[0] else 1.4 * HEIGHT)
    axes.grid(False)
    shades: Any = {"vmin": low, "vmax": high, "cmap": colours, "interpolation": "none"}
    picture = axes.imshow(_reduced(field.values), extent=extent, aspect="auto", **shades)
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, box.width - 0.17, box.height))
    beside = canvas.add_axes((box.x1 - 0.15, box.y0, 0.03, box.height))
    bar = canvas.colorbar(picture, cax=beside)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK)
    bar.set_label(units, color=INK)
    vertical, horizontal = (_label(maps, _dim(dim)) for dim in field.dims)
    axes.set(title=title, xlabel=horizontal, ylabel=vertical)
    return Drawing(canvas, f"Map: {title}")


def _label(maps: xr.Dataset, dim: str) -> str:
    units = str(maps[dim].attrs.get("units", ""))
    return DEGREES.get(dim.lower()) or (f"{dim} ({units})" if units else dim)


def _dim(name: object) -> str:
    return str(name).removeprefix("coarse_").removeprefix("climate_")


def _curve(field: xr.DataArray, title: str, units: str) -> Drawing:
    canvas, (axes,) = figure(WIDTH, HEIGHT)
    axes.plot(field.values)
    axes.set(title=title, xlabel=_dim(field.dims[0]), ylabel=units)
    return Drawing(canvas, title)


def _oriented(maps: xr.Dataset, field: xr.DataArray) -> tuple[xr.DataArray, tuple[float, float, float, float]]:
    """North up, west left, latitude vertical; and the pictures' extent (left, right, bottom, top)."""
    if _dim(field.dims[0]).lower().startswith(("lon", "x")):
        field = field.transpose()
    (top, bottom), (left, right) = (maps[_dim(dim)].values[[0, -1]] for dim in field.dims)
    if bottom > top:
        field, (top, bottom) = field[::-1], (bottom, top)
    if left > right:
        field, (left, right) = field[:, ::-1], (right, left)
    return field, (float(left), float(right), float(bottom), float(top))


def _reduced(values: np.ndarray) -> np.ndarray:
    """Averages over whole blocks of cells, so that no axis is longer than ``MOST_CELLS``."""
    for axis in (0, 1):
        size = values.shape[axis]
        parts = -(-size // MOST_CELLS)
        if parts > 1:
            starts = np.arange(0, size, parts)
            counts = np.diff(np.append(starts, size))
            values = np.add.reduceat(values, starts, axis=axis) / np.expand_dims(counts, 1 - axis)
    return values
