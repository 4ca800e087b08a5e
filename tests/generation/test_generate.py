"""Generating makes what is missing and nothing else, whatever interrupted it before."""

import errno
import logging
import os
import signal
import sys
import threading

import numpy as np
import pytest
import xarray as xr

import sciffusion
from sciffusion.config import Sampler
from sciffusion.errors import SciffusionError
from sciffusion.fields import chunks as store_chunks
from sciffusion.fields.ensemble import EnsembleStore, open_ensemble
from sciffusion.generation import work
from sciffusion.generation.identity import fingerprint
from sciffusion.generation.writer import Writer
from tests.generation.fake import FakeEmulator, conditions, expected
from tests.generation.runs import chunks, fields, run

PACKAGE = f"{os.path.dirname(sciffusion.__file__)}{os.sep}"


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_every_member_of_every_case_is_what_the_emulator_draws(tmp_path, suffix):
    path = run(tmp_path / f"e.{suffix}")
    ds = open_ensemble(path).load()
    assert ds.u.dims == ("member", "time", "lat", "lon")
    assert ds.time.dt.calendar == "noleap"
    assert ds.u.attrs["units"] == "m s-1"
    assert ds.training_case.dtype == bool
    xr.testing.assert_equal(fields(path).drop_vars(["lat", "lon"]), expected())
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_a_second_call_draws_nothing(tmp_path, suffix):
    path = run(tmp_path / f"e.{suffix}")
    again = FakeEmulator()
    run(path, again, batch_size=None)
    assert again.drawn == []


@pytest.mark.parametrize("options", [{"members": 4}, {"seed": 1}, {"data": conditions(cases=3)}])
def test_a_netcdf_file_of_another_ensemble_is_refused(tmp_path, options):
    path = run(tmp_path / "e.nc")
    before = path.read_bytes()
    with pytest.raises(SciffusionError, match="is another ensemble"):
        run(path, **options)
    assert path.read_bytes() == before


def test_a_file_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "e.nc").write_text("not even NetCDF")
    with pytest.raises(SciffusionError, match="exists already"):
        run(tmp_path / "e.nc")


def test_more_members_draw_the_new_ones_only(tmp_path):
    run(tmp_path / "e.zarr")
    before, again = chunks(tmp_path / "e.zarr"), FakeEmulator()
    times = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("[uv]/c/*/**/*") if file.is_file()}
    run(tmp_path / "e.zarr", again, members=5)
    assert len(times) == 24
    assert all(file.stat().st_mtime_ns == moment for file, moment in times.items())
    assert {member for _, member in again.drawn} == {3, 4}
    assert {name: data for name, data in before.items() if name[0] in "uv"}.items() <= chunks(
        tmp_path / "e.zarr"
    ).items()
    xr.testing.assert_equal(fields(tmp_path / "e.zarr").drop_vars(["lat", "lon"]), expected(members=range(5)))


def test_a_member_is_the_same_in_any_selection_of_cases_and_members(tmp_path):
    run(tmp_path / "all.zarr")
    run(tmp_path / "some.zarr", members=[2], cases={"time": slice("2001-01-02", "2001-01-03")}, batch_size=1)
    some = fields(tmp_path / "some.zarr")
    xr.testing.assert_equal(some, fields(tmp_path / "all.zarr").sel(member=[2]).isel(time=slice(1, 3)))


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path, suffix, error, caplog):
    whole, path = run(tmp_path / f"whole.{suffix}"), tmp_path / f"e.{suffix}"
    first, second = FakeEmulator(fail_after=6, error=error), FakeEmulator()
    with pytest.raises(type(error)):
        run(path, first)
    assert path.exists() == (suffix == "zarr")
    run(path, second)
    assert sorted(first.drawn + second.drawn) == [(case, member) for case in range(4) for member in range(3)]
    xr.testing.assert_identical(fields(path), fields(whole))
    if suffix == "zarr":
        assert chunks(path) == chunks(whole)


