"""Statistics instead of members: exact, counted once, the same whoever makes them; and the members at a deadline."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import sciffusion
from sciffusion.errors import SciffusionError
from sciffusion.evaluation import evaluate
from sciffusion.fields.ensemble import EnsembleStore, open_ensemble
from sciffusion.fields.excerpt import excerpt
from sciffusion.fields.reduced import Statistics
from sciffusion.generation import closing, engine, generate, work
from sciffusion.generation.keep import Keep
from sciffusion.generation.scoring import state_of
from sciffusion.generation.target import Target
from tests.generation import fake
from tests.generation.fake import Batch, FakeEmulator, conditions, expected
from tests.generation.runs import as_process

ROOT = Path(__file__).parents[2]
MEMBERS = 12
KEEP = "mean,std,min,max,quantiles:0.1/0.5,members:3"
OPTIONS = {"batch_size": 4, "device": "cpu", "progress": False}


def statistics(path):
    return xr.open_zarr(path, group="statistics").load()


def make(path, emulator=None, **options):
    return generate(emulator or FakeEmulator(), conditions(), path, MEMBERS, **(OPTIONS | options))


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    return make(tmp_path_factory.mktemp("reduced") / "e.zarr", keep=KEEP)


def test_statistics_are_those_of_all_members(reduced):
    members, found = expected(members=range(MEMBERS)).u.astype(float), statistics(reduced)
    for name, value in {
        "u_mean": members.mean("member"),
        "u_std": members.std("member", ddof=1),
        "u_min": members.min("member"),
        "u_max": members.max("member"),
        "u_quantiles": members.quantile([0.1, 0.5], "member"),
    }.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6)  # stored in float32
    assert found.u_mean.attrs == {"units": "m s-1", "cell_methods": "member: mean"}
    assert "exact" in found.u_quantiles.attrs["quantile_method"]
    assert found.attrs["members"] == MEMBERS
    assert found.time.equals(open_ensemble(reduced).time)


def test_the_members_asked_for_stay_and_no_others(reduced):
    ds = open_ensemble(reduced)
    assert ds.member.values.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(ds.u, expected(members=range(3)).u)
    store = EnsembleStore(reduced)
    assert store.verify() == []
    assert store.completed().all()
    assert len(list((reduced / "u").rglob("0"))) > 0
    assert not list(reduced.parent.glob("*.making"))


def test_the_disk_holds_the_members_of_one_case_at_a_time(tmp_path, monkeypatch):
    """By one writing thread: several go on with the next case while one of them has the last item of a case."""
    monkeypatch.setattr(work, "THREADS", 1)
    most = []
    write = EnsembleStore.write

    def counted(store, *args):
        write(store, *args)
        most.append(sum(1 for _ in store.markers.complete()))

    monkeypatch.setattr(EnsembleStore, "write", counted)
    make(tmp_path / "e.zarr", keep="mean")
    assert max(most) == MEMBERS  # of four cases


def test_blocks_of_cells_give_the_same_as_the_whole(reduced, tmp_path, monkeypatch):
    monkeypatch.setattr(closing, "BUDGET", MEMBERS * 8 * 4 * 2)  # two rows of eight cells
    path = make(tmp_path / "e.zarr", keep=KEEP)
    xr.testing.assert_identical(statistics(path).drop_attrs(), statistics(reduced).drop_attrs())


def test_killed_processes_count_every_member_once(reduced, tmp_path):
    path = tmp_path / "e.zarr"
    command = [sys.executable, "-m", "tests.generation.kept", str(path), KEEP, str(MEMBERS)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["killed"] * 12
    xr.testing.assert_identical(statistics(path).drop_attrs(), statistics(reduced).drop_attrs())
    np.testing.assert_array_equal(open_ensemble(path).u, open_ensemble(reduced).u)


@pytest.mark.parametrize(("home", "step"), [(Target, "prepare"), (Statistics, "make")])
def test_a_process_that_is_overtaken_ends_well(home, step, reduced, tmp_path, monkeypatch):
    """Another one completes the ensemble and puts it in place just before the ``step`` of this one."""
    plain, path = getattr(home, step), tmp_path / "e.zarr"

    def overtaken(*arguments):
        monkeypatch.setattr(home, step, plain)
        make(path, keep=KEEP)
        made.append(path.stat().st_mtime_ns)
        return plain(*arguments)

    made = []
    monkeypatch.setattr(home, step, overtaken)
    make(path, keep=KEEP)
    assert made == [path.stat().st_mtime_ns]  # not made again
    assert [name for name in os.listdir(tmp_path) if name != "e.zarr"] == []
    xr.testing.assert_identical(statistics(path).drop_attrs(), statistics(reduced).drop_attrs())


def test_a_finished_reduction_is_not_made_again_and_not_extended(tmp_path):
    path, emulator = make(tmp_path / "e.zarr", keep="mean"), FakeEmulator()
    make(path, emulator, keep="mean")
    assert emulator.drawn == []
    with pytest.raises(SciffusionError, match=r"keep\.of: '0-11' in the store, '0-15' now"):
        generate(emulator, conditions(), path, 16, keep="mean", **OPTIONS)
    with pytest.raises(SciffusionError, match="keep: "):
        generate(emulator, conditions(), path, MEMBERS, **OPTIONS)
    with pytest.raises(SciffusionError, match="no member is complete"):
        open_ensemble(path)
    generate(emulator, conditions(), path, 16, keep="mean", overwrite=True, **OPTIONS)
    assert statistics(path).attrs["members"] == 16


@pytest.mark.parametrize(
    "text", ["", "median", "members:3", "mean,members:x", "quantiles:0/1", "quantiles:a", "mean:3", "mean;std"]
)
def test_what_cannot_be_kept_is_explained(text):
    with pytest.raises(SciffusionError, match="--keep"):
        Keep.parse(text)


def test_masked_cells_are_missing_in_every_statistic():
    members = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    members[:, 0, 1] = np.nan
    for values in Keep.parse("mean,std,min,max,quantiles").reduce(members).values():
        assert np.isnan(values[..., 0, 1]).all()
        assert np.isfinite(values[..., 1, :]).all()


def truth():
    rng, like = np.random.default_rng(5), expected(members=range(1)).isel(member=0, drop=True)
    return like.map(lambda field: field + rng.standard_normal(field.shape).astype(np.float32))


def test_scores_of_members_that_are_gone_are_those_of_all_members(tmp_path):
    path = make(tmp_path / "e.zarr", keep="mean,members:2", score_against=truth())
    found = evaluate(open_ensemble(path), truth(), state=state_of(path)).scores
    wanted = evaluate(open_ensemble(make(tmp_path / "all.zarr")), truth()).scores
    for name in ("crps", "spread_skill", "rmse"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12)


def test_scores_need_no_statistics(tmp_path):
    path = make(tmp_path / "e.zarr", score_against=truth())
    assert open_ensemble(path).sizes["member"] == MEMBERS
    found = evaluate(open_ensemble(path), truth(), state=state_of(path)).scores
    np.testing.assert_allclose(found["crps"], evaluate(open_ensemble(path), truth()).scores["crps"], rtol=1e-12)


@pytest.mark.parametrize("wrong", [{"variable": "unknown"}, {"units": "kg"}, {"grid": 2}])
def test_a_truth_that_does_not_fit_leaves_nothing_behind(tmp_path, wrong):
    given = truth()
    name = next(iter(given.data_vars))
    if "variable" in wrong:
        given = given.rename({name: wrong["variable"]})
    elif "units" in wrong:
        given[name].attrs["units"] = wrong["units"]
    else:
        given = given.isel({given[name].dims[-1]: slice(None, None, wrong["grid"])})
    with pytest.raises(SciffusionError):
        make(tmp_path / "e.zarr", score_against=given)
    assert not list(tmp_path.iterdir())


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self):
        self.now, self._turning = 0.0, threading.Lock()

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        with self._turning:
            self.now += max(0.0, seconds)

    def reach(self, moment):
        """Any thread may wait for it."""
        with self._turning:
            self.now = max(self.now, moment)


@pytest.fixture
def clock(monkeypatch):
    """The clock of the engine and of the emulators here: nothing hangs on how busy the machine is."""
    clock = Clock()
    for module in (engine, work, fake):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_deadline_publishes_whole_members_only_and_the_rest_can_be_made_later(tmp_path, clock):
    path, emulator = tmp_path / "e.zarr", FakeEmulator(delay=0.1)
    make(path, emulator, deadline=0.65)
    assert emulator.calls == 7  # the last one begun at 0.6 s
    ds, store = open_ensemble(path), EnsembleStore(path)
    count = ds.sizes["member"]
    assert count == 7  # of four cases each, four in a batch
    assert store.members == list(range(count))
    assert store.completed().all()
    assert store.verify() == []
    with sciffusion.fields.layout.quiet():
        assert not xr.open_zarr(path).u.isnull().any()  # whole for a reader who knows nothing of markers
    rest = FakeEmulator()
    make(path, rest)
    assert len(rest.drawn) == 4 * (MEMBERS - count)
    np.testing.assert_array_equal(open_ensemble(path).u, expected(members=range(MEMBERS)).u)
    assert [entry.name for entry in tmp_path.iterdir()] == ["e.zarr"]


class Behind(FakeEmulator):
    """Draws as a GPU does: orders are taken at once and carried out one after the other; ``delay`` seconds for each."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def draws(self, *args, **options):
        done = self.clock.now
        for batch in super().draws(*args, **options):
            done = max(done, self.clock.now) + self.seconds
            yield Late(batch.pairs, batch.parts, self.clock, done)


