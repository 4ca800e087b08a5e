"""Batches are a way of drawing, not part of the answer; what belongs to a case is done once per case."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from sciffusion.config import load_experiment
from sciffusion.context import Context
from sciffusion.datasets.pairs import open_experiment
from sciffusion.emulator import Emulator
from sciffusion.execution import normals
from sciffusion.noise import member_noise
from sciffusion.stages import ahead, base
from sciffusion.stages.ahead import Ahead, Batch
from sciffusion.stages.build import build_stage
from sciffusion.stages.drawing import draws
from sciffusion.stages.items import Item
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


class Stage:
    """Draws nothing, after it has waited for what ``during`` says must happen meanwhile."""

    def __init__(self, during=lambda items: None):
        self.during = during

    def sample(self, items, *, seed, sampler):
        self.during(items)
        return torch.zeros(len(items), 1, 2)


def test_the_next_case_is_read_while_the_batch_is_drawn_and_not_many_more():
    """Each draw of a case waits until the next one is read: if that began after the draw, it would never come."""
    read = [threading.Event() for _ in range(4)]

    def prepare(number):
        assert threading.current_thread() is not threading.main_thread()
        read[number].set()
        return number

    def during(items):
        for item in items:
            assert read[min(item.prepared + 1, 3)].wait(600)

    pairs = [(case, member) for case in range(4) for member in range(4)]
    for count, _ in enumerate(draws(Stage(during), prepare, pairs, size=2, seed=0, sampler=None)):
        coming = (count + 1) // 2  # the case of the next batch
        assert not any(event.is_set() for event in read[coming + 2 :])


def test_a_case_that_cannot_be_read_fails_where_it_is_needed():
    def prepare(number):
        if number == 1:
            raise OSError("gone")

    batches = draws(Stage(), prepare, [(0, 0), (0, 1), (1, 0)], size=1, seed=0, sampler=None)
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


def stochastic(emulator):
    return emulator.sampler().model_copy(update={"solver": "dpmpp-2m-sde", "steps": 4})


def test_noise_that_is_drawn_ahead_is_the_noise_of_the_key(tiny, monkeypatch):
    """Whatever may be held at a time, however many a thread draws at once; a plain list of items draws without."""
    emulator, check = tiny
    everything = [(case, member) for case in range(3) for member in range(3)]
    prepared = [emulator.stage.prepare(check.conditions, check.cases[case]) for case in range(3)]
    drawn = {}
    for budget, chunk in ((0, 1), (1 << 29, 1), (1 << 29, 1 << 16)):  # a task per item; one for all
        monkeypatch.setattr(ahead, "BUDGET", budget)
        monkeypatch.setattr(ahead, "CHUNK", chunk)
        batches = draws(emulator.stage, prepared.__getitem__, everything, size=4, seed=0, sampler=stochastic(emulator))
        drawn[budget, chunk] = torch.cat([batch.fields.wait()[: len(batch.pairs)] for batch in batches])
    for row, (case, member) in enumerate(everything):
        items = [Item(prepared[case], member)] * 4
        alone = emulator.stage.sample(items, seed=0, sampler=stochastic(emulator))[0]
        for fields in drawn.values():
            assert torch.equal(fields[row], alone)


def test_noise_is_drawn_ahead_within_the_budget(tiny, monkeypatch):
    emulator, check = tiny
    prepared = emulator.stage.prepare(check.conditions, check.cases[0])
    items = [Item(prepared, member) for member in range(3)]
    size = emulator.stage.noise(items, seed=0).nbytes
    monkeypatch.setattr(ahead, "BUDGET", 2 * size)
    with ThreadPoolExecutor(2) as pool:
        source = Ahead(pool, seed=0)
        first = Batch(items, source)
        for step in range(5):
            emulator.stage.noise(first, seed=0, step=step)
        assert [request.step for request in source.asked] == list(range(5))
        second, held = Batch(items, source), []
        for step in range(5):
            second.begin()
            held.append([request.step for request in second.held])
            emulator.stage.noise(second, seed=0, step=step)
        assert held == [[0, 1], [1, 2], [2, 3], [3, 4], [4]]


@pytest.fixture
def pretended(monkeypatch):
    """A function that lets stages believe that they are on a GPU, whose kernel is what it is given."""

    def pretend(kernel):
        monkeypatch.setattr(base.Stage, "device", torch.device("cuda", 0))
        for module in (base, normals):
            monkeypatch.setattr(module, "drawn_on", kernel)
        monkeypatch.setattr(normals, "_checked", {})

    return pretend


def test_noise_that_a_gpu_draws_is_not_drawn_ahead(tiny, pretended):
    emulator, check = tiny
    prepared = emulator.stage.prepare(check.conditions, check.cases[0])
    items, asked = [Item(prepared, member) for member in range(3)], []
    expected = emulator.stage.noise(items, seed=0, step=2, stream="solver")

    def kernel(device, members, shape):
        asked.append((device, len(members)))
        return torch.from_numpy(member_noise(members, shape))

    pretended(kernel)
    with ThreadPoolExecutor(1) as pool:
        batch = Batch(items, Ahead(pool, seed=0))
        assert torch.equal(emulator.stage.noise(batch, seed=0, step=2, stream="solver"), expected)
        batch.begin()
        assert batch.held == []
    assert asked[-1] == (torch.device("cuda", 0), 3)


def test_a_gpu_with_a_wrong_bit_draws_nothing(tiny, pretended):
    emulator, check = tiny
    prepared = emulator.stage.prepare(check.conditions, check.cases[0])
    items = [Item(prepared, member) for member in range(3)]
    expected = emulator.stage.noise(items, seed=0)
    pretended(lambda device, members, shape: torch.from_numpy(-member_noise(members, shape)))
    assert torch.equal(emulator.stage.noise(items, seed=0), expected)


def test_arrays_of_an_item_are_those_of_its_dataset(tiny):
    emulator, check = tiny
    pairs = [(0, 0), (0, 1), (1, 0)]
    (batch,) = emulator.draws(check, items=pairs, batch_size=3, device="cpu")
    parts = {(case, int(m)): part.sel(member=m) for case, part in enumerate(batch.datasets()) for m in part.member}
    for row, pair in enumerate(pairs):
        for name, values in batch.arrays(row).items():
            np.testing.assert_array_equal(values, parts[pair][name].squeeze().values)
