"""Sums add up: parts merged are the whole, and a state on disk goes on where it stopped."""

import numpy as np
import pytest
import xarray as xr

from sciffusion.errors import SciffusionError
from sciffusion.evaluation import evaluate
from sciffusion.evaluation.dispersion import Ranks
from sciffusion.evaluation.tally import Sums, Tally


@pytest.fixture(scope="module")
def data():
    draws = np.random.default_rng(0).normal(size=(5, 6, 12, 14))
    coords = {"time": np.arange(6.0)}
    truth = xr.Dataset({"a": (("time", "y", "x"), draws[0]), "b": (("time", "y", "x"), draws[0] ** 2)}, coords)
    dims = ("member", "time", "y", "x")
    return xr.Dataset({"a": (dims, draws[1:]), "b": (dims, draws[1:] ** 2)}, coords), truth


def sums(generator):
    return Sums({"s": generator.normal(size=3)}, {"t": generator.normal(size=2)}, {"m": generator.normal(size=())})


def test_merging_is_associative_and_equals_the_whole():
    generator = np.random.default_rng(0)
    cases = {f"case {i}": sums(generator) for i in range(6)}
    whole, parts = Tally(), [Tally(), Tally(), Tally()]
    for i, (label, one) in enumerate(cases.items()):
        whole.update(label, one)
        parts[i // 2].update(label, one)
    left, right = parts[0].merge(parts[1]).merge(parts[2]), parts[0].merge(parts[1].merge(parts[2]))
    for merged in (left, right, Tally.from_state(left.state())):
        assert merged.cases == whole.cases
        np.testing.assert_array_equal(merged.stacked("s"), whole.stacked("s"))
        np.testing.assert_allclose(merged.total["t"], whole.total["t"], rtol=1e-14)
        assert merged.maximum["m"] == whole.maximum["m"]


def test_a_case_cannot_count_twice():
    tally = Tally()
    tally.update("one", sums(np.random.default_rng(0)))
    with pytest.raises(SciffusionError, match="one"):
        tally.update("one", sums(np.random.default_rng(0)))
    with pytest.raises(SciffusionError, match="both"):
        tally.merge(tally)


def test_an_interrupted_evaluation_goes_on_from_its_state(data, tmp_path):
    ensemble, truth = data
    seen = []

    def stop_after_three(label, done, total):
        assert (done, total) == (len(seen), 6)
        seen.append(label)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(ensemble, truth, state=tmp_path / "state.npz", progress=stop_after_three)
    resumed = evaluate(
        ensemble, truth, state=tmp_path / "state.npz", progress=lambda label, done, total: seen.append(label)
    )
    assert len(seen) == 4 + 3  # the interrupted case is judged again, the three before it are not
    xr.testing.assert_allclose(resumed.scores, evaluate(ensemble, truth).scores, rtol=1e-12)


def test_an_interruption_within_a_case_leaves_no_half_case(data, tmp_path, monkeypatch):
    ensemble, truth = data
    sums, calls = Ranks.sums, []

    def interrupted(self, cells):
        calls.append(cells)
        if len(calls) == 4:  # the second variable of the second case
            raise KeyboardInterrupt
        return sums(self, cells)

    monkeypatch.setattr(Ranks, "sums", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(ensemble, truth, state=tmp_path / "state.npz")
    resumed = evaluate(ensemble, truth, state=tmp_path / "state.npz")
    xr.testing.assert_allclose(resumed.scores, evaluate(ensemble, truth).scores, rtol=1e-12)


def test_new_cases_are_added_to_an_old_state(data, tmp_path):
    ensemble, truth = data
    evaluate(ensemble.isel(time=slice(0, 4)), truth, state=tmp_path / "state.npz")
    grown = evaluate(ensemble, truth, state=tmp_path / "state.npz")
    xr.testing.assert_allclose(grown.scores, evaluate(ensemble, truth).scores, rtol=1e-12)


@pytest.mark.parametrize("damage", ["truncated", "another"])
def test_a_state_that_does_not_fit_is_refused(data, tmp_path, damage):
    ensemble, truth = data
    path = tmp_path / "state.npz"
    evaluate(ensemble if damage == "truncated" else ensemble[["a"]], truth, state=path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SciffusionError, match="state"):
        evaluate(ensemble, truth, state=path)
