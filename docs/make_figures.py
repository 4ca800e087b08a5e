"""Draw the README's picture from a demo's output: ``python docs/make_figures.py [demo-output] [docs/images/demo.png]``.

One held-out time: 10 m wind speed over the North Atlantic and Europe, and 2 m temperature over East Asia and the
western Pacific, as coarse input, truth, three members, ensemble mean and spread.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import sciffusion as sf
from sciffusion.fields.coarsen import regrid
from sciffusion.fields.ensemble import open_ensemble
from sciffusion.fields.grid import Grid

FACTOR, MEMBERS = 4, 3


class Row(NamedTuple):
    """One quantity on one region: latitudes and longitudes, its name on the picture and its colours."""

    quantity: str
    latitude: slice
    longitude: slice
    label: str
    colours: str
    spread_colours: str


ROWS = (
    Row("wind", slice(68, 28), slice(300, 360), "10 m wind speed (m s$^{-1}$)", "viridis", "magma"),
    Row("t2m", slice(55, 15), slice(90, 150), "2 m temperature (K)", "RdYlBu_r", "magma"),
)


def wind(ds: xr.Dataset) -> xr.DataArray:
    """Speed of the wind."""
    return np.hypot(ds["u10"], ds["v10"])


def quantity(ds: xr.Dataset, row: Row) -> xr.DataArray:
    """The row's field on its region."""
    field = wind(ds) if row.quantity == "wind" else ds[row.quantity]
    return field.sel(latitude=row.latitude, longitude=row.longitude)


def blocks(truth: xr.Dataset) -> xr.Dataset:
    """The coarse input, each fine cell showing the coarse cell that it lies in."""
    grid = Grid.from_dataset(truth, ("latitude", "longitude"), geometry="sphere", periodic=("longitude",))
    coarse = regrid(truth, grid.coarsened({"latitude": FACTOR, "longitude": FACTOR}), grid)
    nearest = {dim: truth[dim] for dim in grid.dims}
    return coarse.sel(nearest, method="nearest").assign_coords(nearest)


def panels(truth: xr.Dataset, ensemble: xr.Dataset, row: Row) -> dict[str, xr.DataArray]:
    """Title of each panel and its field."""
    members = quantity(ensemble, row)
    drawn = {f"member {int(number)}": members.sel(member=number) for number in ensemble["member"][:MEMBERS]}
    ends = {"ensemble mean": members.mean("member"), "spread": members.std("member", ddof=1)}
    return {"input, 4°": quantity(blocks(truth), row), "truth, 1°": quantity(truth, row), **drawn, **ends}


def draw(truth: xr.Dataset, ensemble: xr.Dataset, path: Path) -> None:
    """All rows into one picture. Fields of a row share their colours; the spread has its own."""
    columns = len(panels(truth, ensemble, ROWS[0]))
    figure, axes = plt.subplots(len(ROWS), columns, figsize=(2.3 * columns, 2.1 * len(ROWS)), layout="constrained")
    for line, row in zip(axes, ROWS, strict=True):
        low, high = np.percentile(quantity(truth, row), [0.5, 99.5])
        for axis, (title, field) in zip(line, panels(truth, ensemble, row).items(), strict=True):
            spread = title == "spread"
            limits = (
                {"cmap": row.spread_colours, "vmin": 0} if spread else {"cmap": row.colours, "vmin": low, "vmax": high}
            )
            image = axis.pcolormesh(field.longitude, field.latitude, field, rasterized=True, **limits)
            axis.set(title=title if row is ROWS[0] else "", xticks=[], yticks=[], aspect=1.3)
            if title == "ensemble mean" or spread:
                figure.colorbar(image, ax=axis, shrink=0.85, aspect=15)
        line[0].set_ylabel(row.label)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(output: str = "demo-output", path: str = "docs/images/demo.png") -> None:
    """Read the ensemble and the truth of its last time, and draw."""
    ensemble = open_ensemble(Path(output) / "ensemble.zarr").isel(time=-1).load()
    truth = sf.datasets.open_example("era5").sel(time=ensemble["time"]).load()
    draw(truth[list(ensemble.data_vars)], ensemble, Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
