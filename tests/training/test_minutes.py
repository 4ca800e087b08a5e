"""A training that is limited in time ends then, its learning rate fallen to the end; a longer limit goes on."""

import itertools
import logging
import types

import numpy as np
import pytest
import pytorch_lightning as pl

import sciffusion as sf
from sciffusion.training.callbacks import LogLines
from tests.tiny import tiny_data, tiny_experiment

PEAK, WARMUP = 1e-2, 2


class Rates(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, *_):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.fixture
def clock(monkeypatch):
    """Whoever asks it finds that a second has gone."""
    ticks = itertools.count()
    fake = types.SimpleNamespace(monotonic=lambda: float(next(ticks)))
    monkeypatch.setattr("sciffusion.training.module.time", fake)


def trained(folder, minutes):
    settings = tiny_experiment(folder / "data.nc", folder / "run", steps=10**6, minutes=minutes, validate_every=10**6)
    settings["train"] |= {"learning_rate": PEAK, "warmup": WARMUP, "validation_members": 0}
    rates = Rates()
    emulator = sf.train(settings, progress=False, callbacks=[rates])
    return emulator.card["steps"], rates.seen


def test_time_ends_a_training_and_lowers_its_learning_rate(tmp_path, clock):
    tiny_data(tmp_path / "data.nc")
    steps, rates = trained(tmp_path, 0.25)  # 15 s
    assert steps == 16  # the first step's time is not known, so it is not counted
    # the rate of step n was set at the end of the step before, when n - 2 seconds had been counted
    share = np.maximum(np.arange(16) - 2, 0) / 15
    warm = np.minimum(1, (np.arange(16) + 1) / WARMUP)
    assert rates == pytest.approx(PEAK * warm * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * share))), rel=1e-4)

    assert trained(tmp_path, 0.25) == (16, [])  # done: not trained again
    more, rates = trained(tmp_path, 0.5)
    assert more == 16 + 16  # 15 s more, and again a first step that does not count
    assert PEAK / 3 < rates[1] < PEAK  # half the time is left


def test_a_log_line_tells_the_time_left_once_there_is_something_to_tell_it_from(monkeypatch, caplog):
    """The first step may take half a minute, because it compiles: it does not mean years."""
    clock = iter([0.0, 40.0, 70.0, 100.0])
    monkeypatch.setattr("sciffusion.training.callbacks.time.monotonic", lambda: next(clock))
    trainer = types.SimpleNamespace(global_step=1, max_steps=10**6, is_global_zero=True)
    module = types.SimpleNamespace(share=0.0, settings=types.SimpleNamespace(minutes=2.0))
    lines = LogLines()
    lines.on_train_start(trainer, module)
    with caplog.at_level(logging.INFO, logger="sciffusion"):
        for share in (1e-6, 0.25, 0.5):
            module.share = share
            lines.on_train_batch_end(trainer, module, {"loss": 0.5}, None, 0)
    said = [record.getMessage().split(", ")[-1] for record in caplog.records]
    assert said == ["just begun", "210 s left", "100 s left"]
