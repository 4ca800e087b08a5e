"""An evaluation gives the same numbers split among processes and parts, from disk, and on torch."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation import evaluate
from sciffusion.evaluation.spool import Spool


@pytest.fixture(scope="module")
def data():
    draws = np.random.default_rng(0).normal(size=(7, 12, 10, 14)).astype(np.float32)
    coords = {"time": np.arange(12.0)}
    truth = xr.Dataset({"a": (("time", "y", "x"), draws[0])}, coords)
    return xr.Dataset({"a": (("member", "time", "y", "x"), draws[1:])}, coords), truth


@pytest.fixture(scope="module")
def whole(data):
    return evaluate(*data, baselines={"shifted": data[0] + 0.5}).scores


def same(found, expected, rtol=1e-10):
    xr.testing.assert_allclose(found.drop_attrs(), expected.drop_attrs(), rtol=rtol, atol=1e-10)


def test_processes_give_the_numbers_of_one(data, whole):
    seen = []
    found = evaluate(*data, baselines={"shifted": data[0] + 0.5}, processes=2, progress=lambda *args: seen.append(args))
    same(found.scores, whole)
    assert [done for _, done, _ in seen] == list(range(12))


def test_parts_in_any_order_join_to_the_whole(data, whole, tmp_path):
    settings = {"baselines": {"shifted": data[0] + 0.5}}
    for i in (2, 0):
        part = evaluate(*data, part=(i, 3), state=tmp_path / f"{i}.npz", **settings)
        assert part.scores.sizes["case"] == 4
    seen = []
    joined = evaluate(
        *data,
        state=[tmp_path / name for name in ("all.npz", "2.npz", "0.npz")],
        progress=lambda label, *_: seen.append(label),
        **settings,
    )
    same(joined.scores, whole)
    assert len(seen) == 4  # the part that nobody did
    assert (tmp_path / "all.npz").exists()
    with pytest.raises(SciffusionError, match="no part 3"):
        evaluate(*data, part=(3, 3))


def test_members_beyond_the_memory_allowed_go_through_a_file(data, whole, monkeypatch):
    made = []
    begin = Spool.__init__
    monkeypatch.setattr(Spool, "__init__", lambda self, members: made.append(self) or begin(self, members))
    found = evaluate(*data, baselines={"shifted": data[0] + 0.5}, memory=6 * 10 * 14 * 4)
    assert len(made) >= 2 * 12
    same(found.scores, whole, rtol=1e-6)  # float32 members are averaged in another order


def test_torch_gives_the_numbers_of_numpy(data, whole):
    doubles = [ds.astype(np.float64) for ds in data]
    same(evaluate(*doubles, backend="torch", device="cpu").scores, evaluate(*doubles).scores, rtol=1e-11)


def test_a_case_is_judged_in_less_memory_than_its_members_take(tmp_path):
    draws = np.random.default_rng(1).normal(size=(120, 1, 128, 128)).astype(np.float32)
    ensemble = xr.Dataset({"a": (("member", "time", "y", "x"), draws)})
    ensemble.to_zarr(tmp_path / "e.zarr", encoding={"a": {"chunks": (1, 1, 128, 128)}}, zarr_format=2)
    truth, lazy = xr.Dataset({"a": (("time", "y", "x"), draws[0] + 1)}), xr.open_zarr(tmp_path / "e.zarr", chunks=None)
    evaluate(lazy.isel(member=slice(0, 2)), truth)  # imports
    peaks = []
    for memory in (None, "2MB"):
        tracemalloc.start()
        evaluate(lazy, truth, memory=memory)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] - 0.7 * draws.nbytes
