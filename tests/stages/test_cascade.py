"""Two super-resolutions: the second is given what the first makes, with noise whose level it is told."""

import numpy as np
import pytest
import torch

from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.guidance import Thresholded
from sciffusion.networks.resample import pool
from sciffusion.stages.items import Item
from tests.stages.toy import batch_of, moved, toy


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    made = toy(tmp_path_factory.mktemp("cascade"), "cascade", "stages.denoiser.constraint=null")
    stages, data = made.build()
    for number, stage in enumerate(stages.values()):
        moved(stage, number, 1.0)
    return made, stages, data


def items_of(stages, data, members=3):
    case = stages["denoiser"].prepare(data.conditions, data.cases["test"][0])
    return [Item(case, member) for member in range(members)]


def test_the_first_stage_learns_block_means_of_unit_variance(built):
    made, stages, data = built
    batch = batch_of(made.experiment, data, stages["base"], 12)
    learned = stages["base"].learn(batch, torch.ones(12, dtype=torch.bool))
    assert learned.y.shape[2:] == (8, 12)
    np.testing.assert_allclose(learned.y.var(dim=(0, 2, 3), unbiased=False).numpy(), 1, rtol=1e-3)
    frame = stages["base"].frame
    torch.testing.assert_close(frame.value(learned.y, {}), pool(batch["z"], 2), rtol=1e-5, atol=1e-5)
    assert learned.context.channels.shape[2:] == learned.y.shape[2:]


def test_the_level_of_the_augmentation_is_an_input_and_changes_the_answer(built):
    _, stages, data = built
    stage, items = stages["denoiser"], items_of(stages, data)
    outputs = {"base": stages["base"].draw(items, seed=0, outputs={})}
    context = stage.item_context(items, outputs, 0)
    torch.testing.assert_close(context.vector[:, -1], torch.full((3,), stage.settings.augmentation.sampling))
    x, sigma = torch.randn(3, 2, 16, 24, generator=torch.Generator().manual_seed(0)), torch.ones(3)
    other = context.vector.clone()
    other[:, -1] = 0.9
    answers = [stage.denoiser(x, sigma, type(context)(context.channels, vector)) for vector in (context.vector, other)]
    assert not torch.allclose(*answers)


def test_training_levels_are_uniform_and_the_noisy_input_keeps_its_variance(built):
    made, stages, data = built
    stage = stages["denoiser"]
    batch = batch_of(made.experiment, data, stage, 12)
    torch.manual_seed(1)
    contexts = [stage.learn(batch, torch.ones(12, dtype=torch.bool)).context for _ in range(40)]
    level = torch.cat([context.vector[:, -1] for context in contexts])
    assert 0 <= float(level.min()) < 0.05 < 0.95 < float(level.max()) <= 1
    clean = stage.learn(batch, torch.ones(12, dtype=torch.bool), torch.Generator().manual_seed(0))
    again = stage.learn(batch, torch.ones(12, dtype=torch.bool), torch.Generator().manual_seed(0))
    assert torch.equal(clean.context.channels, again.context.channels)


def test_guidance_of_weight_one_is_no_guidance_and_another_is(built):
    _, stages, data = built
    stage, items = stages["denoiser"], items_of(stages, data)
    outputs = {"base": stages["base"].draw(items, seed=0, outputs={})}
    own = stage.settings.sampler

    def drawn(**changes):
        return stage.draw(items, seed=0, sampler=own.model_copy(update=changes), outputs=outputs)

    plain = drawn()
    assert torch.equal(drawn(guidance=1.0), plain)
    assert not torch.allclose(drawn(guidance=3.0), plain)
    torch.testing.assert_close(drawn(guidance=3.0, guidance_interval=(1e6, 1e7)), plain)


def test_members_of_the_second_stage_follow_those_of_the_first(built):
    _, stages, data = built
    items = items_of(stages, data)
    whole = stages["denoiser"].sample(items, seed=0)
    alone = stages["denoiser"].sample(items[2:], seed=0)
    torch.testing.assert_close(alone, whole[2:], rtol=0, atol=1e-4)


class Fixed(Denoiser):
    """Answers one field."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, sigma, cond=None):
        return self.answer


def thresholded(answer, order=0.99):
    low, high, limit = torch.tensor([-3.0]), torch.tensor([5.0]), torch.tensor([2.0])
    return Thresholded(Fixed(answer), low, high, limit, order)(answer, torch.ones(len(answer)))


def test_an_extreme_that_the_climatology_has_is_left_alone():
    x = torch.zeros(1, 1, 20, 20)
    x[0, 0, 3, 4] = 5.0
    assert torch.equal(thresholded(x), x)
    x[0, 0, 3, 4] = 6.0
    assert float(thresholded(x).max()) == 5.0


def test_a_field_beyond_every_case_is_scaled_back_as_a_whole():
    x = torch.randn(2, 1, 50, 50, generator=torch.Generator().manual_seed(0))
    x[1] *= 4
    answer = thresholded(x)
    torch.testing.assert_close(answer[0], x[0].clamp(-3, 5) if x[0].abs().quantile(0.99) < 2 else answer[0])
    torch.testing.assert_close(torch.quantile(answer[1].abs(), 0.99), torch.tensor(2.0), rtol=0.02, atol=0)
    inside = answer[1].abs() < 1
    ratio = (x[1] / answer[1])[inside]
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)


def test_the_bounds_are_those_of_the_training_cases(built):
    made, stages, data = built
    y = batch_of(made.experiment, data, stages["denoiser"], 12)["z"].flatten(2)
    low, high, limit = stages["denoiser"].bounds
    torch.testing.assert_close(low, y.amin(dim=(0, 2)))
    torch.testing.assert_close(high, y.amax(dim=(0, 2)))
    torch.testing.assert_close(limit, torch.quantile(y.abs(), 0.995, dim=2).amax(0))