@dataclass
class Late(Batch):
    """There at the moment ``done``."""

    clock: Clock
    done: float

    def wait(self):
        self.clock.reach(self.done)

    def arrays(self, row):
        self.wait()
        return super().arrays(row)


def test_a_device_that_is_behind_its_orders_gets_none_that_it_would_begin_after_the_deadline(tmp_path, clock):
    emulator = Behind(clock, 0.2)
    make(tmp_path / "e.zarr", emulator, deadline=1.1)
    assert emulator.calls == 6  # the last one is begun at 1.0 s
    assert clock.now == pytest.approx(1.2)


def test_each_of_several_processes_keeps_to_its_deadline(tmp_path, clock, monkeypatch):
    """The first one is done with its share when its time is up: it does not begin that of the other."""
    path, first, second = tmp_path / "e.zarr", FakeEmulator(delay=0.25), FakeEmulator(delay=0.25)
    as_process(monkeypatch, 0, 2)
    with pytest.raises(SciffusionError, match="no member was complete for all cases"):
        make(path, first, deadline=1.9, batch_size=3)
    pairs = {(case, member) for case in range(4) for member in range(MEMBERS)}
    assert set(first.drawn) == {pair for pair in pairs if sum(pair) % 2 == 0}
    assert clock.now == 8 * 0.25
    as_process(monkeypatch, 1, 2)
    make(path, second, deadline=0.95, batch_size=3)
    assert len(second.drawn) == 12  # of four batches, the last begun at 0.75 s
    assert clock.now == (8 + 4) * 0.25
    ds = open_ensemble(path)
    assert ds.sizes["member"] == 6
    np.testing.assert_array_equal(ds.u, expected(members=range(6)).u)


