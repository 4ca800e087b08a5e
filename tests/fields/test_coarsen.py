"""Maps between grids: what they conserve, invert, reproduce and cut."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from sciffusion.errors import SciffusionError
from sciffusion.fields.coarsen import conservative, refine, regrid
from sciffusion.fields.grid import Grid
from tests.fields import grids

METHODS = ("bilinear", "bicubic", "conservative")


def pair(name, factor=2.7):
    fine = grids.ALL[name]()
    return fine, fine.coarsened(dict.fromkeys(fine.dims, factor))


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def integral(x, grid):
    for axis in reversed(range(grid.rank)):
        x = x @ grid.axis_measure(axis)
    return x


@pytest.mark.parametrize("name", grids.ALL)
@pytest.mark.parametrize("factor", [2.7, 4.0])
def test_coarsening_keeps_the_integral(name, factor):
    fine, coarse = pair(name, factor)
    x = noise(3, *fine.shape)
    assert integral(conservative(fine, coarse)(x), coarse) == pytest.approx(integral(x, fine), rel=1e-12, abs=1e-10)


@pytest.mark.parametrize("name", grids.ALL)
def test_rows_sum_to_one(name):
    fine, coarse = pair(name)
    for mapping in (conservative(fine, coarse), *(refine(coarse, fine, method) for method in METHODS)):
        for matrix in mapping.dense():
            assert matrix.sum(axis=1) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("name", grids.ALL)
def test_coarsening_undoes_conservative_refinement(name):
    fine, coarse = pair(name)
    y = noise(*coarse.shape)
    assert conservative(fine, coarse)(refine(coarse, fine, "conservative")(y)) == pytest.approx(y, abs=1e-12)


def test_coarsening_where_factors_divide_is_the_block_mean():
    x = noise(12, 12, 12)
    fine = grids.box(12)
    blocks = x.reshape(4, 3, 4, 3, 4, 3).mean(axis=(1, 3, 5))
    coarse = fine.coarsened({"z": 3, "y": 3, "x": 3})
    assert conservative(fine, coarse)(x) == pytest.approx(blocks, abs=1e-14)
    assert refine(coarse, fine, "conservative")(blocks) == pytest.approx(
        blocks.repeat(3, 0).repeat(3, 1).repeat(3, 2), abs=1e-14
    )


@pytest.mark.parametrize("name", grids.ALL)
def test_the_adjoint_is_the_adjoint(name):
    fine, coarse = pair(name)
    for mapping in (conservative(fine, coarse), *(refine(coarse, fine, method).adjoint for method in METHODS)):
        x, y = noise(*mapping.in_shape), noise(*mapping.out_shape)
        assert (mapping(x) * y).sum() == pytest.approx((x * mapping.adjoint(y)).sum(), rel=1e-11)


@pytest.mark.parametrize("name", ["stretched", "regional"])
@pytest.mark.parametrize(("method", "degree"), [("bilinear", 1), ("bicubic", 2)])
def test_interpolation_reproduces_polynomials_between_the_centres(name, method, degree):
    fine, coarse = pair(name)
    mapping = refine(coarse, fine, method)
    for axis, matrix in enumerate(mapping.dense()):
        knots, points = coarse.positions(axis), fine.positions(axis)
        inside = (points > np.sort(knots)[1]) & (points < np.sort(knots)[-2])
        assert (matrix @ knots**degree)[inside] == pytest.approx(points[inside] ** degree, rel=1e-10)


def test_bicubic_on_an_even_periodic_axis_is_catmull_rom():
    fine = Grid.from_dataset(grids.dataset(x=32), ("x",), periodic=["x"])
    matrix = refine(fine.coarsened({"x": 4}), fine, "bicubic").dense()[0]
    t = np.array([1, 3, 5, 7]) / 8
    kernel = [-(t**3) + 2 * t**2 - t, 3 * t**3 - 5 * t**2 + 2, -3 * t**3 + 4 * t**2 + t, t**3 - t**2]
    assert matrix[2:6, [7, 0, 1, 2]] == pytest.approx(np.stack(kernel, axis=1) / 2, abs=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_refinement_wraps_around_with_the_axis(method):
    """Rolling the coarse field by a cell rolls the fine one by the cells in it."""
    fine = grids.pole_rows(5.0)
    coarse = fine.coarsened({"lat": 4, "lon": 4})
    y, mapping = noise(*coarse.shape), refine(coarse, fine, method)
    assert mapping(np.roll(y, 1, axis=1)) == pytest.approx(np.roll(mapping(y), 4, axis=1), abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_longitude_conventions_and_directions_do_not_matter(method):
    fine, coarse = pair("pole_rows", 4.0)
    y = noise(*coarse.shape)
    west = coarse.coords[1] > 180
    order = np.concatenate([np.flatnonzero(west), np.flatnonzero(~west)])
    lon, lat = np.where(west, coarse.coords[1] - 360, coarse.coords[1])[order], coarse.coords[0][::-1]
    other = Grid.from_dataset(grids.dataset(lat=lat, lon=lon), ("lat", "lon"), "sphere", ["lon"])
    assert refine(other, fine, method)(y[::-1][:, order]) == pytest.approx(refine(coarse, fine, method)(y), abs=1e-12)
    x = noise(*fine.shape)
    assert conservative(fine, other)(x) == pytest.approx(conservative(fine, coarse)(x)[::-1][:, order], abs=1e-12)


@pytest.mark.parametrize("name", grids.ALL)
def test_a_window_of_the_output_needs_a_window_of_the_input(name):
    fine, coarse = pair(name)
    mappings = [conservative(fine, coarse), *(refine(coarse, fine, method) for method in METHODS)]
    for mapping in mappings:
        x = noise(2, *mapping.in_shape)
        cut = tuple(slice(n // 4, n // 4 + max(1, n // 3)) for n in mapping.out_shape)
        part, needed = mapping.window(cut)
        assert part(x[(..., *needed)]) == pytest.approx(mapping(x)[(..., *cut)], abs=1e-12)
    coarsening = mappings[0].window(tuple(slice(1, 2) for _ in fine.shape))[1]
    assert all(part.stop - part.start <= 5 for part in coarsening)


def test_missing_cells_are_left_out_of_the_mean():
    fine = Grid.from_dataset(grids.dataset(y=4, x=4), ("y", "x"))
    x = np.arange(16.0).reshape(4, 4)
    x[:2, :2] = np.nan
    x[0, 2] = np.nan
    mean = conservative(fine, fine.coarsened({"y": 2, "x": 2})).masked(x)
    assert np.isnan(mean[0, 0])
    assert mean[0, 1] == pytest.approx((3 + 6 + 7) / 3)
    assert mean[1].tolist() == [10.5, 12.5]


def test_float32_stays_float32():
    fine, coarse = pair("gaussian")
    assert conservative(fine, coarse)(noise(*fine.shape).astype(np.float32)).dtype == np.float32


def test_compositions_multiply():
    fine, coarse = pair("box", 3.0)
    both = refine(coarse, fine, "bicubic").after(conservative(fine, coarse))
    x = noise(*fine.shape)
    assert both(x) == pytest.approx(refine(coarse, fine, "bicubic")(conservative(fine, coarse)(x)), abs=1e-12)


def test_grids_that_do_not_meet_are_an_error():
    fine = Grid.from_dataset(grids.dataset(x=np.arange(10.0)), ("x",))
    far = Grid.from_dataset(grids.dataset(x=np.arange(100.0, 110.0)), ("x",))
    with pytest.raises(SciffusionError, match="outside"):
        conservative(fine, far)
    with pytest.raises(SciffusionError, match="runs from"):
        regrid(grids.dataset(x=np.arange(100.0, 110.0)), fine)


def test_regridding_a_finer_global_field_to_a_region_takes_means():
    lat, lon = np.arange(89.75, -90, -0.5), np.arange(0.25, 360, 0.5)
    values = np.sin(np.deg2rad(lat))[:, None] + np.cos(np.deg2rad(lon))
    ds = xr.Dataset({"h": (("lat", "lon"), values, {"units": "m"})}, coords={"lat": lat, "lon": lon})
    target = grids.regional()
    result = regrid(ds, target)
    exact = np.sin(np.deg2rad(target.coords[0]))[:, None] + np.cos(np.deg2rad(target.coords[1]))
    assert result["h"].values == pytest.approx(exact, abs=2e-4)
    assert result["h"].attrs == {"units": "m"}
    assert result["lon"].values.tolist() == target.coords[1].tolist()
    coarse = regrid(result, target.coarsened({"lat": 4, "lon": 4}))
    assert regrid(coarse, target)["h"].values == pytest.approx(exact, abs=0.03)


def test_regridding_is_lazy_where_data_are_and_keeps_everything_else():
    source = grids.pole_rows(5.0)
    values = noise(2, *source.shape, 3).astype(np.float32)
    coords = dict(source.coords_dataset().coords) | {"time": [1, 2], "height": 2.0}
    ds = xr.Dataset({"t": (("time", "lat", "lon", "level"), values), "co2": ("time", [1.0, 2.0])}, coords=coords)
    target = grids.regional()
    eager, lazy = regrid(ds, target), regrid(ds.chunk({"time": 1}), target)
    assert lazy.chunks["time"] == (1, 1)
    assert lazy["t"].dims == ("time", "lat", "lon", "level")
    assert lazy["t"].dtype == np.float32
    xr.testing.assert_allclose(lazy.compute(), eager)
    assert set(eager.coords) == {"time", "lat", "lon", "height"}
    exact = refine(source, target, "bilinear")(np.moveaxis(values, 3, 1))
    assert eager["t"].values == pytest.approx(np.moveaxis(exact, 1, 3), abs=1e-6)


def test_regridding_to_the_same_cells_leaves_the_values():
    grid = grids.gaussian()
    ds = grids.dataset(latitude=np.float32(grid.coords[0]), longitude=grid.coords[1])
    same = regrid(ds, grid)
    assert same["latitude"].dtype == np.float64
    assert np.array_equal(same["field"], ds["field"])


spans = st.lists(st.floats(0.05, 3.0), min_size=3, max_size=30)


@given(spans, st.floats(1.0, 6.0), st.booleans())
@settings(max_examples=60)
def test_any_axis_conserves_and_any_refinement_keeps_constants(widths, factor, descending):
    x = np.cumsum(widths)
    fine = Grid.from_dataset(grids.dataset(x=x[::-1] if descending else x), ("x",))
    coarse = fine.coarsened({"x": factor})
    down = conservative(fine, coarse)
    field = noise(*fine.shape)
    assert integral(down(field), coarse) == pytest.approx(integral(field, fine), rel=1e-12, abs=1e-11)
    for method in METHODS:
        assert refine(coarse, fine, method)(np.ones(coarse.shape)) == pytest.approx(1.0, abs=1e-12)
