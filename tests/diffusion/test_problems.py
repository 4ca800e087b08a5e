"""The analytic problems are what they say: checked against sampling, autograd and brute force."""

import math

import numpy as np
import pytest
import torch

from sciffusion.diffusion import sample
from sciffusion.diffusion.problems import DenseGaussian, GaussianField, GaussianMixture, power_law
from sciffusion.diffusion.problems.scores import expected_distance, expected_norm
from sciffusion.errors import SciffusionError
from sciffusion.operators import BlockMean, Mask, Points

SHAPES = [(12,), (5, 8), (4, 3, 4)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def field(shape, mean=0.3):
    return GaussianField(power_law(3.0), shape, variance=2.0, mean=mean)


def mixture():
    mean = torch.sin(torch.arange(8, dtype=torch.float64))
    laws = [
        GaussianField(power_law(2.0), (8,), mean=mean),
        GaussianField(power_law(5.0), (8,), variance=0.5, mean=-mean),
    ]
    return GaussianMixture(laws, [0.3, 0.7])


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_have_the_covariance_and_the_variance_asked_for(shape):
    law = field(shape)
    draws = law.sample(40_000, seeded()).flatten(1)
    assert float(law.covariance().diagonal().mean()) == pytest.approx(2.0)
    assert float((torch.cov(draws.T) - law.covariance()).abs().max()) < 6 * 2.0 / math.sqrt(40_000)
    assert float((draws.mean(0) - 0.3).abs().max()) < 5 * math.sqrt(2 / 40_000)


@pytest.mark.parametrize(("shape", "k"), [((12,), (5,)), ((6, 8), (-2, 3)), ((4, 5, 6), (1, -2, 2))])
def test_a_wave_has_the_variance_of_the_spectrum_at_its_wavenumber(shape, k):
    """In cycles per domain along every axis, relative to the lowest wave of the last axis; and summed up the cell's."""
    law = GaussianField(power_law(3.0, outer=2.0), shape, variance=2.0)
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) / n for n in shape], indexing="ij")

    def variance(wave):
        x = torch.cos(2 * math.pi * sum(c * axis for c, axis in zip(wave, axes, strict=True)))
        return float((law.filter(law.modes, x) * x).sum() / (x * x).sum())

    lowest = (0,) * (len(shape) - 1) + (1,)
    expected = ((4 + sum(c * c for c in k)) / (4 + 1)) ** -1.5
    assert variance(k) / variance(lowest) == pytest.approx(expected)
    assert float(law.spectrum.mean()) == pytest.approx(2.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_dense_and_spectral_forms_agree(shape):
    spectral = field(shape)
    dense = DenseGaussian(spectral.mean.clone(), spectral.covariance())
    x = torch.randn(3, 1, *shape, generator=seeded(), dtype=torch.float64)
    sigma = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(dense.denoiser()(x, sigma), spectral.denoiser()(x, sigma))
    torch.testing.assert_close(dense.log_prob(x, sigma), spectral.log_prob(x, sigma))
    torch.testing.assert_close(dense.flow(x, 3.0, 0.2), spectral.flow(x, 3.0, 0.2))
    assert dense.crps_floor() == pytest.approx(spectral.crps_floor())
    assert dense.energy_floor() == pytest.approx(spectral.energy_floor())


@pytest.mark.parametrize("law", [field((4, 6)), mixture()], ids=["field", "mixture"])
def test_tweedie_the_denoiser_is_x_plus_sigma_squared_times_the_score(law):
    x = torch.randn(4, 1, *law.shape, generator=seeded(), dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.2, 0.7, 2.0, 9.0], dtype=torch.float64)
    (score,) = torch.autograd.grad(law.log_prob(x, sigma).sum(), x)
    tweedie = x + (sigma**2).reshape(-1, *[1] * (x.ndim - 1)) * score
    torch.testing.assert_close(law.denoiser()(x, sigma), tweedie)


def test_density_is_that_of_a_multivariate_normal():
    law = field((3, 4))
    x = torch.randn(5, 1, 3, 4, generator=seeded(), dtype=torch.float64)
    covariance = law.covariance() + 0.3**2 * torch.eye(12, dtype=torch.float64)
    oracle = torch.distributions.MultivariateNormal(law.mean.reshape(-1), covariance)
    torch.testing.assert_close(law.log_prob(x, 0.3), oracle.log_prob(x.flatten(1)))


def test_density_of_the_mixture_integrates_to_one():
    laws = [GaussianField(power_law(2.0), (1,), mean=m, variance=v) for m, v in [(-1.0, 0.2), (2.0, 1.0)]]
    x = torch.linspace(-15, 15, 6001, dtype=torch.float64)
    density = GaussianMixture(laws, [1.0, 3.0]).log_prob(x[:, None, None], 0.5).exp()
    assert float(torch.trapezoid(density, x)) == pytest.approx(1.0, abs=1e-9)


