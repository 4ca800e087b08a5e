"""Codes of fields: they round-trip, keep what the loss asks for, and say on the card what they lose."""

import json

import numpy as np
import pytest
import torch

from sciffusion.emulator import load
from sciffusion.generation import held_out
from sciffusion.networks.autoencoder import Autoencoder
from sciffusion.networks.resample import enlarge, pool
from sciffusion.stage_settings import AutoencoderSettings
from sciffusion.stages.items import Item
from sciffusion.training import train
from sciffusion.training.coding import AutoencoderModule
from sciffusion.training.reconstruction import code_size, reconstruction_error, spectral_distance
from tests.stages.toy import batch_of, moved, toy
from tests.synthetic import field


@pytest.mark.parametrize(
    ("size", "boundary"), [((9, 14), ("reflect", "periodic")), ((17,), ("periodic",)), ((5, 6, 7), ("reflect",) * 3)]
)
@pytest.mark.parametrize("settings", [{}, {"shortcuts": True}, {"vector": 5, "cells": 2}])
def test_a_code_of_any_grid_decodes_to_its_size(size, boundary, settings):
    own = AutoencoderSettings(channels=4, multipliers=[1, 2], blocks=1, latent=3, **settings)
    network = Autoencoder(2, rank=len(size), boundary=boundary, settings=own)
    x = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0))
    mean, spread = network.encode(x)
    assert mean.shape == spread.shape == (2, *network.code_shape(size))
    assert network.decode(mean, size).shape == x.shape


def test_every_channel_of_a_field_has_as_much_room_in_the_code():
    """Four cells of each into 3 numbers, whether there are two or five."""
    own = AutoencoderSettings(channels=4, multipliers=[1, 2], blocks=1, latent=3)
    for channels in (2, 5):
        network = Autoencoder(channels, rank=2, boundary=("reflect",) * 2, settings=own)
        assert network.code_shape((8, 12)) == (3 * channels, 4, 6)


def test_shortcuts_carry_a_constant_through_all_levels():
    """With the convolutions at zero only the shortcuts are left: folding, averaging, repeating, unfolding."""
    own = AutoencoderSettings(channels=4, multipliers=[1, 2, 4], blocks=1, shortcuts=True)
    network = Autoencoder(1, rank=2, boundary=("periodic",) * 2, settings=own)
    h = torch.full((1, 16, 4, 4), 2.0)
    assert torch.equal(network._unfolded(h, 2, (8, 8)), torch.full((1, 8, 8, 8), 2.0))
    assert torch.equal(network._folded(network._unfolded(h, 2, (8, 8)), 1), h)


def test_block_means_are_kept_by_pooling_and_linear_fields_by_enlarging():
    x = torch.arange(24.0).reshape(1, 1, 24)
    means = pool(x, 4)
    assert means[0, 0].tolist() == [1.5, 5.5, 9.5, 13.5, 17.5, 21.5]
    inner = enlarge(means, 4, (24,), ("reflect",))[0, 0, 2:-2]
    torch.testing.assert_close(inner, x[0, 0, 2:-2])
    assert pool(torch.ones(1, 1, 5, 7), 4).tolist() == [[[[1, 1], [1, 1]]]]  # incomplete blocks
    turn = torch.roll(means, 1, dims=2)
    shifted = enlarge(turn, 4, (24,), ("periodic",))
    torch.testing.assert_close(shifted, torch.roll(enlarge(means, 4, (24,), ("periodic",)), 4, dims=2))


def test_the_spectral_distance_is_the_log_ratio_of_power_and_blind_to_phase():
    x = torch.from_numpy(field(np.random.default_rng(0), (16, 24), 2.0, 3))[:, None]
    torch.testing.assert_close(spectral_distance(2 * x, x), torch.full((3,), np.log(4.0) ** 2), rtol=1e-3, atol=0)
    assert float(spectral_distance(x.roll(5, dims=2), x).max()) < 1e-6


def test_tails_count_more_and_a_standard_code_costs_nothing():
    x = torch.tensor([[[0.0, 4.0]]])
    torch.testing.assert_close(reconstruction_error(x + 1, x, tails=0.5), torch.tensor([(1 + 1 * (1 + 0.5 * 2)) / 2]))
    zero = torch.zeros(2, 3, 4)
    assert code_size(zero, zero).tolist() == [0.0, 0.0]
    torch.testing.assert_close(code_size(zero + 2, zero), torch.full((2,), 2.0))