def test_an_interruption_says_how_to_go_on(tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "e.zarr", FakeEmulator(fail_after=6))
    assert "6 items are missing: the same command goes on" in caplog.text


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"emulator": FakeEmulator(model="def")}, "emulator.model: 'abc' in the store, 'def' now"),
        ({"seed": 1}, "seed: 0 in the store, 1 now"),
        ({"sampler": Sampler(steps=5)}, f"sampler.steps: {Sampler().steps} in the store, 5 now"),
        ({"sampler": "heun"}, "sampler.solver"),
        ({"data": conditions(scenario=0.5)}, "conditions.coarse"),
        ({"data": conditions(cases=3)}, "coordinate 'time'"),
        ({"batch_size": 2, "members": 4}, "batch_size: 3 in the store, 2 now"),
        ({"precision": "bfloat16", "members": 4}, "precision: 'float32' in the store, 'bfloat16' now"),
        ({"precision": "fp8", "members": 4}, "precision: 'float32' in the store, 'fp8' now"),
        ({"compile": True, "members": 4}, "compiled: False in the store, True now"),
    ],
)
def test_another_run_is_refused_by_name_and_changes_nothing(tmp_path, options, named):
    run(tmp_path / "e.zarr")
    before = chunks(tmp_path / "e.zarr")
    with pytest.raises(SciffusionError, match=named):
        run(tmp_path / "e.zarr", **options)
    assert chunks(tmp_path / "e.zarr") == before


def test_the_batch_size_of_the_store_is_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "e.zarr", FakeEmulator(fail_after=6), batch_size=3)
    again = FakeEmulator()
    run(tmp_path / "e.zarr", again, batch_size=None)
    assert again.calls == 2


def test_the_precision_of_the_store_is_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "e.zarr", FakeEmulator(fail_after=6), precision="bfloat16", compile=True)
    again = FakeEmulator()
    run(tmp_path / "e.zarr", again)
    assert again.execution == {"device": "cpu", "precision": "bfloat16", "compile": True}


def test_fp8_and_bfloat16_are_mixed_only_when_allowed_and_the_store_says_so(tmp_path):
    run(tmp_path / "e.zarr", precision="fp8")
    with pytest.raises(SciffusionError, match=r"'fp8' in the store, 'bfloat16' now\n.*allow-mixed"):
        run(tmp_path / "e.zarr", precision="bfloat16", members=4)
    run(tmp_path / "e.zarr", precision="bfloat16", members=4, allow_mixed=True)
    made = EnsembleStore(tmp_path / "e.zarr").status().executions
    assert sorted(execution["precision"] for execution in made) == ["bfloat16", "fp8"]


def test_an_ensemble_in_fp8_does_not_go_on_unnoticed_where_there_is_none(tmp_path):
    """The device may be another of the same model, as it is here: what the networks run in decides."""

    class Without(FakeEmulator):
        def precision(self, name, device):
            return "bfloat16" if name == "fp8" else super().precision(name, device)

    run(tmp_path / "e.zarr", precision="fp8")
    again = Without()
    with pytest.raises(SciffusionError, match="made in fp8, which cpu does not have"):
        run(tmp_path / "e.zarr", again, members=4)
    assert again.calls == 0
    run(tmp_path / "e.zarr", again, members=4, precision="bfloat16", allow_mixed=True)
    assert again.execution["precision"] == "bfloat16"


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_an_output_is_replaced_only_when_told_and_only_by_a_complete_one(tmp_path, suffix):
    path = run(tmp_path / f"e.{suffix}")
    before = fields(path)
    with pytest.raises(SciffusionError):
        run(path, seed=1)
    with pytest.raises(KeyboardInterrupt):
        run(path, FakeEmulator(fail_after=6), seed=1, overwrite=True)
    xr.testing.assert_identical(fields(path), before)
    again = FakeEmulator()
    run(path, again, seed=1, overwrite=True)
    assert len(again.drawn) == 6
    xr.testing.assert_equal(fields(path).drop_vars(["lat", "lon"]), expected(seed=1))
    assert os.listdir(tmp_path) == [path.name]


def test_an_abandoned_replacement_of_other_settings_is_begun_anew(tmp_path):
    path = run(tmp_path / "e.zarr")
    with pytest.raises(KeyboardInterrupt):
        run(path, FakeEmulator(fail_after=6), seed=1, overwrite=True)
    run(path, seed=2, overwrite=True)
    xr.testing.assert_equal(fields(path).drop_vars(["lat", "lon"]), expected(seed=2))
    assert os.listdir(tmp_path) == ["e.zarr"]


def test_without_resume_an_output_is_refused(tmp_path):
    run(tmp_path / "e.zarr")
    with pytest.raises(SciffusionError, match="exists already"):
        run(tmp_path / "e.zarr", resume=False)


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious").write_text("x")
    with pytest.raises(SciffusionError, match="not a Zarr store"):
        run(tmp_path / "data", overwrite=True)
    assert (tmp_path / "data/precious").read_text() == "x"


