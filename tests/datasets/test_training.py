"""Training samples: windows of the whole, symmetric, cached or not, and the same after a restart."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sciffusion import config, registry
from sciffusion.conditioners.base import Training
from sciffusion.datasets import StepSampler, TrainingCases, open_experiment
from sciffusion.datasets.draws import Draw, DrawSpace
from sciffusion.datasets.resident import Resident
from sciffusion.errors import SciffusionError
from sciffusion.fields.fit import fit_codec
from sciffusion.fields.grid import Grid
from sciffusion.fields.variables import stack, target_variables
from sciffusion.memory import available_memory
from tests.datasets.conftest import globe, settings, write

STILL = {"roll": (0, 0), "mirror": (False, False)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data, codec and conditioners of the experiment."""
    folder = tmp_path_factory.mktemp("experiment")
    write(folder)
    experiment = settings(folder)
    data = open_experiment(experiment)
    cases = data.cases["train"]
    training = Training(experiment.target, data.target, data.grid, cases)
    conditioners = {
        name: registry.get("conditioners", how.kind).build(name, how, data.conditions[name], training)
        for name, how in experiment.conditions.items()
    }
    target = experiment.target
    variables = target_variables(data.target, target.variables, target.dims)
    pairs = [
        (
            stack(data.target.isel(case.indices), variables, data.grid),
            conditioners["coarse"].baseline(data.target, case),
        )
        for case in cases
    ]
    return data, fit_codec(pairs, variables, data.grid), conditioners


def samples(made, **options):
    data, codec, conditioners = made
    return TrainingCases(data, codec, conditioners, data.experiment.target, baseline="coarse", **options)


def leaves(item):
    """Dotted name -> tensor."""
    flat = {key: value for key, value in item.items() if key != "inputs"}
    for name, inputs in item["inputs"].items():
        flat |= {f"{name}.{key}": value for key, value in inputs.items()}
    return flat


def on_grid(item):
    return {key: value for key, value in leaves(item).items() if value.ndim == 3}


