"""Spectra keep the variance exactly and find the slopes that were put in."""

import numpy as np
import pytest
import xarray as xr

from sciffusion.evaluation import evaluate
from sciffusion.evaluation.backend import backend_of
from sciffusion.evaluation.domain import Domain
from sciffusion.evaluation.score import Pair
from sciffusion.evaluation.spectra import Shells, half_octaves, slope, unresolved
from sciffusion.evaluation.spectral import Spectral
from sciffusion.fields.grid import Grid


def globe(rows=37, columns=72, poles=True):
    latitude = np.linspace(90, -90, rows) if poles else np.linspace(88, -88, rows)
    attrs = ({"units": "degrees_north"}, {"units": "degrees_east"})
    coords = (latitude, np.arange(columns) * 360 / columns)
    return Grid(("lat", "lon"), (rows, columns), coords, "sphere", (False, True), attrs=attrs)


@pytest.mark.parametrize("shape", [(32,), (31,), (16, 12), (15, 21), (8, 10, 6), (7, 9, 11)])
def test_power_of_periodic_shells_sums_to_the_variance(shape):
    spacing = tuple(0.5 + 0.7 * axis for axis in range(len(shape)))
    field = np.random.default_rng(0).normal(size=(1, *shape)) + 300
    basis = Shells(shape, spacing, (True,) * len(shape))
    power = np.abs(basis.coefficients(field, np.ones(shape, bool))[0]) ** 2
    assert basis.gather(power).sum() == pytest.approx(field.var(), rel=1e-12)


def test_power_of_windowed_shells_is_the_renormalised_weighted_variance():
    shape = (24, 17)
    field = np.random.default_rng(0).normal(size=(1, *shape))
    basis = Shells(shape, (1.0, 2.0), (False, True))
    taper = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(24) + 0.5) / 24))[:, None] * np.ones(17)
    anomaly = field[0] - (field[0] * taper).sum() / taper.sum()
    power = np.abs(basis.coefficients(field, np.ones(shape, bool))[0]) ** 2
    assert basis.gather(power).sum() == pytest.approx((anomaly**2 * taper**2).sum() / (taper**2).sum(), rel=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(37, 72), (18, 35)])
def test_zonal_power_of_all_bands_sums_to_the_area_mean_square(rows, columns):
    domain = Domain.of(globe(rows, columns))
    field = np.random.default_rng(0).normal(size=(1, rows, columns)) + 5
    power = np.abs(domain.basis.coefficients(field, np.ones((rows, columns), bool))[0]) ** 2
    share = domain.basis.rows @ domain.basis.weights
    total = (domain.basis.gather(power).sum(axis=1) * share).sum() / share.sum()
    assert total == pytest.approx((field[0] ** 2 * domain.weights).mean(), rel=1e-12)


def test_every_row_of_the_globe_lies_in_one_band():
    assert (Domain.of(globe()).basis.rows.sum(axis=0) == 1).all()


def test_transposed_globe_has_the_same_spectrum():
    upright, grid = globe(), globe()
    turned = Grid(("lon", "lat"), (72, 37), grid.coords[::-1], "sphere", (True, False), attrs=grid.attrs[::-1])
    field = np.random.default_rng(0).normal(size=(1, 37, 72))
    spectra = []
    for one, values in ((upright, field), (turned, field.transpose(0, 2, 1))):
        basis = Domain.of(one).basis
        power = np.abs(basis.coefficients(values, np.ones(one.shape, bool))[0]) ** 2
        spectra.append(basis.gather(power))
    np.testing.assert_allclose(*spectra, rtol=1e-10)


def power_law(shape, spacing, exponent, seed):
    """A random field whose power in shells falls like k^exponent, with modes of exactly that amplitude."""
    mesh = np.meshgrid(*(np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True)), indexing="ij")
    k = np.sqrt(sum(axis**2 for axis in mesh))
    k[0, 0] = np.inf
    phase = np.fft.fft2(np.random.default_rng(seed).normal(size=shape))
    return np.fft.ifft2(phase / np.abs(phase) * k ** ((exponent - 1) / 2)).real


