"""Cells of a grid: edges, areas, boundaries, windows, coarsening, and the way through JSON."""

import json

import numpy as np
import pytest
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.fields.axes import cyclic_columns, wraps_around
from sciffusion.fields.coarsen import conservative, refine
from sciffusion.fields.grid import Grid
from tests.fields import grids


@pytest.mark.parametrize("make", [grids.pole_rows, grids.gaussian])
def test_cells_of_a_global_grid_cover_the_sphere_once(make):
    grid = make()
    total = grid.axis_measure(0).sum() * grid.axis_measure(1).sum()
    assert total == pytest.approx(4 * np.pi, rel=1e-12)
    assert grid.boundary() == ("pole", "periodic")


def test_pole_rows_are_half_cells_and_descending_latitudes_stay_descending():
    grid = grids.pole_rows(5.0)
    assert grid.axis_bounds(0)[:3].tolist() == [90.0, 87.5, 82.5]
    assert grid.coords[0][0] == 90
    assert grid.has_pole_rows == (True, True)
    assert grids.gaussian().has_pole_rows == (False, False)


@pytest.mark.parametrize("make", grids.ALL.values(), ids=grids.ALL)
def test_areas_have_mean_one_and_are_products_of_measures(make):
    grid = make()
    area = grid.cell_area()
    assert area.shape == grid.shape
    assert area.mean() == pytest.approx(1.0, rel=1e-12)
    assert (area > 0).all()
    corner = np.prod([grid.axis_measure(i)[0] / grid.axis_measure(i).mean() for i in range(grid.rank)])
    assert area.flat[0] == pytest.approx(corner, rel=1e-12)


@pytest.mark.parametrize("make", grids.ALL.values(), ids=grids.ALL)
def test_json_gives_the_same_grid_back(make):
    grid = make()
    back = Grid.from_json(json.loads(json.dumps(grid.to_json())))
    assert back.same_cells(grid, tolerance=0.0)
    assert (back.dims, back.periodic, back.geometry) == (grid.dims, grid.periodic, grid.geometry)
    xr.testing.assert_identical(back.coords_dataset(), grid.coords_dataset())


def test_era5_by_four_gives_equal_cells_from_pole_to_pole():
    coarse = grids.pole_rows(1.0).coarsened({"lat": 4, "lon": 4})
    assert coarse.shape == (45, 90)
    assert np.diff(coarse.axis_bounds(0)) == pytest.approx(-4.0)
    assert coarse.axis_bounds(0)[[0, -1]].tolist() == [90.0, -90.0]
    assert coarse.axis_bounds(1)[[0, -1]].tolist() == [-0.5, 359.5]
    assert coarse.boundary() == ("pole", "periodic")


@pytest.mark.parametrize("make", grids.ALL.values(), ids=grids.ALL)
@pytest.mark.parametrize("factor", [1.0, 2.0, 2.7, 4.0])
def test_coarsening_keeps_the_extent(make, factor):
    grid = make()
    coarse = grid.coarsened(dict.fromkeys(grid.dims, factor))
    for axis in range(grid.rank):
        assert coarse.axis_bounds(axis)[[0, -1]] == pytest.approx(grid.axis_bounds(axis)[[0, -1]])
        assert coarse.shape[axis] == pytest.approx(grid.shape[axis] / factor, abs=1)
    if factor == 1.0:
        assert coarse.same_cells(grid)


def test_a_pole_boundary_needs_an_even_periodic_last_axis():
    lat = np.linspace(-87.5, 87.5, 36)
    for lon, periodic, expected in [
        (np.arange(0, 360, 40.0), ["lon"], ("reflect", "periodic")),  # nine columns
        (np.arange(0, 300, 30.0), [], ("reflect", "reflect")),
        (np.arange(0, 360, 30.0), ["lon"], ("pole", "periodic")),
    ]:
        grid = Grid.from_dataset(grids.dataset(lat=lat, lon=lon), ("lat", "lon"), "sphere", periodic)
        assert grid.boundary() == expected
    turned = Grid.from_dataset(grids.dataset(lon=lon, lat=lat), ("lon", "lat"), "sphere", ["lon"])
    assert turned.boundary() == ("periodic", "reflect")