@pytest.mark.parametrize("verify", [True, False])
def test_resume_makes_damaged_items_again(tmp_path, verify):
    path = run(tmp_path / "e.zarr")
    before = chunks(path)
    flipped = path / "u/c/1/2/0/0"
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"?")
    (path / "v/c/0/0/0/0").unlink()
    again = FakeEmulator()
    run(path, again, verify=verify)
    assert sorted(again.drawn) == ([(0, 0), (2, 1)] if verify else [(0, 0)])
    assert (chunks(path) == before) == verify


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_error_in_the_middle_is_reported_and_mendable(tmp_path, monkeypatch, code):
    path, put, count = tmp_path / "e.zarr", store_chunks.write, []

    def failing(file, *args, **options):
        if "/c/" in str(file) and "/u/" in str(file):
            count.append(file)
            if len(count) > 4:
                raise OSError(code, os.strerror(code))
        return put(file, *args, **options)

    emulator = FakeEmulator()
    with monkeypatch.context() as patch:
        patch.setattr(store_chunks, "write", failing)
        with pytest.raises(SciffusionError, match=os.strerror(code)):
            run(path, emulator, members=8, batch_size=1)
    assert len(emulator.drawn) < 32  # it stopped early
    store = EnsembleStore(path)
    assert int(store.completed().sum()) == 4
    assert store.verify() == []
    xr.testing.assert_identical(fields(run(path, members=8, batch_size=1)), fields(run(tmp_path / "b.zarr", members=8)))


def test_a_single_case_without_case_dims(tmp_path):
    data = conditions().isel(time=0, drop=True)
    assert fields_without_time(run(tmp_path / "e.zarr", data=data)).u.dims == ("member", "lat", "lon")


def fields_without_time(path):
    return open_ensemble(path).load()


def test_two_case_dims_of_a_source_ensemble(tmp_path):
    ds = open_ensemble(run(tmp_path / "e.zarr", data=source_ensemble())).load()
    assert ds.u.dims == ("member", "source_member", "time", "lat", "lon")
    assert ds.source_member.values.tolist() == [10, 20]
    assert not np.array_equal(ds.u.sel(source_member=10), ds.u.sel(source_member=20))


def source_ensemble():
    return xr.concat([conditions(), conditions(scenario=1.0)], xr.Variable("source_member", [10, 20]))


def test_cases_may_be_named_one_by_one_in_any_order(tmp_path):
    cases = FakeEmulator().check(source_ensemble()).cases
    whole = open_ensemble(run(tmp_path / "whole.zarr", data=source_ensemble())).load()
    some = open_ensemble(run(tmp_path / "some.zarr", data=source_ensemble(), cases=cases[5:3:-1] + cases[0:2])).load()
    for part in (some.isel(source_member=i, time=j) for i in range(2) for j in range(2)):
        same = whole.sel(source_member=part.source_member, time=part.time)
        np.testing.assert_array_equal(part.u, same.u)


def test_cases_that_leave_holes_are_refused(tmp_path):
    cases = FakeEmulator().check(source_ensemble()).cases
    with pytest.raises(SciffusionError, match="3 cases do not fill 2 source_member x 2 time"):
        run(tmp_path / "e.zarr", data=source_ensemble(), cases=[cases[0], cases[1], cases[4]])


@pytest.mark.parametrize("members", [0, [], [1, 1], [-1]])
def test_impossible_members_are_refused(tmp_path, members):
    with pytest.raises(SciffusionError, match="members"):
        run(tmp_path / "e.zarr", members=members)


def test_conditions_outside_the_training_range_are_reported(tmp_path, caplog):
    emulator = FakeEmulator()
    check = emulator.check(conditions())
    check.outside = {case.labels: ["coarse above 300 K"] for case in check.cases * 2}
    emulator.check = lambda *_: check
    with caplog.at_level(logging.INFO, "sciffusion"):
        run(tmp_path / "e.zarr", emulator)
    assert "outside the training range in 2001-01-01T00:00:00: coarse above 300 K" in caplog.text


