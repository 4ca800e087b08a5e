"""Batches are a way of drawing, not part of the answer; what belongs to a case is done once per case."""

import threading
import time

import numpy as np
import pytest
import torch

from sciffusion.config import load_experiment
from sciffusion.context import Context
from sciffusion.datasets.pairs import open_experiment
from sciffusion.emulator import Emulator
from sciffusion.stages.build import build_stage
from sciffusion.stages.drawing import draws
from tests.tiny import tiny_data, tiny_experiment, write_experiment


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """An emulator with an untrained network, its conditions, and the check of five cases."""
    folder = tmp_path_factory.mktemp("tiny")
    settings = tiny_experiment(tiny_data(folder / "data.nc"), folder / "run")
    experiment = load_experiment(write_experiment(folder / "experiment.yaml", settings))
    data = open_experiment(experiment)
    emulator = Emulator([build_stage(experiment.stages[0], experiment, data)], {"recipe": "edm"})
    return emulator, emulator.check(data.conditions, {"time": slice("2020-01-02", "2020-01-03")})


def drawn(tiny, items, size=3):
    """Bytes of every item, by (case, member)."""
    emulator, check = tiny
    result = {}
    for batch in emulator.draws(check, items=items, batch_size=size, device="cpu"):
        fields = iter(batch.pairs)
        for part in batch.datasets():
            for member in range(part.sizes["member"]):
                result[next(fields)] = part["a"].isel(member=member).values.tobytes()
    return result


def test_an_item_has_the_same_bytes_whichever_items_share_its_batch(tiny):
    everything = [(case, member) for case in range(4) for member in range(3)]
    whole = drawn(tiny, everything)
    assert len(set(whole.values())) == len(everything)
    for some in ([(3, 2)], [(1, 1), (0, 0), (3, 0)], [(2, 2), (2, 0), (1, 0), (0, 1)], everything[::-1]):
        assert drawn(tiny, some).items() <= whole.items()


def test_a_case_is_encoded_once_however_many_batches_it_takes(tiny, monkeypatch):
    emulator, _ = tiny
    encode, sizes = emulator.stage.encode, []
    monkeypatch.setattr(
        emulator.stage, "encode", lambda inputs, keep, mask: sizes.append(len(keep)) or encode(inputs, keep, mask)
    )
    drawn(tiny, [(case, member) for case in range(3) for member in range(5)], size=2)
    assert sizes == [1, 1, 1]


class Slow:
    """A stage that takes its time and says when it drew."""

    def __init__(self):
        self.drawn = []

    def sample(self, items, *, seed, sampler):
        time.sleep(0.02)
        self.drawn.append(time.monotonic())
        return torch.zeros(len(items), 1, 2)


def test_the_next_case_is_read_while_the_batch_is_drawn_and_no_more_than_one(monkeypatch):
    stage, read = Slow(), {}

    def prepare(number):
        assert threading.current_thread() is not threading.main_thread()
        read[number] = time.monotonic()
        return number

    pairs = [(case, member) for case in range(4) for member in range(4)]
    for count, _ in enumerate(draws(stage, prepare, pairs, size=2, seed=0, sampler=None)):
        case = count // 2
        assert set(read) <= set(range(case + 2))
    for case in range(1, 4):
        assert read[case] < stage.drawn[2 * case - 2], "read while the first batch of the case before was drawn"


def test_a_case_that_cannot_be_read_fails_where_it_is_needed():
    def prepare(number):
        if number == 1:
            raise OSError("gone")

    batches = draws(Slow(), prepare, [(0, 0), (0, 1), (1, 0)], size=1, seed=0, sampler=None)
    assert [batch.pairs for batch in (next(batches), next(batches))] == [[(0, 0)], [(0, 1)]]
    with pytest.raises(OSError, match="gone"):
        next(batches)


def test_contexts_are_stacked_sample_after_sample():
    one = Context(channels=torch.zeros(1, 2, 3), vector=torch.ones(1, 4))
    two = one.map(lambda value: value + 2)
    both = Context.stack([one, two])
    np.testing.assert_array_equal(both.channels, torch.cat([one.channels, two.channels]))
    np.testing.assert_array_equal(both.vector[1], two.vector[0])
    assert both.valid is None
