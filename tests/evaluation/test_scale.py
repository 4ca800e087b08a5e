"""An evaluation gives the same numbers split among processes and parts, from disk, and on torch."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation import evaluate
from sciffusion.evaluation.panel import Panel
from sciffusion.evaluation.spool import Spool

DIMS = ("member", "time", "y", "x")


@pytest.fixture(scope="module")
def data():
    draws = np.random.default_rng(0).normal(size=(7, 12, 10, 14)).astype(np.float32)
    coords = {"time": np.arange(12.0)}
    truth = xr.Dataset({"a": (("time", "y", "x"), draws[0])}, coords)
    return xr.Dataset({"a": (DIMS, draws[1:])}, coords), truth


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


def test_no_score_holds_the_members_of_a_case_that_lie_on_disk(monkeypatch):
    """All members take 39 MB; what a score needs besides does not grow with their number."""
    draws = np.random.default_rng(1).normal(size=(150, 1, 256, 256)).astype(np.float32)
    truth, ensemble = xr.Dataset({"a": (("time", "y", "x"), draws[0] + 1)}), xr.Dataset({"a": (DIMS, draws)})
    peaks, scores = {}, Panel.scores

    def watched(self, label, members):
        return [Watched(score, peaks) for score in scores(self, label, members)]

    monkeypatch.setattr(Panel, "scores", watched)
    tracemalloc.start()
    evaluate(ensemble, truth, memory="2MB")
    tracemalloc.stop()
    assert max(peaks.values()) < 0.75 * draws.nbytes, peaks


class Watched:
    """A score whose highest memory is noted."""

    def __init__(self, score, peaks):
        self.score, self.peaks = score, peaks

    def measure(self, pair):
        assert isinstance(pair.members, Spool)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        sums = self.score.measure(pair)
        self.peaks[type(self.score).__name__] = tracemalloc.get_traced_memory()[1] - before
        return sums
