"""Likelihoods against closed forms."""

import math

import pytest
import torch

from sciffusion.context import Context
from sciffusion.diffusion import Masked
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.likelihood import log_likelihood, signs
from sciffusion.diffusion.problems import GaussianField, GaussianMixture, power_law
from sciffusion.errors import SciffusionError

LOW, HIGH = 0.05, 60.0


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(name):
    laws = [GaussianField(power_law(3.0), (3, 4), mean=m, variance=v) for m, v in [(0.8, 1.0), (-0.5, 0.4)]]
    return laws[0] if name == "field" else GaussianMixture(laws, [0.4, 0.6])


@pytest.mark.parametrize("name", ["field", "mixture"])
def test_exact_trace_gives_the_closed_form_to_1e_4_nats_per_dimension(name):
    law = problem(name)
    x = law.sample(3, seeded()) + LOW * torch.randn(3, 1, 3, 4, generator=seeded(1), dtype=torch.float64)
    found = log_likelihood(law.denoiser(), x, LOW, HIGH, prior=lambda end: law.log_prob(end, HIGH), vectorised=True)
    exact = law.log_prob(x, LOW)
    assert float((found.log_prob - exact).abs().max()) / 12 < 1e-4
    torch.testing.assert_close(found.bits_per_dim, -exact / 12 / math.log(2), rtol=0, atol=2e-4)
    assert (found.standard_error == 0).all()


def test_the_normal_prior_is_right_when_sigma_max_dominates():
    law = GaussianField(power_law(3.0), (3, 4))
    x = law.sample(2, seeded())
    found = log_likelihood(law.denoiser(), x, LOW, 1000.0)
    torch.testing.assert_close(found.log_prob, law.log_prob(x, LOW), rtol=0, atol=1e-3)


def test_hutchinson_is_unbiased_over_256_probes():
    law = problem("mixture")
    x, probes = law.sample(1, seeded()), signs(torch.zeros(1, 1, 3, 4), 256, seeded(2)).double()
    settings = {"prior": lambda end: law.log_prob(end, 10.0), "rtol": 1e-3, "atol": 1e-3, "vectorised": True}
    found = log_likelihood(law.denoiser(), x, LOW, 10.0, probes=probes, **settings)
    assert (found.standard_error > 0).all()
    assert ((found.log_prob - law.log_prob(x, LOW)).abs() < 3 * found.standard_error).all()


def test_the_standard_error_of_hutchinson_is_that_of_random_signs():
    """For Gaussian data e^T J e integrates to e^T M e, M of eigenvalues int v / (v + sigma^2) dlog sigma.

    Its variance over signs is 2 sum_{i != j} M_ij^2; the sd of 256 probes has a standard error of 4 to 6 %.
    """
    law = GaussianField(power_law(3.0), (3, 4))
    x, probes = law.sample(2, seeded()), signs(torch.zeros(2, 1, 3, 4), 256, seeded(2)).double()
    found = log_likelihood(law.denoiser(), x, LOW, 10.0, probes=probes, rtol=1e-4, atol=1e-4, vectorised=True)
    gain = torch.log((1 + law.modes / LOW**2) / (1 + law.modes / 10.0**2)) / 2
    m = law.filter(gain, torch.eye(12, dtype=torch.float64).reshape(12, 3, 4)).reshape(12, 12)
    exact = float((2 * (m - m.diagonal().diag()).square().sum() / 256).sqrt())
    assert found.standard_error.tolist() == pytest.approx([exact, exact], rel=0.2)
    one = log_likelihood(law.denoiser(), x, LOW, 10.0, probes=probes[:1], rtol=1e-2, atol=1e-2, vectorised=True)
    assert one.standard_error.isnan().all()  # one probe knows nothing of its error


class Unit(Denoiser):
    def forward(self, x, sigma, cond=None):
        return x / (1 + sigma.reshape(-1, 1, 1) ** 2)


@pytest.mark.parametrize("denoiser", [Masked(Unit()), Unit()], ids=["masked", "not told of the mask"])
@pytest.mark.parametrize("exact_trace", [True, False])
def test_masked_cells_do_not_count(denoiser, exact_trace):
    """Independent cells of variance 1: the likelihood of a masked field is that of its valid cells.

    Their Jacobian is diagonal, so that random signs give its trace without error.
    """
    x = torch.randn(2, 1, 6, generator=seeded(), dtype=torch.float64)
    valid = torch.tensor([[[True, True, False, True, False, True]], [[True] * 6]])
    probes = None if exact_trace else signs(x, 3, seeded())
    found = log_likelihood(denoiser, x, LOW, HIGH, Context(valid=valid), probes=probes)
    density = torch.distributions.Normal(0.0, math.hypot(1, LOW)).log_prob(x)
    exact = torch.where(valid, density, 0.0).flatten(1).sum(1)
    torch.testing.assert_close(found.log_prob, exact, rtol=0, atol=1e-4)
    assert found.size.tolist() == [4, 6]


def test_a_large_exact_trace_is_refused():
    law = GaussianField(power_law(3.0), (80, 80))
    with pytest.raises(SciffusionError, match="probes"):
        log_likelihood(law.denoiser(), torch.zeros(1, 1, 80, 80), LOW, HIGH)
