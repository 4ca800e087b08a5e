"""Spectra of xarray data keep the variance exactly, find what was put in, and do not depend on how the data lie."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import signal
from scipy.special import roots_legendre

from sciffusion.errors import SciffusionError
from sciffusion.evaluation import (
    coherence,
    cross_spectrum,
    degree_spectrum,
    ensemble_spectra,
    masked_spectrum,
    power_spectrum,
    ralsd,
    temporal_spectrum,
)
from sciffusion.evaluation.harmonics import Harmonics
from sciffusion.evaluation.spectra import slope


def plane(values, spacing=(1.0, 1.0), units="km", lead=("time",)):
    *_, n, m = values.shape
    coords = {
        "y": ("y", spacing[0] * np.arange(n), {"units": units}),
        "x": ("x", spacing[1] * np.arange(m), {"units": units}),
    }
    return xr.DataArray(values, dims=(*lead[: values.ndim - 2], "y", "x"), coords=coords)


def power_law(shape, spacing, exponent, seed):
    """Fields whose power in shells falls like k^exponent, with modes of exactly that amplitude."""
    k = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True)), indexing="ij"))
    k[0, 0] = np.inf
    phase = np.fft.fft2(np.random.default_rng(seed).normal(size=shape))
    return np.fft.ifft2(phase / np.abs(phase) * k ** ((exponent - 1) / 2)).real


@settings(max_examples=25)
@example(shape=(4, 8), spacing=(0.1, 0.1), order=["time", "y", "x"], scale=1.0)  # modes half-way between two shells
@given(
    shape=st.tuples(st.integers(4, 23), st.integers(4, 23)),
    spacing=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    order=st.permutations(["time", "y", "x"]),
    scale=st.floats(1e-3, 1e3),
)
def test_power_sums_to_the_variance_whatever_the_shape_spacing_order_and_units(shape, spacing, order, scale):
    values = np.random.default_rng(0).normal(size=(2, *shape)) + 50
    power = power_spectrum(plane(scale * values, spacing).transpose(*order), ["y", "x"], periodic=["y", "x"])
    np.testing.assert_allclose(power.sum("wavenumber"), scale**2 * values.var(axis=(1, 2)), rtol=1e-10)
    metres = plane(scale * values, [1e3 * d for d in spacing], "m").transpose(*order)
    same = power_spectrum(metres, ["y", "x"], periodic=["y", "x"])
    np.testing.assert_allclose(same.wavenumber, power.wavenumber, rtol=1e-12)
    np.testing.assert_allclose(same.transpose(*power.dims), power, rtol=1e-8, atol=1e-12 * scale**2)


def test_a_box_has_shells_and_its_power_sums_to_the_variance():
    values = np.random.default_rng(0).normal(size=(6, 8, 10))
    box = xr.DataArray(values, dims=("z", "y", "x"), coords={"z": np.arange(6) * 0.5})
    power = power_spectrum(box, ["z", "y", "x"], periodic=["z", "y", "x"])
    assert float(power.sum()) == pytest.approx(values.var(), rel=1e-12)


@pytest.mark.parametrize("exponent", [-3.0, -5 / 3])
def test_slope_is_recovered_to_a_hundredth_on_256_by_128(exponent):
    field = plane(power_law((256, 128), (1.0, 1.0), exponent, 0))
    density = power_spectrum(field, periodic=["y", "x"], density=True)
    found = slope(density.wavenumber.values, density.values, (8 / 128, 0.45))
    assert found == pytest.approx(exponent, abs=0.01)
    assert density.wavelength.attrs["units"] == "km"


def test_chunks_do_not_matter_and_stay_lazy():
    field = plane(np.random.default_rng(0).normal(size=(4, 12, 14)))
    lazy = power_spectrum(field.chunk(time=2, x=5), ["y", "x"])
    assert lazy.chunks is not None
    np.testing.assert_allclose(lazy, power_spectrum(field, ["y", "x"]), rtol=1e-12)


def test_on_a_globe_a_wave_stands_at_its_zonal_wavenumber():
    lon, lat = np.arange(72) * 5.0, np.linspace(87.5, -87.5, 36)
    values = np.cos(np.deg2rad(7 * lon)) * np.ones((36, 1))
    coords = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
    power = power_spectrum(xr.DataArray(values, coords, ("lat", "lon")))
    assert power.dims == ("band", "wavenumber")
    np.testing.assert_allclose(power.sel(wavenumber=7), 0.5, rtol=1e-12)
    np.testing.assert_allclose(power.sum("wavenumber"), 0.5, rtol=1e-12)


GLOBES = {
    "gauss": (np.rad2deg(np.arcsin(roots_legendre(24)[0]))[::-1], 23),
    "poles": (np.linspace(90, -90, 25), 12),
    "no poles": (90 - 180 / 24 * (np.arange(24) + 0.5), 11),
}


@pytest.mark.parametrize("name", GLOBES)
def test_power_by_degree_is_what_was_put_in_and_sums_to_the_area_integral(name):
    latitudes, degree = GLOBES[name]
    generator, longitude = np.random.default_rng(0), np.arange(48) * 7.5
    harmonics = Harmonics(latitudes, 48)
    field, power = np.zeros((len(latitudes), 48)), np.zeros(degree + 1)
    for m in range(degree + 1):
        legendre = np.stack(list(harmonics._legendre(m, degree)))
        c = generator.normal(size=len(legendre)) + 1j * generator.normal(size=len(legendre)) * (m > 0)
        power[m:] += (2 if m else 1) * np.abs(c) ** 2
        wave = np.exp(1j * np.deg2rad(m * longitude))
        field += (2 if m else 1) * ((legendre.T @ c)[:, None] * wave).real
    coords = {
        "lat": ("lat", latitudes, {"units": "degrees_north"}),
        "lon": ("lon", longitude, {"units": "degrees_east"}),
    }
    found = degree_spectrum(xr.DataArray(field, coords, ("lat", "lon")))
    np.testing.assert_allclose(found, power, rtol=1e-9)
    area = (field**2 * harmonics.quadrature[0][:, None]).sum() / 48
    assert float(found.sum()) == pytest.approx(area, rel=1e-12)
    turned = xr.DataArray(np.roll(field, 5, axis=1)[::-1], {**coords, "lat": ("lat", latitudes[::-1], {"units": "degrees_north"})}, ("lat", "lon"))  # fmt: skip  # noqa: E501
    np.testing.assert_allclose(degree_spectrum(turned.transpose("lon", "lat")), power, rtol=1e-9)


def test_legendre_functions_agree_with_scipy():
    special = pytest.importorskip("scipy.special")
    latitudes = np.linspace(-80, 80, 9)
    for m in (0, 1, 5):
        ours = np.stack(list(Harmonics(latitudes, 64)._legendre(m, 12)))
        theirs = [special.sph_harm_y(n, m, np.deg2rad(90 - latitudes), 0.0).real for n in range(m, 13)]
        np.testing.assert_allclose(ours, (-1) ** m * np.sqrt(4 * np.pi) * np.array(theirs), rtol=1e-12, atol=1e-13)


def test_other_latitudes_are_refused_for_harmonics():
    coords = {"lat": ("lat", np.linspace(-60, 60, 13), {"units": "degrees_north"}), "lon": np.arange(36) * 10.0}
    field = xr.DataArray(np.zeros((13, 36)), coords, ("lat", "lon"))
    field.lon.attrs["units"] = "degrees_east"
    with pytest.raises(SciffusionError, match="pole to pole"):
        degree_spectrum(field)


def test_a_shifted_wave_is_coherent_with_the_phase_of_its_shift():
    x = 2 * np.pi * np.arange(64) / 64
    first, second = (plane(np.sin(4 * x + lag) * np.ones((64, 1))) for lag in (0.6, 0.0))
    found = coherence(first, second, periodic=["y", "x"])
    place = int(np.argmax(power_spectrum(first, periodic=["y", "x"]).values))
    assert float(found.coherence[place]) == pytest.approx(1, abs=1e-12)
    cross = cross_spectrum(first, second, periodic=["y", "x"]).isel(wavenumber=place)
    assert float(cross.co) == pytest.approx(0.5 * np.cos(0.6), rel=1e-10)
    assert abs(float(found.phase[place])) == pytest.approx(np.rad2deg(0.6), rel=1e-10)


def test_coherence_of_independent_series_is_one_over_their_number():
    generator = np.random.default_rng(0)
    first, second = (
        xr.DataArray(generator.normal(size=(40, 128)), dims=("time", "x"), coords={"x": np.arange(128.0)})
        for _ in range(2)
    )
    found = coherence(first, second, ["time"], ["x"], periodic=["x"]).coherence[1:-1]
    assert float(found.mean()) == pytest.approx(1 / 40, rel=0.25)


def test_ensemble_spectra_share_out_the_errors_of_the_ensemble():
    draws = np.random.default_rng(0).normal(size=(21, 6, 16, 16))
    truth, members = plane(draws[0]), plane(draws[1:], lead=("member", "time"))
    found = ensemble_spectra(members, truth, over=["time"], periodic=["y", "x"])
    error = draws[1:].mean(axis=0) - draws[0]
    level = error.mean(axis=(1, 2), keepdims=True)
    assert float(found.error.sum()) == pytest.approx(((error - level) ** 2).mean(), rel=1e-10)
    np.testing.assert_allclose(found.spread_skill[1:8], 1, atol=0.2)
    np.testing.assert_allclose(found.members[1:8] / found.truth[1:8], 1, atol=0.35)
    assert found.attrs["members"] == 20


def test_gaps_do_not_change_the_slope_of_the_masked_spectrum():
    fields = plane(np.stack([power_law((192, 192), (1.0, 1.0), -3.0, seed) for seed in range(4)]))
    land = (fields.y // 29 + fields.x // 23) % 3 == 0
    masked = masked_spectrum(fields.where(~land), ["y", "x"], periodic=["y", "x"]).mean("time")
    whole = power_spectrum(fields, ["y", "x"], periodic=["y", "x"], density=True).mean("time")
    plain = power_spectrum(fields.where(~land), ["y", "x"], periodic=["y", "x"], density=True).mean("time")
    between = (0.04, 0.35)
    assert slope(masked.wavenumber.values, masked.values, between) == pytest.approx(-3, abs=0.1)
    assert slope(plain.wavenumber.values, plain.values, between) > -2.3  # leakage from the coasts
    inside = (masked.wavenumber > 0.06) & (masked.wavenumber < 0.35)
    level = masked / np.interp(masked.wavenumber, whole.wavenumber, whole)
    np.testing.assert_allclose(level[inside], 1.0, atol=0.25)


def test_the_spectrum_in_time_is_that_of_scipy_and_integrates_to_the_variance():
    values = np.random.default_rng(0).normal(size=(3, 120))
    time = np.datetime64("2000-01-01", "ns") + np.arange(120) * np.timedelta64(6, "h")
    field = xr.DataArray(values, dims=("x", "time"), coords={"time": time})
    found = temporal_spectrum(field)
    frequency, power = signal.periodogram(signal.detrend(values), 4.0, window="hann", detrend=False)
    np.testing.assert_allclose(found, power, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.frequency, frequency)
    assert found.frequency.attrs["units"] == "cycles per day"
    flat = temporal_spectrum(field, window="boxcar", detrend=False)
    np.testing.assert_allclose(flat.sum("frequency") * 4.0 / 120, values.var(axis=1), rtol=1e-12)
    with pytest.raises(SciffusionError, match="unequal"):
        temporal_spectrum(field.isel(time=[0, 1, 2, 4, 8]))


def test_ten_times_the_power_is_ten_decibels():
    power = power_spectrum(plane(power_law((32, 32), (1.0, 1.0), -2.0, 0)), periodic=["y", "x"])
    assert float(ralsd(10 * power, power)) == pytest.approx(10, rel=1e-12)
    assert float(ralsd(power, power)) == 0


@pytest.mark.parametrize(("noise", "distance"), [(1e-6, 0.0), (1e-1, 30.0)])
def test_beyond_the_truncation_of_both_there_is_no_log_spectral_distance(noise, distance):
    """Rounding is not compared with rounding; noise where the truth has none is."""
    k = xr.DataArray(np.arange(65.0), dims="wavenumber", name="wavenumber", coords={"wavenumber": np.arange(65.0)})
    power = xr.where(k > 0, k.clip(min=1) ** -3.0, 1e5)  # the mean is no part of it
    truth, members = power.where(k <= 31, 1e-12), power.where(k <= 31, 1e-5 * noise)
    found = float(ralsd(members, truth))
    assert found == 0 if distance == 0 else found > distance
