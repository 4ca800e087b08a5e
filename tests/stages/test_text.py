"""Latent diffusion by text: tokens change the answer, and guidance by them leaves weight 1 alone."""

import pytest
import torch
import xarray as xr

from sciffusion.conditioners import text_encoder
from sciffusion.emulator import Emulator
from tests.stages.toy import moved, toy

pytestmark = pytest.mark.skipif(not text_encoder.available(), reason="needs the extra sciffusion[text]")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    made = toy(tmp_path_factory.mktemp("text"), "latent-text", "conditions.prompt.width=16")
    stages, data = made.build()
    for number, stage in enumerate(stages.values()):
        moved(stage, number, 1.0)
    return Emulator(list(stages.values()), {"split_dim": "time"}), data


def asked(emulator, data, text, **sampler):
    coarse = data.target.isel(time=[18]).load()
    conditions = {"coarse": coarse, "clock": coarse, "prompt": xr.Dataset({"prompt": text})}
    settings = emulator.sampler().model_copy(update=sampler)
    return torch.from_numpy(emulator.sample(conditions, 2, device="cpu", sampler=settings, batch_size=2).a.values)


def test_another_text_is_another_field(emulator):
    strong, weak = (asked(*emulator, f"high a with {word} variability") for word in ("strong", "weak"))
    assert not torch.allclose(strong, weak)
    assert torch.equal(strong, asked(*emulator, "high a with strong variability"))


def test_guidance_by_the_text_of_weight_one_is_none(emulator):
    plain = asked(*emulator, "low a")
    assert torch.equal(asked(*emulator, "low a", guidance=1.0), plain)
    assert not torch.allclose(asked(*emulator, "low a", guidance=4.0), plain)
