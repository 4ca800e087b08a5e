"""Derivatives and increments have the closed forms of waves, solid rotation and Beltrami flow."""

import numpy as np
import pytest
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation import divergence, helicity, longitudinal_increments, structure_function, vorticity
from sciffusion.evaluation.spectra import EARTH_RADIUS

N = 32
STEP = 2 * np.pi / N
POSITION = xr.DataArray(STEP * np.arange(N), dims="x"), xr.DataArray(STEP * np.arange(N), dims="y")
CENTRED = np.sin(STEP) / STEP  # what a centred difference leaves of a wave of wavenumber 1


def on_plane(values):
    return values.transpose("y", "x").assign_coords(x=STEP * np.arange(N), y=STEP * np.arange(N))


def test_vorticity_and_divergence_of_waves():
    x, y = POSITION
    u, v = on_plane(np.sin(x) * np.cos(y)), on_plane(np.cos(x) * np.sin(y))
    np.testing.assert_allclose(vorticity(u, v, ["y", "x"], periodic=["y", "x"]), 0, atol=1e-14)
    expected = 2 * CENTRED * on_plane(np.cos(x) * np.cos(y))
    np.testing.assert_allclose(divergence(u, v, ["y", "x"], periodic=["y", "x"]), expected, atol=1e-13)


def test_solid_rotation_of_the_earth():
    lat, lon = np.linspace(-89, 89, 90), np.arange(0.0, 360, 4)
    coords = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
    u = xr.DataArray(10 * np.cos(np.deg2rad(lat))[:, None] * np.ones(90), coords, ("lat", "lon"))
    found = vorticity(u, 0 * u)
    expected = 2 * 10 * np.sin(np.deg2rad(lat)) / (EARTH_RADIUS * 1e3)
    np.testing.assert_allclose(found[5:-5, 0], expected[5:-5], rtol=2e-3, atol=1e-9)
    np.testing.assert_allclose(divergence(u, 0 * u), 0, atol=1e-18)


def test_helicity_of_a_flow_that_is_its_own_curl():
    x, y = POSITION
    z = xr.DataArray(STEP * np.arange(N), dims="z")
    flow = {"x": np.sin(z) + np.cos(y), "y": np.sin(x) + np.cos(z), "z": np.sin(y) + np.cos(x)}
    flow = {
        dim: (one + 0 * (x + y + z)).assign_coords({d: STEP * np.arange(N) for d in "xyz"}) for dim, one in flow.items()
    }
    square = sum(one**2 for one in flow.values())
    found = helicity(flow, periodic=["x", "y", "z"])
    xr.testing.assert_allclose(found.drop_attrs(), CENTRED * square)
    turned = helicity({dim: flow[dim] for dim in "zyx"}, periodic=["x", "y", "z"])
    xr.testing.assert_allclose(turned.transpose("x", "y", "z"), found.transpose("x", "y", "z"))
    with pytest.raises(SciffusionError, match="three dims"):
        helicity({"x": flow["x"]})


def test_structure_functions_of_a_ramp_and_of_a_wave():
    ramp = on_plane(3 * POSITION[0] + 0 * POSITION[1])
    found = structure_function(ramp, [1, 2, 5], [1, 2, 3])
    step = 3 * found.distance.sel(direction="x")
    for order in (1, 2, 3):
        np.testing.assert_allclose(found.sel(direction="x", order=order), step**order)
    wave = on_plane(np.sin(POSITION[0]) + 0 * POSITION[1])
    second = structure_function(wave, [1, 4, 8], [2], periodic=["y", "x"]).sel(direction="x", order=2)
    np.testing.assert_allclose(second, 1 - np.cos(second.distance), rtol=1e-12)


def test_pairs_with_gaps_are_left_out_of_increments():
    ramp = on_plane(3 * POSITION[0] + 0 * POSITION[1])
    holed = ramp.where((ramp.x * ramp.y) % 0.7 > 0.2)
    np.testing.assert_allclose(structure_function(holed, [1, 2]), structure_function(ramp, [1, 2]), rtol=1e-10)


def test_longitudinal_increments_keep_their_sign():
    x, y = POSITION
    flow = {"x": on_plane(2 * x + 0 * y), "y": on_plane(0 * x + 2 * y)}
    found = longitudinal_increments(flow, [1, 3], [1, 3])
    np.testing.assert_allclose(found.sel(order=3), (2 * STEP * np.array([1, 3])) ** 3)
    steep = longitudinal_increments({dim: -one for dim, one in flow.items()}, [1, 3], [3])
    np.testing.assert_allclose(steep.sel(order=3), -found.sel(order=3))