OPERATORS = {
    "blocks": BlockMean((4, 6), (2, 3)),
    "points": Points(torch.tensor([[0, 1], [3, 5], [2, 2]]), (4, 6)),
    "mask": Mask(torch.rand(4, 6, generator=seeded(5)) > 0.5),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_posterior_is_gaussian_conditioning(name, noise):
    """By the other route: the precision form for noise > 0, and y reproduced with no spread left for noise = 0."""
    operator, law = OPERATORS[name], field((4, 6))
    y = operator(law.sample(1, seeded(3))[0, 0])
    post = law.posterior(operator, y, noise)
    if noise == 0:
        torch.testing.assert_close(operator(post.mean), y)
        assert float(operator(post.sample(50, seeded()) - post.mean).abs().max()) < 1e-5
        return
    units = torch.eye(24, dtype=torch.float64).reshape(24, 4, 6)
    c = operator(units).reshape(24, -1).T
    precision = torch.linalg.inv(law.covariance()) + c.T @ c / noise
    torch.testing.assert_close(post.covariance(), torch.linalg.inv(precision))
    right = torch.linalg.solve(law.covariance(), law.mean.reshape(-1)) + c.T @ y.reshape(-1) / noise
    torch.testing.assert_close(post.mean.reshape(-1), torch.linalg.solve(precision, right))


def test_mixture_posterior_satisfies_bayes():
    """log p(x | y) - log p(x) - log p(y | x) is the same for every x."""
    law, operator = mixture(), BlockMean((8,), (2,))
    y = operator(law.sample(1, seeded(2))[0, 0])
    x = law.sample(6, seeded())
    misfit = (operator(x[:, 0]) - y).square().sum(1) / (2 * 0.2)
    constant = law.posterior(operator, y, 0.2).log_prob(x) - law.log_prob(x) + misfit
    torch.testing.assert_close(constant, constant[:1].expand(6))


def test_conditional_sampler_reaches_the_floor_of_the_posterior():
    """Fair CRPS of samples drawn through the posterior's denoiser, against its own draws: the closed form."""
    law, operator = field((16,)), BlockMean((16,), (4,))
    post = law.posterior(operator, operator(law.sample(1, seeded(4))[0, 0]), 0.01)
    start = 40 * torch.randn(4000, 1, 16, generator=seeded(), dtype=torch.float64) + post.mean
    sigmas = np.append(np.geomspace(40, 0.005, 40), 0.0)
    members = sample(post.denoiser(), start, sigmas)[:, 0]
    truth = post.sample(4000, seeded(1))[:, 0]
    half = len(members) // 2
    crps = (members - truth).abs().mean() - (members[:half] - members[half:]).abs().mean() / 2
    assert float(crps) == pytest.approx(post.crps_floor(), rel=0.03)
    ranks = (members[:3990].reshape(399, 10, 16) < truth[:399, None]).sum(1)  # of a truth among ten members: 11 bins
    expected = ranks.numel() / 11
    chi2 = float(((torch.bincount(ranks.flatten(), minlength=11) - expected) ** 2 / expected).sum())
    assert chi2 < 60  # neighbouring cells are correlated: about 16 / 5 times the 10 of independent ones


@pytest.mark.parametrize("law", [field((6,)), mixture()], ids=["field", "mixture"])
def test_floors_are_expected_scores_of_perfect_forecasts(law):
    a, b = law.sample(60_000, seeded()), law.sample(60_000, seeded(1))
    assert law.crps_floor() == pytest.approx(float((a - b).abs().mean()) / 2, rel=0.01)
    assert law.energy_floor() == pytest.approx(float((a - b).flatten(1).norm(dim=1).mean()) / 2, rel=0.01)


def test_expected_norms_of_known_laws():
    """The chi distribution in n dimensions, and |N(m, v)| in one."""
    for n in (1, 3, 50):
        chi = math.sqrt(2) * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2))
        assert expected_norm(np.full(n, 4.0), np.zeros(n)) == pytest.approx(2 * chi, rel=1e-9)
    one = expected_distance(np.array([0.7]), np.array([1.3]))[0]
    assert expected_norm(np.array([1.3]), np.array([0.7])) == pytest.approx(one, rel=1e-9)


def test_what_cannot_be_done_is_refused():
    with pytest.raises(SciffusionError, match="axes"):
        GaussianField(power_law(2.0), (2, 2, 2, 2))
    with pytest.raises(SciffusionError, match="noise > 0"):
        mixture().posterior(BlockMean((8,), (2,)), torch.zeros(4, dtype=torch.float64), 0.0)
    with pytest.raises(SciffusionError, match="cells"):
        GaussianField(power_law(2.0), (128, 128)).covariance()