@pytest.mark.parametrize(
    ("longitudes", "wraps", "repeated"),
    [
        (np.arange(0, 360, 1.0), True, 0),
        (np.arange(-180, 180, 2.5), True, 0),
        (np.arange(180, -180, -2.5), True, 0),
        (np.arange(0, 361, 1.0), False, 1),
        (np.float32(np.arange(1080) / 3), True, 0),
        (np.arange(20, 381, 1 / 3), False, 3),
        (np.arange(0, 350, 1.0), False, 0),
        (np.arange(5.0, 15.0), False, 0),
    ],
)
def test_longitudes_that_go_round_once_are_recognised(longitudes, wraps, repeated):
    assert wraps_around(longitudes) is wraps
    assert cyclic_columns(longitudes) == repeated


def test_a_window_has_the_cells_of_the_whole():
    grid = grids.pole_rows()
    window = grid.window((slice(0, 10), slice(5, 30)))
    assert window.shape == (10, 25)
    assert window.periodic == (False, False)
    assert window.has_pole_rows == (True, False)
    part = (grid.cell_area() * grid.cell_area().size)[:10, 5:30]
    assert window.cell_area() == pytest.approx(part / part.mean(), rel=1e-12)


def test_auxiliary_coordinates_and_cf_bounds_are_read_and_kept():
    lat = np.array([10.0, 30.0, 40.0])
    ds = grids.dataset(lat=lat, lon=np.arange(4.0))
    ds["lat_bnds"] = (("lat", "bnds"), np.array([[0.0, 20.0], [20.0, 35.0], [35.0, 45.0]]))
    ds["lat"].attrs["bounds"] = "lat_bnds"
    ds = ds.assign_coords(height=(("lat", "lon"), np.ones((3, 4), np.float32), {"units": "m"}))
    grid = Grid.from_dataset(ds, ("lat", "lon"))
    assert grid.axis_bounds(0).tolist() == [0.0, 20.0, 35.0, 45.0]
    back = grid.coords_dataset()
    assert back["height"].attrs == {"units": "m"}
    assert back["height"].dtype == np.float32


@pytest.mark.parametrize("calendar", ["standard", "360_day"])
def test_time_may_be_a_grid_axis(calendar):
    times = xr.date_range("2000-01-01", periods=8, calendar=calendar, use_cftime=calendar == "360_day").values
    grid = Grid.from_dataset(grids.dataset(time=times, x=4), ("time", "x"))
    assert grid.spacing == (86400.0, 1.0)
    back = Grid.from_json(json.loads(json.dumps(grid.to_json())))
    assert (back.coords[0] == times).all()
    coarse = grid.coarsened({"time": 2})
    assert coarse.coords[0][0] - times[0] == (times[1] - times[0]) / 2
    day = np.arange(8.0)[:, None] * np.ones(4)
    assert refine(coarse, grid, "bicubic")(conservative(grid, coarse)(day)) == pytest.approx(day, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 1.0, 1.0, 2.0], "1.0 twice"),
        ([0.0, 2.0, 1.0, 3.0], "not monotonic"),
        ([0.0, np.nan, 1.0, 3.0], "missing values"),
    ],
)
def test_a_bad_coordinate_is_named(values, message):
    with pytest.raises(SciffusionError, match=message):
        Grid.from_dataset(grids.dataset(y=values, x=3), ("y", "x"))


def test_a_sphere_needs_latitudes_in_degrees():
    with pytest.raises(SciffusionError, match="no latitude and longitude"):
        Grid.from_dataset(grids.dataset(y=np.arange(3.0), x=np.arange(4.0)), ("y", "x"), "sphere")
    bad = Grid.from_dataset(grids.dataset(lat=[90.0, 100.0], lon=[0.0, 1.0]), ("lat", "lon"), "sphere")
    with pytest.raises(SciffusionError, match="latitude of 100"):
        bad.axis_bounds(0)