@pytest.mark.parametrize(("shape", "spacing"), [((256, 128), (1.0, 1.0)), ((128, 256), (2.0, 1.0))])
@pytest.mark.parametrize("exponent", [-3.0, -5 / 3])
def test_slope_is_recovered_on_oblong_domains(shape, spacing, exponent):
    field = power_law(shape, spacing, exponent, 0)[None]
    basis = Shells(shape, spacing, (True, True))
    power = basis.gather(np.abs(basis.coefficients(field, np.ones(shape, bool))[0]) ** 2)[0]
    found = slope(basis.wavenumber, basis.density(power), (8 * basis.width, 0.9 * basis.nyquist))
    assert found == pytest.approx(exponent, abs=0.01)


def test_window_keeps_the_loss_of_fine_scales_visible_on_a_regional_domain():
    """A raw FFT of a patch cannot tell a smoothed field from a sharp one (evaluation traps: 99 % against 1.4 %)."""
    shape = (512, 512)
    sharp = power_law(shape, (1.0, 1.0), -3.0, 3)
    mesh = np.meshgrid(np.fft.fftfreq(512), np.fft.fftfreq(512), indexing="ij")
    blunt = np.fft.ifft2(np.fft.fft2(sharp) * (np.hypot(*mesh) < 0.1)).real
    patch, fine = (slice(100, 228), slice(60, 188)), 0.2
    share = {}
    for wraps in (False, True):
        basis = Shells((128, 128), (1.0, 1.0), (wraps, wraps))
        both = np.stack([sharp[patch], blunt[patch]])
        power = np.abs(basis.coefficients(both, np.ones((128, 128), bool))) ** 2
        tails = [basis.gather(one)[0][basis.wavenumber > fine].sum() for one in power]
        share[wraps] = tails[1] / tails[0]
    assert share[False] < 0.01
    assert share[True] > 0.5  # what a raw transform reports


def test_half_octaves_end_at_the_usable_share_of_nyquist():
    edges = half_octaves(1.0, 180.0)
    assert edges[-1] == pytest.approx(144.0)
    assert edges[0] < 1.0 <= edges[1] * 1.0000001
    np.testing.assert_allclose(edges[1:] / edges[:-1], np.sqrt(2))


@pytest.mark.parametrize("exponent", [0.0, -3.0, -8.0])
def test_only_a_truncation_ends_what_a_spectrum_resolves(exponent):
    """Not a smooth fall, however steep; not a gap in between; not a trend that dwarfs everything else."""
    k = np.arange(1.0, 65.0)
    power = k**exponent
    assert not unresolved(power, k).any()
    # 1e-12 is what is left of these powers after rounding, in a steep spectrum as well
    truncated = np.where(k > 31, 1e-12 * power.sum(), np.maximum(power, 1e-7 * power.sum()))
    np.testing.assert_array_equal(unresolved(np.stack([truncated, power]), k), [k > 31, k > 64])
    assert not unresolved(np.where((k > 31) & (k < 40), 0, np.maximum(power, 1e-7 * power.sum())), k).any()
    assert not unresolved(np.append(1e3, power / power.sum()), np.append(0.5, k)).any()
    falling = np.where(k > 28, np.where(k > 31, 1e-12, 10.0 ** -(k - 23)), 1e-4)  # in steps of ten, towards the corner
    assert unresolved(falling, k)[k > 31].all()


def test_spread_and_error_agree_at_every_scale_for_a_perfect_ensemble():
    generator = np.random.default_rng(5)
    basis = Shells((64, 64), (1.0, 1.0), (True, True))
    variance = error = 0.0
    for case in range(60):
        fields = power_law((64, 64), (1.0, 1.0), -2.0, case)[None] + generator.normal(size=(5, 64, 64))
        sums = Spectral(basis).measure(Pair.of(fields[1:], fields[0]))
        variance, error = variance + sums.by_case["bins_variance"], error + sums.by_case["bins_error"]
    np.testing.assert_allclose(np.sqrt(variance / error)[0, -6:], 1, atol=0.05)


