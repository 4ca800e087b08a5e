"""Callbacks of the family table: one row trains at a time, sampling comes first, a loss that is NaN ends a row."""

import fcntl
import threading
import time
from pathlib import Path

import pytest

import sciffusion as sf
from tests.tiny import tiny_data, tiny_experiment

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def turns(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import families_turn

    return families_turn


def experiment(folder, **train):
    return tiny_experiment(tiny_data(folder / "data.nc"), folder / "run", validation_members=0, **train)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path, turns, monkeypatch):
    monkeypatch.setattr(turns, "CHECKED", 3)
    fine = experiment(tmp_path, steps=4, validate_every=4)
    sf.train(fine, progress=False, callbacks=[turns.Finite()])
    bad = experiment(tmp_path, steps=8, validate_every=8, learning_rate=1e30, warmup=0)
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step [36]"):
        sf.train(bad, progress=False, callbacks=[turns.Finite()], overwrite=True)


def test_cases_are_read_before_the_first_step(tmp_path, turns):
    class Look(turns.pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            self.read = len(trainer.train_dataloader._present)
            trainer.should_stop = True

    look = Look()
    sf.train(experiment(tmp_path, steps=2), progress=False, callbacks=[turns.Warm(), look])
    assert look.read == 12


class Clock:
    """Stands still until told; whoever sleeps is asleep until ``awake``."""

    def __init__(self):
        self.now, self.asleep, self.awake = 0.0, threading.Event(), threading.Event()

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.asleep.set()
        assert self.awake.wait(600)
        time.sleep(0.001)


def held(path):
    """Whether somebody holds a lock on the file."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_trainings_wait_for_each_other_and_for_sampling(tmp_path, turns, monkeypatch):
    clock, order = Clock(), []
    monkeypatch.setattr(turns, "time", clock)
    one, other, third = (turns.Turn(tmp_path / "gpu.lock", tmp_path / name) for name in "abc")

    def trains(turn, name):
        turn.on_train_batch_end(None)
        order.append(name)
        turn.on_train_end(None, None)

    def samples(turn):
        with turn.first():
            order.append("samples")

    one.on_train_batch_end(None)  # trains
    waiting = [threading.Thread(target=trains, args=(other, "trains")), threading.Thread(target=samples, args=(third,))]
    waiting[0].start()
    assert clock.asleep.wait(600)  # waits for its turn
    waiting[1].start()
    while not held(tmp_path / "gpu.short"):
        time.sleep(0.001)
    assert order == []
    clock.now = 7.0
    one.on_train_end(None, None)
    clock.awake.set()
    for thread in waiting:
        thread.join()
    assert order == ["samples", "trains"]  # though it asked later
    assert one.seconds == 7
    assert other.seconds == 0  # waiting is not training


def test_seconds_of_a_run_that_goes_on_count(tmp_path, turns, monkeypatch):
    monkeypatch.setattr(turns, "time", clock := Clock())
    run = tmp_path / "run"
    run.mkdir()
    for spent in (7, 5):
        turn = turns.Turn(tmp_path / "gpu.lock", run)
        turn.on_train_batch_end(None)
        clock.now += spent
        turn.on_train_end(None, None)
    assert turns.Turn(tmp_path / "gpu.lock", run).seconds == 12
    run.rmdir()
    assert turns.Turn(tmp_path / "gpu.lock", run).seconds == 0  # another run of that name