def test_a_sample_is_complete_and_finite(made):
    item = samples(made)[1]
    assert item["z"].shape == item["valid"].shape == item["mask"].shape == (2, 19, 36)
    assert set(leaves(item)) == {
        *("case", "fold", "z", "valid", "mask", "area"),
        *("coarse.channels", "land.channels", "forcing.vector", "clock.channels", "clock.vector", "where.channels"),
    }
    assert all(torch.isfinite(value.float()).all() for value in leaves(item).values())
    assert float(item["area"].mean()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("corner", [(0, 0), (11, 5), (3, 30)])
@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_crop_is_the_window_of_the_whole_also_across_the_date_line(made, corner, cache):
    whole = on_grid(samples(made, cache="none")[2])
    cut = samples(made, crop={"latitude": 8, "longitude": 12}, cache=cache)[Draw(2, corner, **STILL)]
    rows, columns = np.arange(corner[0], corner[0] + 8), np.arange(corner[1], corner[1] + 12) % 36
    for name, value in on_grid(cut).items():
        assert value.shape[1:] == (8, 12)
        assert torch.equal(value, whole[name][:, rows][:, :, columns]), name


@pytest.mark.parametrize("crop", [None, {"longitude": 18}, {"latitude": 7, "longitude": 10}])
def test_a_cache_changes_no_byte(made, crop):
    augment = config.Augment(roll=["longitude"], mirror=["latitude"])
    kept, read = (samples(made, crop=crop, augment=augment, cache=cache) for cache in ("memory", "none"))
    assert kept.cached
    assert not read.cached
    for draw in chain.from_iterable(StepSampler(kept.space, 4, seed=1, steps=4)):
        one, two = leaves(kept[draw]), leaves(read[draw])
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("crop", [None, {"longitude": 18}, {"latitude": 7, "longitude": 10}])
@pytest.mark.parametrize("mirror", [[], ["latitude"], ["latitude", "longitude"]])
def test_batches_on_the_device_are_those_of_a_loader(made, crop, mirror):
    augment = config.Augment(roll=["longitude"] if mirror else [], mirror=mirror)
    cases = samples(made, crop=crop, augment=augment, cache="memory")
    order = StepSampler(cases.space, 4, seed=1, steps=4)
    for one, two in zip(
        Resident(cases, torch.device("cpu"), order), DataLoader(cases, batch_sampler=order), strict=True
    ):
        one, two = leaves(one), leaves(two)
        assert one.keys() == two.keys()
        assert all(one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one)


def test_samples_are_kept_on_the_device_where_they_fit(made, monkeypatch):
    cases, device = samples(made, cache="memory"), torch.device("cpu")
    for free, expected in ((4 * cases.bytes, True), (cases.bytes, False)):
        monkeypatch.setattr("sciffusion.datasets.resident.free_bytes", lambda _, free=free: free)
        assert Resident.fits(cases, device) is expected
    monkeypatch.undo()
    assert not Resident.fits(samples(made, cache="none"), device)


def test_the_cache_is_left_out_when_memory_is_short(made, monkeypatch):
    monkeypatch.setattr("sciffusion.datasets.training.available_memory", lambda: 2**30)
    cases = samples(made)
    assert cases.cached
    for free, workers, expected in ((4 * cases.bytes, 0, True), (4 * cases.bytes, 2, False), (cases.bytes, 0, False)):
        monkeypatch.setattr("sciffusion.datasets.training.available_memory", lambda free=free: free)
        assert samples(made, workers=workers).cached is expected
    assert available_memory() > 2**20


def test_a_roll_moves_every_field_by_the_same_cells(made):
    cases = samples(made)
    still, rolled = cases[0], cases[Draw(0, (0, 0), (0, 7), (False, False))]
    for name, value in on_grid(rolled).items():
        assert torch.equal(value, torch.roll(on_grid(still)[name], 7, 2)), name
    assert torch.equal(rolled["inputs"]["forcing"]["vector"], still["inputs"]["forcing"]["vector"])


def test_the_mirror_image_is_that_of_a_mirrored_world(made):
    """sin(latitude), solar time and area stay; v changes sign; the season is the other one."""
    cases = samples(made)
    still, mirrored = cases[0], cases[Draw(0, (0, 0), (0, 0), (True, False))]
    assert torch.equal(mirrored["z"], torch.flip(still["z"], (1,)) * torch.tensor([-1.0, 1.0])[:, None, None])
    assert torch.equal(mirrored["valid"], torch.flip(still["valid"], (1,)))
    np.testing.assert_allclose(mirrored["inputs"]["where"]["channels"], still["inputs"]["where"]["channels"], atol=2e-6)
    np.testing.assert_allclose(mirrored["area"], still["area"], rtol=1e-5)
    np.testing.assert_allclose(mirrored["inputs"]["clock"]["channels"], still["inputs"]["clock"]["channels"])
    np.testing.assert_allclose(mirrored["inputs"]["clock"]["vector"], -still["inputs"]["clock"]["vector"])
    coarse, before = (item["inputs"]["coarse"]["channels"] for item in (mirrored, still))
    assert torch.equal(coarse[0], -torch.flip(before[0], (0,)))
    assert torch.equal(coarse[1], torch.flip(before[1], (0,)))


def test_mirroring_commutes_with_reading_a_mirrored_file(made):
    """Augmenting a sample gives what the same sample of the mirrored data would be (baseline, codec and all)."""
    cases = samples(made)
    draw = Draw(1, (0, 0), (0, 0), (True, False))
    mirrored = cases[draw]["inputs"]["coarse"]["channels"]
    flipped = globe()
    flipped["v"].values[:] = -flipped["v"].values[:, ::-1]
    flipped["t"].values[:] = flipped["t"].values[:, ::-1]
    direct = cases.conditioners["coarse"].prepare(flipped, cases.cases[1])["channels"]
    np.testing.assert_allclose(mirrored, direct, atol=1e-4)


def space(**options):
    grid = Grid.from_dataset(globe(), ("latitude", "longitude"), "sphere", ("longitude",))
    augment = config.Augment(roll=["longitude"], mirror=["latitude"])
    return DrawSpace.of(5, grid, options.get("crop"), augment)


def test_a_resumed_run_draws_what_the_undisturbed_run_would_have():
    whole = list(StepSampler(space(), 8, seed=3, steps=20))
    assert list(StepSampler(space(), 8, seed=3, steps=20, start_step=13)) == whole[13:]
    assert list(StepSampler(space(), 8, seed=4, steps=20)) != whole


def test_processes_share_the_batch_of_one_process():
    whole = list(StepSampler(space(), 8, seed=3, steps=6))
    parts = [list(StepSampler(space(), 8, seed=3, steps=6, rank=rank, world=4)) for rank in range(4)]
    for step, batch in enumerate(whole):
        assert sorted(map(repr, chain.from_iterable(part[step] for part in parts))) == sorted(map(repr, batch))
    with pytest.raises(SciffusionError, match="multiple of 3"):
        StepSampler(space(), 8, seed=3, steps=6, world=3)


def test_every_case_comes_once_before_any_comes_again():
    draws = list(chain.from_iterable(StepSampler(space(), 4, seed=0, steps=25)))
    for epoch in range(20):
        assert sorted(draw.case for draw in draws[5 * epoch : 5 * epoch + 5]) == list(range(5))
    assert len({tuple(draw.case for draw in draws[5 * epoch : 5 * epoch + 5]) for epoch in range(20)}) > 10


def test_where_only_the_case_is_drawn_it_is_the_same_case():
    whole = DrawSpace(5, (6, 8), (6, 8), (True, False), (False, False), (False, False))
    rolled = replace(whole, rolls=(True, False))
    plain, others = whole.draw(3, step=2, count=20), rolled.draw(3, step=2, count=20)
    assert plain == [replace(other, roll=(0, 0)) for other in others] == [whole.plain(one.case) for one in plain]
    assert len({other.roll for other in others}) > 4  # of 6, each sample its own


def test_windows_and_symmetries_cover_what_they_may():
    draws = list(chain.from_iterable(StepSampler(space(crop={"latitude": 7}), 16, seed=0, steps=100)))
    assert {draw.corner[0] for draw in draws} == set(range(19 - 7 + 1))
    assert {draw.corner[1] for draw in draws} == {0}
    assert {draw.roll[1] for draw in draws} == set(range(36))
    assert {draw.mirror for draw in draws} == {(False, False), (True, False)}
    cropped = list(chain.from_iterable(StepSampler(space(crop={"longitude": 18}), 16, seed=0, steps=100)))
    assert {draw.corner[1] for draw in cropped} == set(range(36))
    assert {draw.roll for draw in cropped} == {(0, 0)}


def test_workers_read_the_same_bytes_through_files_of_their_own(made):
    cases = samples(made, crop={"longitude": 18}, cache="none")
    sampler = StepSampler(cases.space, 4, seed=2, steps=3)
    alone, workers = (list(DataLoader(cases, batch_sampler=sampler, num_workers=n)) for n in (0, 2))
    for one, two in zip(alone, workers, strict=True):
        assert one["z"].shape == (4, 2, 19, 18)
        assert torch.equal(one["z"], two["z"])
        assert torch.equal(one["inputs"]["coarse"]["channels"], two["inputs"]["coarse"]["channels"])
