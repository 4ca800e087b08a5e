"""Student-t noise as a setting: its law, its key, and what refuses it."""

import numpy as np
import pytest
import torch

import sciffusion as sf
from sciffusion.errors import SciffusionError
from sciffusion.generation import held_out
from sciffusion.stages.items import Item
from tests.stages.toy import toy

DOF = 5


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The same untrained stage with Student-t and with Gaussian noise, and a prepared case."""
    folder = tmp_path_factory.mktemp("tails")
    built = [toy(folder, "edm", *changes).build() for changes in ([f"stages.denoiser.noise.dof={DOF}"], [])]
    (heavy, data), (plain, _) = built
    heavy, plain = heavy["denoiser"], plain["denoiser"]
    return heavy, plain, plain.prepare(data.conditions, data.cases["train"][0])


def test_a_start_is_gaussian_noise_over_one_number_per_member(stages):
    heavy, plain, prepared = stages
    items = [Item(prepared, member) for member in range(3000)]
    z, n = heavy.noise(items, seed=0), plain.noise(items, seed=0)
    ratio = (z / n).flatten(1).double()
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-5, atol=0)
    k = ratio[:, 0].numpy() ** -2  # chi2(dof) / dof: mean 1, variance 2 / dof
    assert np.mean(k) == pytest.approx(1, abs=4 * np.sqrt(2 / DOF / len(k)))
    assert np.var(k) == pytest.approx(2 / DOF, rel=0.15)
    assert abs(np.corrcoef(k, n.flatten(1).square().mean(1))[0, 1]) < 0.08  # and independent of the noise itself
    torch.testing.assert_close(heavy.noise(items[7:9], seed=0), z[7:9], rtol=0, atol=0)  # whatever the batch
    for stream in ("solver", "into x"):  # other streams stay normal
        assert torch.equal(heavy.noise(items[:2], seed=0, stream=stream), plain.noise(items[:2], seed=0, stream=stream))


def test_the_preconditioning_knows_the_law(stages):
    heavy, plain, prepared = stages
    assert heavy.denoiser.noise == "student-t"
    x, sigma = torch.ones(1, *plain.output_shape), torch.ones(1)
    answers = [stage.denoiser(x, sigma, stage.context([prepared])) for stage in (heavy, plain)]
    skips = [float(answer.detach().mean()) for answer in answers]  # the untrained head is zero: c_skip x
    assert skips == pytest.approx([1 / (1 + DOF / (DOF - 2)), 1 / 2])


def test_a_model_with_tails_trains_and_draws_the_same_members_when_loaded(tmp_path):
    made = toy(tmp_path, "edm", f"stages.denoiser.noise.dof={DOF}")
    emulator = sf.train(made.experiment, progress=False)
    conditions, labels = held_out(made.folder)
    cases = {dim: values[:1] for dim, values in labels.items()}
    drawn = emulator.sample(conditions, 2, cases=cases)
    assert np.isfinite(drawn["a"]).all()
    np.testing.assert_array_equal(sf.load(made.folder).sample(conditions, 2, cases=cases)["a"], drawn["a"])
    with pytest.raises(SciffusionError, match="needs Gaussian noise"):
        emulator.sample(conditions, 2, cases=cases, sampler="dpmpp-2m-sde")


@pytest.mark.parametrize(
    ("recipe", "stage", "change"),
    [("edm", "denoiser", "sampler.solver=dpmpp-2m-sde"), ("ect", "flowmap", "sampler.steps=2")],
)
def test_what_needs_gaussian_noise_refuses_others_before_training(tmp_path, recipe, stage, change):
    made = toy(tmp_path, recipe, f"stages.{stage}.noise.dof={DOF}", f"stages.{stage}.{change}")
    with pytest.raises(SciffusionError, match="needs Gaussian noise"):
        made.build()