def test_metres_are_shown_as_kilometres():
    coords = (np.arange(20) * 5000.0, np.arange(30) * 5000.0)
    grid = Grid(("y", "x"), (20, 30), coords, attrs=({"units": "m"}, {"units": "m"}))
    basis = Domain.of(grid).basis
    assert basis.nyquist == pytest.approx(0.1)
    assert basis.units == "cycles per km"


def test_a_regional_lat_lon_grid_is_measured_in_km_and_windowed():
    attrs = ({"units": "degrees_north"}, {"units": "degrees_east"})
    grid = Grid(("lat", "lon"), (21, 31), (np.linspace(50, 60, 21), np.linspace(0, 15, 31)), "sphere", attrs=attrs)
    basis = Domain.of(grid).basis
    degree = np.pi * 6371 / 180
    np.testing.assert_allclose(basis.spacing, (0.5 * degree, 0.5 * degree * np.cos(np.deg2rad(55))))
    assert "Hann" in basis.window


@pytest.mark.parametrize("periodic", [(True, True), (False, True), (False, False)])
def test_power_of_many_fields_is_that_of_each_on_numpy_and_torch(periodic):
    fields = np.random.default_rng(5).normal(size=(40, 24, 18)) + 3
    shells = Shells((24, 18), (1.0, 2.0), periodic)
    modes = shells.coefficients(fields, np.ones((24, 18), dtype=bool))
    each = np.concatenate([shells.gather(np.abs(one) ** 2) for one in modes])
    for backend in ("numpy", "torch"):
        np.testing.assert_allclose(shells.power(fields, backend_of(backend, "cpu")), each, rtol=1e-10, atol=1e-14)


SPACES = {
    "globe": {
        "lat": ("lat", np.linspace(-87.5, 87.5, 36), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(48) * 7.5, {"units": "degrees_east"}),
    },
    "plane": {"y": ("y", np.arange(36.0), {"units": "km"}), "x": ("x", np.arange(48.0), {"units": "km"})},
}


@pytest.mark.parametrize(("space", "nyquist"), [("globe", 24), ("plane", 0.5)])
def test_films_are_judged_by_the_spectra_of_their_frames(space, nyquist):
    """Frames on an axis of the grid, or as cases: the same power, areas and CRPS. Hours are no direction of space."""
    rng, dims = np.random.default_rng(3), tuple(SPACES[space])
    coords = {"time": np.arange(3) * 4.0, "frame": ("frame", np.arange(4) * 24.0, {"units": "h"}), **SPACES[space]}
    truth = xr.Dataset({"a": (("time", "frame", *dims), rng.normal(size=(3, 4, 36, 48)))}, coords)
    for frame in range(4):  # as much is missing in every frame, elsewhere
        truth.a[:, frame, 8:20, 12 * frame : 12 * frame + 6] = np.nan
    members = xr.Dataset({"a": (("member", *truth.a.dims), 2 * rng.normal(size=(5, *truth.a.shape)))}, truth.coords)
    films, frames = (
        evaluate(members, truth, grid=grid, periodic=[dims[1]], brief=True).scores.isel(system=0, variable=0)
        for grid in (("frame", *dims), dims)
    )
    for name in ("power_truth", "power_error", "spectral_ratio", "ralsd", "crps", "wavelength"):
        np.testing.assert_allclose(films[name], frames[name], rtol=1e-10, err_msg=name)
    assert float(films.ralsd) == pytest.approx(20 * np.log10(2), rel=0.05)
    assert float(films.scale_high[-1]) == pytest.approx(0.8 * nyquist)
