"""Training parts: what the loss, the noise range and the averages are in closed form."""

import copy
import json
import math

import numpy as np
import pytest
import torch

from sciffusion.context import Context
from sciffusion.diffusion import EMA, Masked, NoiseRange, almost_fair_crps, denoising_loss, karras
from sciffusion.diffusion import ema as averages
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.objectives import denoising_error, weighted_mean
from sciffusion.diffusion.paths import VE
from sciffusion.diffusion.problems import GaussianField, power_law
from sciffusion.errors import SciffusionError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("leading", [0.3, 2.0, 210.0])
@pytest.mark.parametrize("distribution", ["lognormal", "loguniform"])
def test_no_factor_of_e_in_sigma_goes_untrained(leading, distribution):
    levels = NoiseRange.fit(leading, distribution=distribution)
    draws = levels.sample(20000, seeded()).log()
    edges = np.arange(math.log(levels.sigma_min), math.log(levels.sigma_max), 1.0)
    counts, _ = np.histogram(draws.numpy(), bins=edges)
    share = levels.uniform if distribution == "lognormal" else 1.0
    floor = share / math.log(levels.sigma_max / levels.sigma_min)
    assert levels.sigma_max >= 5 * leading
    assert counts.min() / 20000 > 0.95 * floor
    assert draws.exp().min() >= levels.sigma_min
    assert draws.exp().max() <= levels.sigma_max


def test_the_fitted_distribution_puts_the_leading_mode_at_two_sd():
    levels = NoiseRange.fit(200.0)
    assert levels.p_mean + 2 * levels.p_std == pytest.approx(math.log(200.0))
    assert (NoiseRange.fit(0.5).p_mean, NoiseRange.fit(0.5).p_std) == pytest.approx((-1.2, 1.2))


def test_a_noise_range_survives_json():
    levels = NoiseRange.fit(37.0)
    assert NoiseRange.from_json(json.loads(json.dumps(levels.to_json()))) == levels


def test_karras_grid_is_uniform_in_the_root_and_ends_at_zero():
    grid = karras(9, 0.002, 80.0, rho=7)
    assert grid.dtype == np.float64
    assert len(grid) == 10
    assert (grid[0], grid[-1]) == (80.0, 0.0)
    np.testing.assert_allclose(np.diff(grid[:-1] ** (1 / 7)), np.diff(grid[:2] ** (1 / 7))[0], rtol=1e-9)


def test_a_karras_grid_of_large_rho_is_uniform_in_the_logarithm():
    np.testing.assert_allclose(karras(9, 0.01, 50.0, rho=1e5), VE(0.01, 50.0).grid(9), rtol=1e-3)
    np.testing.assert_allclose(karras(4, 0.01, 50.0, final_zero=False), karras(5, 0.01, 50.0)[:-1])
    assert list(karras(1, 0.01, 50.0)) == [50.0, 0.0]


@pytest.mark.parametrize(("steps", "low", "high"), [(0, 0.1, 1.0), (5, 0.0, 1.0), (5, 2.0, 1.0)])
def test_a_grid_that_makes_no_sense_is_refused(steps, low, high):
    with pytest.raises(SciffusionError, match="steps >= 1"):
        karras(steps, low, high)


def test_loss_of_the_exact_denoiser_is_the_posterior_variance():
    """E |D - x0|^2 = mean_k v_k sigma^2 / (v_k + sigma^2); the loss weighs it by lambda."""
    field = GaussianField(power_law(2.0), (32,))

    class Fixed:
        def sample(self, batch, generator):
            return torch.full((batch,), 0.5)

    loss = denoising_loss(field.denoiser(), field.sample(4000, seeded(1)), None, Fixed(), seeded())
    expected = (field.spectrum * 0.25 / (field.spectrum + 0.25)).mean() * (0.25 + 1) / 0.25
    assert float(loss.mean()) == pytest.approx(float(expected), abs=4 * float(loss.std()) / math.sqrt(4000))


def test_masked_mean_is_the_ratio_of_sums_over_the_batch():
    values, area = torch.rand(5, 2, 4, 6, generator=seeded()), 0.1 + torch.rand(4, 6, generator=seeded(1))
    valid = torch.rand(5, 1, 4, 6, generator=seeded(2)) > 0.6
    valid[3] = False
    w = area * valid.expand_as(values)
    per_sample = weighted_mean(values, area, valid)
    assert per_sample[3] == 0
    assert float(per_sample.mean()) == pytest.approx(float((w * values).sum() / w.sum()), rel=1e-5)


def test_polar_cells_count_for_a_twentieth_of_the_mean_cell_at_least():
    values, area = torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([0.001, 1.0, 1.949])
    assert float(weighted_mean(values, area)[0]) == pytest.approx(0.05 / (0.05 + 1.0 + 1.949))