def test_the_fingerprint_sees_another_scenario_and_not_another_representation():
    base = conditions()
    assert fingerprint(base) == fingerprint(base.chunk({"time": 1})) == fingerprint(base.copy(deep=True))
    others = [conditions(scenario=1.0), base.isel(time=slice(3)), base.rename(coarse="fine"), base.isel(y=[1, 0])]
    assert len({fingerprint(ds) for ds in [base, *others]}) == 5


def through_writer(write, jobs, depth=1, **options):
    with Writer(write, depth=depth, **options) as writer:
        for job in jobs:
            writer.put(job)


def test_the_writer_raises_the_first_error_and_drops_the_rest():
    written = []

    def write(job):
        if job == 2:
            raise OSError("full")
        written.append(job)

    with pytest.raises(OSError, match="full"):
        through_writer(write, range(10))
    assert written == [0, 1]


def test_the_writer_finishes_what_was_put_when_interrupted():
    def jobs():
        yield 1
        raise KeyboardInterrupt

    written = []
    with pytest.raises(KeyboardInterrupt):
        through_writer(written.append, jobs(), depth=4)
    assert written == [1]


def test_several_threads_write_at_once_and_lose_nothing():
    together, written = threading.Barrier(3), []

    def write(job):
        together.wait(timeout=600)  # passes only when three threads are here
        written.append((job, threading.current_thread().name))

    through_writer(write, range(12), depth=2, threads=3)
    assert sorted(job for job, _ in written) == list(range(12))
    assert len({thread for _, thread in written}) == 3


@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_of_any_writing_thread_ends_the_run_and_keeps_what_is_complete(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(work, "THREADS", threads)
    write = EnsembleStore.write

    def failing(store, case, member, *args):
        if (case, member) == (1, 1):
            raise SciffusionError("no space left")
        write(store, case, member, *args)

    monkeypatch.setattr(EnsembleStore, "write", failing)
    with pytest.raises(SciffusionError, match="no space left"):
        run(tmp_path / "e.zarr")
    monkeypatch.undo()
    store = EnsembleStore(tmp_path / "e.zarr")
    complete = set(store.markers.complete())
    assert {(0, 0), (0, 1), (0, 2)} <= complete  # what was begun before is written
    assert (1, 1) not in complete
    assert store.verify() == []
    again = FakeEmulator()
    run(tmp_path / "e.zarr", again)
    assert set(again.drawn).isdisjoint(complete)
    xr.testing.assert_identical(fields(tmp_path / "e.zarr"), fields(run(tmp_path / "undisturbed.zarr")))


def test_what_a_killed_process_left_beside_the_output_is_cleared_up(tmp_path):
    path = run(tmp_path / "e.zarr")
    before, host = fields(path), os.uname().nodename
    path.rename(tmp_path / f".e.zarr.{host}-999999999.old")  # killed between the two renames of a replacement
    (tmp_path / f".e.zarr.{host}-999999999.new").mkdir()
    (tmp_path / f".e.zarr.{host}-{os.getpid()}.new").mkdir()  # alive: not ours to touch
    again = FakeEmulator()
    run(path, again)
    assert again.drawn == []
    xr.testing.assert_identical(fields(path), before)
    assert sorted(os.listdir(tmp_path)) == [f".e.zarr.{host}-{os.getpid()}.new", "e.zarr"]


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_ctrl_c_at_any_moment_leaves_a_store_that_goes_on(tmp_path, suffix):
    whole = run(tmp_path / f"whole.{suffix}", batch_size=3)
    _, lines = interrupted_at(0, lambda: run(tmp_path / f"again.{suffix}", batch_size=3))
    for number in range(1, 13):
        path = tmp_path / str(number) / f"e.{suffix}"
        path.parent.mkdir()
        came, _ = interrupted_at(number * lines // 13, lambda path=path: run(path, batch_size=3))
        assert came
        if path.with_name(f"{path.name}.partial").exists():
            assert EnsembleStore(path.with_name(f"{path.name}.partial")).verify() == []
        run(path)
        xr.testing.assert_identical(fields(path), fields(whole))
        assert [name for name in os.listdir(path.parent) if not name.startswith(".")] == [path.name]


def interrupted_at(number, work):
    """Call ``work``; Ctrl-C, a real signal, in its line ``number`` of this package. Whether it came; lines so far."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        count += event == "line"
        if event == "line" and count == number:
            signal.raise_signal(signal.SIGINT)
        return trace

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of a parallel run ignore it
    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True, count
    finally:
        sys.settrace(previous)
        signal.signal(signal.SIGINT, handler)
    return False, count
