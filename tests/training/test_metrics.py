"""The file of losses goes on where a resumed training does; validation is shared out among processes."""

import csv
import os
import traceback
from collections import Counter

import pytest
import pytorch_lightning as pl
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sciffusion.training.callbacks import Bar
from sciffusion.training.chain import leads
from sciffusion.training.data import share_of
from sciffusion.training.denoising import DenoiserModule
from sciffusion.training.metrics import MetricsFile
from sciffusion.training.run import train
from tests.tiny import tiny_data, tiny_experiment


def logged(path, resumed, *rows):
    file = MetricsFile(path, resumed)
    for step, row in rows:
        file.log_metrics(row, step - 1)  # as Lightning counts
    return path.read_text().splitlines()


def test_a_resumed_training_keeps_the_rows_of_the_steps_before_its_checkpoint(tmp_path):
    path = tmp_path / "denoiser" / "metrics.csv"
    rows = [(10, {"loss": 1.0, "epoch": 0}), (10, {"valid": 3.0}), (20, {"loss": 0.5}), (30, {"loss": 0.25})]
    first = logged(path, 0, *rows)
    assert first == ["step,loss,valid", "10,1.0,", "10,,3.0", "20,0.5,", "30,0.25,"]
    assert logged(path, 20, (30, {"loss": 0.125})) == [*first[:-1], "30,0.125,"]
    assert logged(path, 0, (10, {"loss": 2.0})) == ["step,loss", "10,2.0"]  # no checkpoint: another training


def test_a_line_that_a_kill_has_cut_is_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    logged(path, 0, (10, {"loss": 1.0}))
    path.write_text(path.read_text() + "20,0.")
    assert logged(path, 20, (30, {"loss": 0.5})) == ["step,loss", "10,1.0", "30,0.5"]


def test_the_file_is_not_touched_before_there_is_something_to_log(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n10,1.0\n")
    MetricsFile(path, 0)
    assert path.read_text() == "step,loss\n10,1.0\n"


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_case_is_validated_by_its_process_and_all_have_as_many(count, world):
    shares = [share_of(count, rank, world) for rank in range(world)]
    assert {len(share) for share in shares} == {-(-count // world)}
    own = Counter(number for rank, share in enumerate(shares) for number in share if number % world == rank)
    assert own == Counter(range(count))


def test_figures_are_means_over_all_validation_cases(tmp_path, monkeypatch):
    monkeypatch.setattr(DenoiserModule, "validation_losses", lambda *words: {"loss": torch.tensor(4.0 ** words[-1])})
    data = tiny_data(tmp_path / "data.nc")
    experiment = tiny_experiment(data, tmp_path / "run", steps=2, validate_every=2, validation_members=0)
    experiment["split"]["validation"] = [["2020-01-04T00:00", "2020-01-04T12:00"]]
    train(experiment, progress=False)
    rows = csv.DictReader((tmp_path / "run" / "metrics" / "denoiser" / "metrics.csv").open())
    assert [float(row["validation/loss"]) for row in rows if row["validation/loss"]] == [(1 + 4 + 16) / 3]


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "SLURM_PROCID": "1", "LOCAL_RANK": "0"}, True),  # torchrun numbers nodes as it likes
        ({"RANK": "2", "SLURM_PROCID": "0", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "3", "LOCAL_RANK": "0"}, False),
        (
            {"SLURM_PROCID": "0", "NODE_RANK": "0", "LOCAL_RANK": "1"},
            False,
        ),  # Lightning's, in srun --pty
    ],
)
def test_one_process_leads_whoever_started_them(monkeypatch, environment, first):
    for name in ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setitem(os.environ, name, value)
    assert leads() is first


class Reads(TorchDispatchMode):
    """Counts the numbers that are read from tensors, which waits for a GPU; but Adam's own, which are on the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.count += not any(frame.filename.endswith("adam.py") for frame in traceback.extract_stack(limit=12))
        return function(*args, **(kwargs or {}))


class Watch(pl.Callback):
    """Counts them from the end of one step to that of another."""

    def __init__(self, first, last):
        self.steps, self.reads = (first, last), Reads()

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step in self.steps:
            self.reads.__enter__() if trainer.global_step == self.steps[0] else self.reads.__exit__(None, None, None)


@pytest.mark.parametrize("progress", [False, True])
def test_no_step_but_every_tenth_waits_for_the_device(tmp_path, progress):
    experiment = tiny_experiment(tiny_data(tmp_path / "data.nc"), tmp_path / "run", steps=20, validate_every=20)
    watch = Watch(11, 19)
    train(experiment, progress=progress, callbacks=[watch])
    assert watch.reads.count == 0


def test_the_bar_moves_and_has_a_loss_from_the_first_step_on(tmp_path, monkeypatch):
    """However long a step takes."""
    shown, own = [], Bar.get_metrics
    monkeypatch.setattr(Bar, "get_metrics", lambda *args: shown.append(own(*args)) or shown[-1])
    experiment = tiny_experiment(tiny_data(tmp_path / "data.nc"), tmp_path / "run", steps=12, validate_every=12)
    train(experiment, progress=True)
    losses = [metrics["train/loss"] for metrics in shown][:12]
    assert len(losses) == 12
    assert len(set(losses[:9])) == 1
    assert losses[9] != losses[8]
    assert not any("v_num" in metrics for metrics in shown)

    shown.clear()
    train(experiment | {"train": experiment["train"] | {"steps": 15}}, progress=True)
    before, *resumed = [metrics.get("train/loss") for metrics in shown][:4]
    assert before is None
    assert len(resumed) == 3
    assert len(set(resumed)) == 1
    assert resumed[0] not in (None, *losses)
