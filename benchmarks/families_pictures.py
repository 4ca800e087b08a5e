"""The pictures of the family table: fields of one case by recipe, and their power over that of the truths."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from families_experiment import Row
from families_table import EMPTY, Entry
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.ticker import NullFormatter

__all__ = ["draw_fields", "draw_spectra"]

ACROSS = 2  # recipes
LINES = ("-", "--", "-.")


def draw_fields(groups: dict[str, list[Entry]], results: Path, path: Path) -> None:
    """Coarse input and truth of one case, then two members by each recipe."""
    files = {name: file for name, entries in groups.items() if (file := fields_of(entries[0], results)).is_file()}
    with xr.open_dataset(next(iter(files.values()))) as one:
        coarse, truth = one["coarse"].load() if "coarse" in one else None, one["truth"].load()
    scale, colours = colouring(truth)
    rows: list[Sequence[tuple[str, xr.DataArray | None]]] = [[("coarse input", coarse), ("truth", truth)]]
    for names in pairs(list(files)):
        rows.append(list(chain.from_iterable(members(name, files[name]) for name in names)))
    figure, axes = plt.subplots(
        len(rows), 2 * ACROSS, figsize=(8, height(truth) * len(rows)), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for row, fields in zip(axes, rows, strict=True):
        for axis, (title, values) in zip(row, fields, strict=False):
            draw(axis, title, values, scale, colours)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def fields_of(entry: Entry, results: Path) -> Path:
    """Where a row has left its fields."""
    return results / f"{Row(entry['problem'], entry['recipe'], entry['seed']).name}.nc"


def pairs(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[first : first + ACROSS] for first in range(0, len(names), ACROSS))


def members(name: str, file: Path) -> list[tuple[str, xr.DataArray]]:
    with xr.open_dataset(file) as ds:
        return [(f"{name}, member {i + 1}", ds["member"].isel(member=i).load()) for i in range(2)]


def plane(values: xr.DataArray) -> np.ndarray:
    """Two-dimensional; a line as a band."""
    values = values.squeeze()
    return values.values if values.ndim == 2 else np.repeat(values.values[None], 16, axis=0)


def height(truth: xr.DataArray) -> float:
    """Inches of a row, with its title."""
    rows, columns = plane(truth).shape
    return 2 * rows / columns + 0.25


def colouring(truth: xr.DataArray) -> tuple[Normalize, str]:
    """Symmetric about the mean; for what is never negative and mostly small, like rain, from 0 by the square root."""
    low, middle, high = (float(part) for part in (truth.min(), truth.mean(), truth.max()))
    if low >= 0 and high > 20 * middle:
        return PowerNorm(0.5, 0, float(truth.quantile(0.999))), "Blues"
    limit = max(high - middle, middle - low)
    return Normalize(middle - limit, middle + limit), "RdBu_r"


def draw(axis: Axes, title: str, values: xr.DataArray | None, scale: Normalize, colours: str) -> None:
    if values is None:
        return
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=9)
    axis.imshow(plane(values), origin="lower", cmap=colours, norm=scale, interpolation="nearest")


def draw_spectra(groups: dict[str, list[Entry]], path: Path) -> None:
    """Power of members and yardstick over the truths', by wavenumber."""
    figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
    colours = plt.get_cmap("tab10")
    for number, (name, entries) in enumerate(groups.items()):
        line = {"color": colours(number % 10), "ls": LINES[number // 10]}
        axis.semilogx(*power_ratio(entries[0], "members"), label=name, lw=1.6, **line)
    one = next(iter(groups.values()))[0]
    axis.semilogx(*power_ratio(one, "yardstick"), "k:", label="yardstick")
    low, high = one["spectra"]["wavenumber"][0] * 0.99, one["spectra"]["wavenumber"][-1]
    axis.axhspan(0.95, 1.05, color="0.92", zorder=0)
    axis.axhline(1, color="0.6", lw=0.8, zorder=0)
    axis.set(xlabel="wavenumber (cycles per unit of length)", ylabel="power of members / of truths", ylim=(0.4, 1.6))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xticks([2**power for power in range(12) if low <= 2**power <= high])
    figure.legend(fontsize=8, loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def power_ratio(entry: Entry, of: str) -> tuple[np.ndarray, np.ndarray]:
    """Wavenumbers and power over the truths'; NaN where these have none, as in `families_table.log_power`."""
    number, power, truth = (np.array(entry["spectra"][key]) for key in ("wavenumber", of, "truth"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return number, np.where(truth > EMPTY * truth.max(), power / truth, np.nan)
