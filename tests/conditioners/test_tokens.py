"""Conditions as tokens: of a coarse field, of a text; and several coarse inputs at once."""

import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion import config
from sciffusion.caches import VARIABLE
from sciffusion.conditioners import text_encoder
from sciffusion.conditioners.base import load_conditioner
from sciffusion.conditioners.coarse import CoarseField
from sciffusion.conditioners.coarse_tokens import CoarseTokens
from sciffusion.conditioners.text import Text
from sciffusion.errors import SciffusionError

KEEP = torch.tensor([True, False])
needs_encoder = pytest.mark.skipif(not text_encoder.available(), reason="needs the extra sciffusion[text]")


def twice(inputs):
    return {name: torch.from_numpy(np.stack([value, value])) for name, value in inputs.items()}


def coarse_tokens(training):
    settings = config.CoarseTokens(variables=["u", "v"], factor=4, patch=6, width=16)
    return CoarseTokens.build("coarse", settings, None, training)


def test_a_coarse_field_gives_a_token_per_patch_and_no_channels(training):
    conditioner = coarse_tokens(training)
    context = conditioner(twice(conditioner.prepare(training.data, training.cases[0])), KEEP)
    assert conditioner.channels == 0
    assert context.channels is None
    assert context.tokens.shape == (2, 4 * 6, 16)
    assert context.token_mask.sum(1).tolist() == [24, 1]
    torch.testing.assert_close(context.tokens[1, 0], conditioner.embed.null)


def test_tokens_follow_the_coarse_field_and_know_their_place(training):
    conditioner = coarse_tokens(training)
    inputs = twice(conditioner.prepare(training.data, training.cases[0]))
    keep = torch.ones(2, dtype=torch.bool)
    before = conditioner(inputs, keep).tokens
    assert not torch.allclose(before[0, 0], before[0, 1])
    changed = {"channels": inputs["channels"].clone()}
    changed["channels"][0, 0, :6, :6] += 3.0
    after = conditioner(changed, keep).tokens
    assert (after - before).abs().amax(dim=2)[0].gt(1e-6).nonzero().flatten().tolist() == [0]


def test_coarse_tokens_travel_with_their_model(training):
    conditioner = coarse_tokens(training)
    again = load_conditioner(*conditioner.state(), training.grid)
    inputs = twice(conditioner.prepare(training.data, training.cases[1]))
    torch.testing.assert_close(again(inputs, KEEP).tokens, conditioner(inputs, KEEP).tokens)


def test_several_coarse_fields_of_different_grids_serve_together(training):
    """A condition per source: each has its own grid, channels and standardisation."""
    coarse = [
        CoarseField.build(f"c{factor}", config.CoarseField(variables=names, factor=factor), None, training)
        for factor, names in ((4, ["u"]), (6, ["t", "v"]))
    ]
    fields = [c.prepare(training.data, training.cases[0])["channels"] for c in coarse]
    assert coarse[0].coarse_grid.shape != coarse[1].coarse_grid.shape
    assert [f.shape[1:] for f in fields] == [training.grid.shape] * 2
    assert [len(f) for f in fields] == [c.channels for c in coarse] == [1 + 4, 2 + 4]


@needs_encoder
def test_texts_are_made_of_the_regimes_of_the_training_cases(training):
    conditioner = Text.build("prompt", config.Text(regimes=["t"], tokens=12, width=16), training.data, training)
    texts = [conditioner.text(training.data, case) for case in training.cases]
    means = training.data.t.weighted(np.cos(np.deg2rad(training.data.latitude))).mean(["latitude", "longitude"])
    assert texts[int(means.argmin())].startswith("low t with ")
    assert texts[int(means.argmax())].startswith("high t with ")
    again = load_conditioner(*conditioner.state(), training.grid)
    assert again.text(training.data, training.cases[0]) == texts[0]


@needs_encoder
def test_a_text_of_one_s_own_is_taken_as_it_is(training):
    conditioner = Text.build("prompt", config.Text(regimes=["t"], tokens=12, width=16), training.data, training)
    words, notes = conditioner.accept(xr.Dataset({"prompt": "a storm in the north"}))
    assert conditioner.text(words, training.cases[0]) == "a storm in the north"
    assert notes == []
    with pytest.raises(SciffusionError, match="no variable 'prompt'"):
        conditioner.accept(xr.Dataset({"x": 1.0}))
    inputs = twice(conditioner.prepare(words, training.cases[0]))
    context = conditioner(inputs, KEEP)
    assert context.token_mask.sum(1).tolist() == [7, 1]  # [CLS] a storm in the north [SEP]
    assert inputs["tokens"].shape == (2, 12, text_encoder.WIDTH)


@needs_encoder
def test_the_encoder_tells_opposites_and_likes_apart():
    def sentence(text):
        features, mask = text_encoder.encode(text, 16)
        mean = features[mask].mean(0)
        return mean / np.linalg.norm(mean)

    storm, gale, calm = map(sentence, ("a violent storm", "a severe gale", "a bowl of fruit"))
    assert storm @ gale > storm @ calm + 0.2


@pytest.fixture
def no_encoder(monkeypatch, tmp_path):
    """A machine without the encoder, whose cache is empty."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(text_encoder, "available", lambda: False)
    text_encoder.encode.cache_clear()
    yield
    text_encoder.encode.cache_clear()


def test_a_text_that_was_met_needs_no_encoder(monkeypatch, no_encoder):
    features, mask = np.random.default_rng(0).standard_normal((4, text_encoder.WIDTH), np.float32), np.arange(4) < 3
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(text_encoder, "_computed", lambda text, tokens: (features, mask))
        text_encoder.encode("a storm", 4)
    text_encoder.encode.cache_clear()
    text_encoder.require()
    kept = text_encoder.encode("a storm", 4)
    np.testing.assert_array_equal(kept[0], features)
    np.testing.assert_array_equal(kept[1], mask)
    for other in ("a gale", 4), ("a storm", 5):
        with pytest.raises(SciffusionError, match=r"was not met before\n.*sciffusion\[text\]"):
            text_encoder.encode(*other)


def test_without_the_encoder_the_mend_is_named(no_encoder, training):
    with pytest.raises(SciffusionError, match=r"sciffusion\[text\]"):
        Text.build("prompt", config.Text(), training.data, training)
