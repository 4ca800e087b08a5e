"""Analogues give back a training case for its own condition, leave it out when asked, and draw as Lall & Sharma say."""

import numpy as np
import pytest
import torch

from sciffusion.fields.cases import Case
from sciffusion.stages.analogues import AnalogueStage, Remembered
from sciffusion.stages.items import Item, Prepared
from sciffusion.stages.saved import stage_from_state, state_of
from tests.stages.simple import CoarseGuess, simple_codec

CASES = 16


@pytest.fixture(scope="module")
def remembered():
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((CASES, 1, 3, 4))
    guess = np.repeat(np.repeat(coarse, 2, -1), 2, -2)
    fields = np.concatenate([guess + rng.standard_normal(guess.shape), 7 + rng.standard_normal(guess.shape)], axis=1)
    baselines = np.concatenate([guess, np.full(guess.shape, np.nan)], axis=1)
    cases = [Case((i,), {"time": i}) for i in range(CASES)]
    return [
        Remembered(case, *(part.astype(np.float32) for part in parts))
        for case, *parts in zip(cases, coarse, fields, baselines, strict=True)
    ]


def fitted(remembered, **options):
    codec = simple_codec(np.stack([r.field for r in remembered]), np.stack([r.baseline for r in remembered]))
    return AnalogueStage.fit(codec, {"coarse": CoarseGuess()}, "coarse", remembered, np.ones((3, 4)), **options)


def prepared(one, label):
    return Prepared(Case((label,), {"time": label}), {}, one.baseline, one.coarse)


def test_the_condition_of_a_training_case_gives_that_case_back(remembered):
    stage = fitted(remembered, neighbours=1)
    for one in remembered:
        case = prepared(one, "new")
        found = stage.codec.decode(stage.draw([Item(case, 0)], seed=0), one.baseline)
        np.testing.assert_allclose([found["a"][0], found["b"][0]], one.field, atol=1e-5)


def test_a_training_case_is_not_its_own_analogue_when_asked(remembered):
    left_out, kept = fitted(remembered), fitted(remembered, leave_out=False)
    for index, one in enumerate(remembered):
        assert kept.nearest(prepared(one, index))[0] == index
        assert index not in left_out.nearest(prepared(one, index))


def test_the_nearest_is_the_nearest_whatever_the_units_of_a_coarse_variable(remembered):
    one = remembered[3]
    near = Prepared(Case(("new",), {"time": "new"}), {}, one.baseline, 1000 * (one.coarse + 1e-3))
    scaled = [Remembered(r.case, 1000 * r.coarse, r.field, r.baseline) for r in remembered]
    assert fitted(scaled).nearest(near)[0] == 3


def test_members_draw_the_jth_nearest_with_a_chance_of_one_over_j(remembered):
    stage = fitted(remembered, neighbours=4)
    case = prepared(remembered[0], "new")
    order = stage.nearest(case)
    members = stage.draw([Item(case, member) for member in range(3000)], seed=5)
    counts = np.array([float((members == stage.residuals[number]).all(dim=(1, 2, 3)).sum()) for number in order])
    expected = 3000 * np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12)
    assert counts.sum() == 3000
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi-square of 3 degrees, 0.1 %


def test_a_member_depends_on_seed_case_and_number_alone(remembered):
    stage = fitted(remembered)
    items = [Item(prepared(remembered[i], f"new {i}"), m) for i in range(3) for m in range(4)]
    together = stage.draw(items, seed=2)
    alone = torch.cat([stage.draw([item], seed=2) for item in items[::-1]]).flip(0)
    assert torch.equal(together, alone)


def test_a_saved_stage_draws_the_same(remembered):
    stage = fitted(remembered)
    entry, tensors = state_of(stage)
    again = stage_from_state(entry | {"conditioners": {}}, tensors)
    item = Item(prepared(remembered[2], 2), 1)
    assert torch.equal(again.draw([item], seed=1), stage.draw([item], seed=1))
