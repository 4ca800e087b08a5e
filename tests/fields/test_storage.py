"""Rounded and packed values stay within the bound that is written beside them, or are refused."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sciffusion.errors import SciffusionError
from sciffusion.fields.ensemble import EnsembleStore, open_ensemble, write_netcdf
from sciffusion.fields.markers import COARSE_MISFIT
from sciffusion.fields.storage import Exact, Packed, Rounded, Storage, encoded

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data(), bits=st.integers(1, 23))
@settings(max_examples=60)
def test_rounding_is_to_the_nearest_number_of_so_many_bits(data, bits, dtype):
    width = 32 if dtype == np.float32 else 64
    values = data.draw(arrays(dtype, 20, elements=st.floats(width=width, allow_infinity=False)))
    values = np.where(np.abs(values) > np.finfo(dtype).max / 2, dtype(1), values)
    stored = encoded("x", Rounded(bits), values)
    mantissa, _ = np.frexp(stored[np.isfinite(stored) & (np.abs(stored) >= np.finfo(dtype).smallest_normal)])
    np.testing.assert_array_equal(mantissa * 2.0 ** (bits + 1), np.rint(mantissa * 2.0 ** (bits + 1)))
    np.testing.assert_array_equal(np.isnan(stored), np.isnan(values))
    np.testing.assert_array_equal(Rounded(bits).encode("x", stored), stored)  # nothing more to round


def test_rounding_breaks_ties_to_even_and_keeps_what_is_not_a_number():
    values = np.array([1.25, 1.75, 1.2500001, -1.25, np.nan, np.inf, 0.0], np.float32)
    np.testing.assert_array_equal(Rounded(1).encode("x", values), [1.0, 2.0, 1.5, -1.0, np.nan, np.inf, 0.0])


def test_a_value_that_rounds_to_infinity_is_refused():
    with pytest.raises(SciffusionError, match="overflows"):
        Rounded(3).encode("x", np.array([np.finfo(np.float32).max]))


@given(
    limits=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)).filter(lambda pair: pair[1] - pair[0] > 1e-2),
    parts=arrays(np.float64, 30, elements=st.floats(0, 1)),
)
@settings(max_examples=100)
def test_packing_is_within_half_a_step(limits, parts):
    packed, low, high = Packed(*limits), *limits
    values = np.clip(low + parts * (high - low), low, high)
    values[0] = np.nan
    stored = encoded("x", packed, values)
    assert stored.dtype == np.int16
    assert np.isnan(packed.decode(stored)[0])
    assert np.nanmax(np.abs(packed.decode(stored).astype(float) - values)) <= packed.error
    assert packed.error < 0.51 * packed.scale + 2.0**-22 * max(abs(low), abs(high))


def test_a_value_outside_the_range_is_refused_with_its_size():
    with pytest.raises(SciffusionError, match="t2m: 341 is outside the range of its packing, 180 to 340"):
        Packed(180, 340).encode("t2m", np.array([200.0, 341.0, np.nan]))


@pytest.mark.parametrize(
    "entry",
    [
        {"round_bits": 0},
        {"round_bits": 60},
        {"pack": {"u": (3, 3)}},
        {"pack": {"u": (0, np.inf)}},
        {"chunks": {"lat": 0}},
    ],
)
def test_impossible_settings_are_refused(entry):
    with pytest.raises(SciffusionError):
        Storage(**entry)


def template():
    def nothing(*shape):
        return np.broadcast_to(np.float32(np.nan), shape)

    dims = ("time", "lat", "lon")
    coords = {"time": np.arange(2), "lat": np.arange(5.0), "lon": np.arange(7.0)}
    return xr.Dataset({"t2m": (dims, nothing(2, 5, 7), {"units": "K"}), "u": (dims, nothing(2, 5, 7))}, coords)


def item(case, member):
    rng = np.random.default_rng([case, member])
    u = rng.standard_normal((5, 7), np.float32)
    u[0, 0] = np.nan
    return {"t2m": 280 + 10 * rng.standard_normal((5, 7), np.float32), "u": u}


def filled(path, storage, **facts):
    store = EnsembleStore.create(path, template(), [0, 3], ["time"], {"seed": 0, "storage": storage.to_json()})
    for case in range(2):
        for member in (0, 3):
            store.write(case, member, item(case, member), facts)
    store.finalise()
    return EnsembleStore(path)


STORAGE = Storage(round_bits=7, pack={"t2m": (180.0, 340.0)}, chunks={"lat": 2, "lon": 4})


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_a_lossy_store_is_plain_cf_and_within_its_bounds(tmp_path, suffix):
    store = filled(tmp_path / "e.zarr", STORAGE)
    assert store.verify() == []
    if suffix == "nc":
        write_netcdf(open_ensemble(tmp_path / "e.zarr"), tmp_path / "e.nc")
    path = tmp_path / f"e.{suffix}"
    plain = xr.open_zarr(path) if suffix == "zarr" else xr.open_dataset(path, engine="netcdf4")
    assert plain.t2m.encoding["dtype"] == np.int16
    for case in range(2):
        for member in (0, 3):
            one, exact = plain.sel(member=member).isel(time=case).load(), item(case, member)
            assert np.abs(one.t2m - exact["t2m"]).max() <= plain.t2m.attrs["maximum_absolute_error"]
            relative = np.abs(one.u / exact["u"] - 1)
            assert relative.max() <= plain.u.attrs["maximum_relative_error"]
            assert relative.max() > 0
            np.testing.assert_array_equal(np.isnan(one.u), np.isnan(exact["u"]))


def test_what_a_store_says_readers_get_is_what_they_get(tmp_path):
    store = filled(tmp_path / "e.zarr", STORAGE)
    read = open_ensemble(tmp_path / "e.zarr").sel(member=3).isel(time=1).load()
    for name, values in store.as_read(item(1, 3)).items():
        np.testing.assert_allclose(read[name], values, rtol=2**-23, atol=0)  # xarray unpacks in float32


def test_smaller_chunks_are_all_in_the_marker(tmp_path):
    store = filled(tmp_path / "e.zarr", STORAGE)
    chunk = tmp_path / "e.zarr/u/c/1/0/2/1"
    chunk.write_bytes(b"?" + chunk.read_bytes()[1:])
    assert [(fault.case, fault.member, fault.what) for fault in store.verify()] == [(0, 3, "u/c/1/0/2/1 is damaged")]
    assert len(json.loads(store.markers.path(0, 3).read_text())["chunks"]) == 2 * 3 * 2


def test_a_value_that_does_not_fit_leaves_its_item_incomplete_and_the_others_whole(tmp_path):
    store = filled(tmp_path / "e.zarr", STORAGE)
    with pytest.raises(SciffusionError, match="t2m: 400"):
        store.write(1, 3, item(1, 3) | {"t2m": np.full((5, 7), 400.0)})
    assert store.completed().all(), "what was complete stays so"
    assert store.verify() == []


def test_the_largest_misfit_is_kept_with_its_variable(tmp_path):
    store = filled(tmp_path / "e.zarr", STORAGE, **{COARSE_MISFIT: {"t2m": 0.25}})
    store.write(0, 0, item(0, 0), {COARSE_MISFIT: {"t2m": 0.5}})
    store.finalise()
    assert open_ensemble(tmp_path / "e.zarr").t2m.attrs[COARSE_MISFIT] == 0.5


def test_names_that_the_template_does_not_have_are_refused(tmp_path):
    for storage, what in (
        (Storage(pack={"q": (0, 1)}), "variable 'q'"),
        (Storage(chunks={"time": 1}), "dimension 'time'"),
    ):
        with pytest.raises(SciffusionError, match=what):
            filled(tmp_path / "e.zarr", storage)
    assert not (tmp_path / "e.zarr").exists()


def test_nothing_asked_is_nothing_done():
    values = np.array([1.1, np.nan], np.float32)
    assert Storage().to_json() == {}
    assert isinstance(Storage().encoder("x"), Exact)
    assert encoded("x", Exact(), values) is values
    assert Storage.from_json(json.loads(json.dumps(STORAGE.to_json()))) == STORAGE