def test_a_deadline_adds_to_what_is_published(tmp_path, clock):
    path = generate(FakeEmulator(), conditions(), tmp_path / "e.zarr", 3, **OPTIONS)
    emulator = FakeEmulator(delay=0.1)
    make(path, emulator, deadline=0.4)
    assert open_ensemble(path).sizes["member"] == 3 + 4  # begun at 0, 0.1, 0.2 and 0.3 s
    assert not {(case, member) for case, member in emulator.drawn if member < 3}
    make(path, emulator, deadline=100)
    assert open_ensemble(path).sizes["member"] == MEMBERS
    assert len(emulator.drawn) == 4 * (MEMBERS - 3)


def test_nothing_is_published_when_no_member_is_whole(tmp_path, clock):
    with pytest.raises(SciffusionError, match="no member was complete for all cases within 00:00:00"):
        make(tmp_path / "e.zarr", FakeEmulator(delay=0.2), deadline=0.01, batch_size=1)
    assert not (tmp_path / "e.zarr").exists()
    assert make(tmp_path / "e.zarr", batch_size=1).exists()


@pytest.mark.parametrize("options", [{"keep": "mean", "deadline": 3.0}, {"keep": "mean", "store": "e.nc"}])
def test_combinations_without_sense_are_refused(tmp_path, options):
    path = tmp_path / options.pop("store", "e.zarr")
    with pytest.raises(SciffusionError):
        make(path, **options)


def test_an_excerpt_shares_its_chunks(tmp_path):
    store = EnsembleStore(make(tmp_path / "e.zarr"))
    excerpt(store, tmp_path / "part.zarr", [1, 7])
    part = EnsembleStore(tmp_path / "part.zarr")
    assert part.verify() == []
    np.testing.assert_array_equal(open_ensemble(part.path).v, expected(members=[1, 7]).v)
    assert (part.path / "v/c/1/2/0/0").samefile(store.path / "v/c/7/2/0/0")