def test_invalid_cells_neither_enter_nor_leave():
    class Leaky(Denoiser):
        def forward(self, x, sigma, cond=None):
            return x + x.mean()

    valid = torch.rand(2, 1, 4, 4, generator=seeded()) > 0.5
    x0 = torch.randn(2, 3, 4, 4, generator=seeded(1))
    spoiled = torch.where(valid, x0, torch.nan)
    losses = [denoising_loss(Masked(Leaky()), x, Context(valid=valid), NoiseRange(), seeded(2)) for x in (x0, spoiled)]
    assert torch.equal(*losses)
    assert (Masked(Leaky())(x0, torch.ones(2), Context(valid=valid))[~valid.expand_as(x0)] == 0).all()
    elsewhere = torch.where(valid, x0, 1e3)  # what stands there in a sampler's x is not heard by valid cells either
    answers = [Masked(Leaky())(x, torch.ones(2), Context(valid=valid)) for x in (x0, elsewhere)]
    assert torch.equal(*answers)
    at_zero = Identity()  # a denoiser that is not told about the mask sees 0 there, and its answer there costs nothing
    error = denoising_error(at_zero, spoiled, torch.ones(2), torch.zeros_like(x0), Context(valid=valid))
    assert torch.equal(at_zero.seen, torch.where(valid, x0, 0))
    assert torch.equal(error, torch.zeros(2))


class Identity(Denoiser):
    def forward(self, x, sigma, cond=None):
        self.seen = x
        return x


@pytest.mark.parametrize("alpha", [1.0, 0.95])
def test_almost_fair_crps_is_its_double_sum(alpha):
    members = 1000 + torch.randn(5, 3, 2, 4, generator=seeded(), dtype=torch.float64)
    truth = 1000 + torch.randn(3, 2, 4, generator=seeded(1), dtype=torch.float64)
    eps = (1 - alpha) / 5
    pairs = (members[:, None] - members[None]).abs().sum((0, 1)) / (2 * 5 * 4)
    expected = ((members - truth).abs().mean(0) - (1 - eps) * pairs).flatten(1).mean(1)
    torch.testing.assert_close(almost_fair_crps(members, truth, alpha), expected, rtol=1e-9, atol=1e-12)


def trained(gamma, steps, seed=0):
    """A one-parameter 'training' with its history and its EMA."""
    layer = torch.nn.Linear(3, 1, bias=False).double()
    average, history = EMA(layer, gamma), []
    for step in range(steps):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[math.sin(step / 40), step / steps, (step / steps) ** 2]]))
        average.update()
        history.append(layer.weight.detach().clone())
    return average, torch.cat(history)


def test_ema_is_the_explicit_average_with_a_power_profile():
    """prod_{i=j+1}^{t} (1 - 1/i)^(g+1) (1 - (1 - 1/j)^(g+1)) telescopes to (j^(g+1) - (j-1)^(g+1)) / t^(g+1)."""
    average, history = trained(6.0, 300)
    edges = (torch.arange(301, dtype=torch.float64) / 300) ** 7
    torch.testing.assert_close(average.average["weight"][0], edges.diff() @ history)


def test_half_life_is_a_share_of_the_steps_done():
    gamma = averages.gamma_of_halflife(0.05)
    old = (1 - 0.05 / 1) ** (gamma + 1)  # what is left of the past after the last 5 % of the steps
    assert old == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("width", [0.05, 0.10, 0.25])
def test_width_and_exponent_are_inverse(width):
    assert averages.width_of_gamma(averages.gamma_of_width(width)) == pytest.approx(width)


def test_post_hoc_average_is_the_average_of_that_length():
    """Snapshots of two lengths every 100 of 800 steps give the average of a third length, which was never kept."""
    layer = torch.nn.Linear(4, 1, bias=False).double()
    gammas = [averages.gamma_of_width(width) for width in (0.05, 0.10, 0.07)]
    *kept, wanted = [EMA(layer, gamma) for gamma in gammas]
    snapshots = []
    for step in range(1, 801):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[math.sin(step / 60), step / 800, (step / 800) ** 2, 1.0]]))
        for average in (*kept, wanted):
            average.update()
        if step % 100 == 0:
            snapshots += [copy.deepcopy(average.state_dict()) for average in kept]
    rebuilt = averages.reconstruct(snapshots, gammas[-1])
    torch.testing.assert_close(rebuilt["weight"], wanted.average["weight"], atol=5e-3, rtol=0)
    nearest = snapshots[-1]["average"]["weight"]
    error = (rebuilt["weight"] - wanted.average["weight"]).abs().max()
    assert error < 0.1 * (nearest - wanted.average["weight"]).abs().max()


def test_swap_returns_the_weights_bit_for_bit_and_resume_continues():
    average, _ = trained(5.0, 50)
    own = average.module.weight.detach().clone()
    with average.swap():
        assert torch.equal(average.module.weight, average.average["weight"])
    assert torch.equal(average.module.weight, own)
    resumed = EMA(average.module, 1.0)
    resumed.load_state_dict(average.state_dict())
    resumed.update()
    average.update()
    assert torch.equal(resumed.average["weight"], average.average["weight"])


def test_tied_weights_and_buffers_are_kept_under_every_name():
    """A tied weight is averaged under both of its names; a buffer is the module's present one."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    module[1].weight = module[0].weight
    average = EMA(module, 3.0)
    for step in range(1, 6):
        with torch.no_grad():
            module[0].weight.fill_(step)
            module[2].running_mean.fill_(step)
        average.update()
    assert torch.equal(average.average["0.weight"], average.average["1.weight"])
    assert (average.average["0.weight"] < 5).all()
    assert (average.average["2.running_mean"] == 5).all()
