"""On real data: the embedded week of ERA5, with pole rows, four times coarser."""

import numpy as np
import pytest

from sciffusion import config
from sciffusion.datasets import open_example
from sciffusion.fields.axes import wraps_around
from sciffusion.fields.coarsen import conservative, refine
from sciffusion.fields.fit import fit_codec
from sciffusion.fields.grid import Grid
from sciffusion.fields.variables import stack, target_variables

NAMES = ("u10", "t2m")


@pytest.fixture(scope="module")
def week():
    ds = open_example("era5")
    grid = Grid.from_dataset(ds, ("latitude", "longitude"), "sphere", ["longitude"])
    assert wraps_around(ds["longitude"].values)
    coarse = grid.coarsened({"latitude": 4, "longitude": 4})
    down, up = conservative(grid, coarse), refine(coarse, grid, "bicubic")
    variables = target_variables(ds, {name: config.Variable() for name in NAMES}, grid.dims)
    fields = [stack(ds.isel(time=t), variables, grid) for t in range(0, ds.sizes["time"], 2)]
    return grid, coarse, down, variables, [(x, up(down(x))) for x in fields]


def test_coarsening_keeps_the_global_mean(week):
    grid, coarse, down, _, pairs = week
    assert coarse.shape == (45, 90)
    for x, _ in pairs[:2]:
        fine = (x.astype(np.float64) * grid.cell_area()).mean(axis=(1, 2))
        assert (down(x.astype(np.float64)) * coarse.cell_area()).mean(axis=(1, 2)) == pytest.approx(fine, rel=1e-12)


def test_the_fitted_shrinkage_predicts_later_times_better_than_none_or_all(week):
    grid, _, _, variables, pairs = week
    errors = {}
    for shrinkage in (0.0, "fit", 1.0):
        codec = fit_codec(pairs[:8], variables, grid, shrinkage=shrinkage)
        z = np.stack([codec.encode(*pair)[0].numpy() for pair in pairs[9:]])
        errors[shrinkage] = (z**2 * grid.cell_area()).mean(axis=(0, 2, 3)) * codec.sd**2
        if shrinkage == "fit":
            assert ((codec.shrinkage > 0.4) & (codec.shrinkage < 1)).all()
            assert codec.single_valued.all()
    assert (errors["fit"] < errors[0.0]).all()
    assert (errors["fit"] < errors[1.0]).all()