def test_training_brings_a_code_back_to_its_field(tmp_path):
    """Enough latent channels to hold everything: the error falls well below the field's variance of 1."""
    made = toy(
        tmp_path, "latent", "stages.autoencoder.network.multipliers=[1, 2]", "stages.autoencoder.network.latent=8"
    )
    stages, data = made.build()
    stage = stages["autoencoder"]
    module, batch = AutoencoderModule(stage, made.experiment.train), batch_of(made.experiment, data, stage, 8)
    optimizer = torch.optim.Adam(stage.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(150):
        optimizer.zero_grad()
        module.loss(batch).backward()
        optimizer.step()
    error = (stage.eval().truth(batch) - batch["z"]).square().mean()
    assert float(error) < 0.25


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = toy(tmp_path_factory.mktemp("latent"), "latent")
    train(made.experiment, progress=False)
    return made


def test_the_reconstruction_floor_is_on_the_card(run):
    card = json.loads((run.folder / "emulator/model.json").read_text())["card"]
    floor = card["reconstruction_floor"]["autoencoder"]
    assert set(floor) == {"a", "b"}
    emulator = load(run.folder)
    stage = emulator.stages[0]
    _, data = run.build()
    case = data.cases["validation"]
    errors = []
    for one in case:
        prepared = stage.prepare(data.conditions, one)
        z, _ = stage.codec.encode(stage.codec.stack(data.target.sel(time=one.values["time"])), prepared.baseline)
        rebuilt = stage.decode(stage.truth({"z": z[None]}).detach(), prepared, [0])
        errors.append(float(np.abs(rebuilt.a.squeeze() - data.target.a.sel(time=one.values["time"])).mean()))
    assert floor["a"]["crps"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert floor["a"]["ralsd"] > 0


def test_members_are_drawn_in_the_code_and_decoded(run):
    emulator = load(run.folder)
    assert emulator.stage.output_shape == (8, 4, 6)  # 4 of each variable
    check = emulator.check(*held_out(run.folder))
    two = emulator.sample(check, 2, device="cpu", batch_size=2)
    one = emulator.sample(check, [1], device="cpu", batch_size=1)
    assert float(two.a.std("member").min()) > 0
    np.testing.assert_allclose(one.a[0], two.a[1], atol=1e-4)
    means = two.a.coarsen(y=4, x=4).mean().transpose("member", "time", "y", "x")
    wanted = check.conditions["coarse"].a.sel(time=two.time).coarsen(y=4, x=4).mean()
    np.testing.assert_allclose(means, np.broadcast_to(wanted, means.shape), atol=2e-4)  # the constraint, after decoding


def test_the_code_has_unit_variance_in_its_frame(run):
    stages, data = run.build()
    batch = batch_of(run.experiment, data, stages["denoiser"], 12)
    y = stages["denoiser"].learn(batch, torch.ones(12, dtype=torch.bool)).y
    np.testing.assert_allclose(y.mean(dim=(0, 2, 3)).numpy(), 0, atol=1e-4)
    np.testing.assert_allclose(y.var(dim=(0, 2, 3), unbiased=False).numpy(), 1, rtol=1e-3)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    made = toy(tmp_path_factory.mktemp("prior"), "prior-decoder")
    stages, data = made.build()
    for number, stage in enumerate(stages.values()):
        moved(stage, number, 1.0)
    return made, stages, data


def test_the_prior_s_embedding_varies_between_members_and_carries_spread(prior, monkeypatch):
    _, stages, data = prior
    decoder = stages["denoiser"]
    case = decoder.prepare(data.conditions, data.cases["test"][0])
    items = [Item(case, member) for member in range(4)]
    embeddings = stages["prior"].draw(items, seed=0, outputs={})
    assert float(embeddings.std(dim=0).mean()) > 0
    # the same noise in the decoder for all members: what is left of the spread is the embedding's
    same = decoder.noise([items[0]] * 4, seed=0)
    monkeypatch.setattr(decoder, "noise", lambda *_, **__: same)
    spread = decoder.draw(items, seed=0, outputs={"prior": embeddings}).std(dim=0).mean()
    none = decoder.draw(items, seed=0, outputs={"prior": embeddings[:1].expand_as(embeddings)}).std(dim=0).mean()
    assert float(none) < 1e-4 < float(spread)


def test_the_embedding_of_the_truth_is_what_the_decoder_learns_with(prior):
    made, stages, data = prior
    batch = batch_of(made.experiment, data, stages["denoiser"], 3)
    learned = stages["denoiser"].learn(batch, torch.ones(3, dtype=torch.bool))
    code = stages["embedding"].network.encode(batch["z"])[0]
    expected = stages["prior"].standard(code)[..., 0]
    torch.testing.assert_close(learned.context.vector[:, -expected.shape[1] :], expected)
