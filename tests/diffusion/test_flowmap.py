"""Flow maps: the identities that make a function the solution of the ODE, and sampling with as many calls as asked."""

import math

import numpy as np
import pytest
import torch

from sciffusion.context import Context
from sciffusion.diffusion import Masked, Preconditioned, Tiled, karras, sample, sample_map
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.flowmap import DenoiserMap, Diagonal, FlowMap, HeunMap, NetworkMap
from sciffusion.diffusion.guidance import Projected
from sciffusion.diffusion.problems import GaussianField, power_law
from sciffusion.diffusion.sampling import gaussian
from sciffusion.errors import SciffusionError
from sciffusion.operators import BlockMean, project

LAW = GaussianField(power_law(3.0), (4, 6), variance=1.3, mean=0.4)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def levels(*values):
    return torch.tensor(values, dtype=torch.float64)


SIGMA = levels(80.0, 2.0, 0.3)
MIDDLE = levels(5.0, 0.1, 0.2999)
END = levels(0.0, 0.05, 0.2)


def start():
    return normal(3, 1, 4, 6) * SIGMA.reshape(-1, 1, 1, 1)


def test_the_gaussian_map_is_the_flow_of_the_law():
    got = LAW.flow_map()(start(), SIGMA, END)
    for i in range(3):
        torch.testing.assert_close(got[i], LAW.flow(start(), float(SIGMA[i]), float(END[i]))[i], rtol=1e-13, atol=1e-13)


def test_two_steps_are_one():
    exact = LAW.flow_map()
    both = exact(exact(start(), SIGMA, MIDDLE), MIDDLE, END)
    torch.testing.assert_close(both, exact(start(), SIGMA, END), rtol=1e-12, atol=1e-13)


def test_on_the_diagonal_the_average_is_the_denoiser_and_the_map_the_identity():
    """With both digits kept and at a rate: A(x, sigma, s) - D falls linearly in sigma - s."""
    exact, x = LAW.flow_map(), start()
    denoiser = Diagonal(exact)(x, SIGMA)
    torch.testing.assert_close(denoiser, LAW.denoiser()(x, SIGMA), rtol=1e-13, atol=1e-13)
    assert torch.equal(exact(x, SIGMA, SIGMA), x)
    gaps = [float((exact.average(x, SIGMA, SIGMA * (1 - h)) - denoiser).abs().max()) for h in (1e-3, 1e-5)]
    assert gaps[0] / gaps[1] == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize(("flow_map", "solver", "order"), [(DenoiserMap, "euler", 2), (HeunMap, "heun", 3)])
def test_a_denoiser_is_the_map_of_one_step_of_a_solver(flow_map, solver, order):
    """Equal to the solver itself, to sigma = 0, too; and its error over a step h is of the order of the solver + 1."""
    step, x = flow_map(LAW.denoiser()), start()
    for end in (1.0, 0.0):
        expected = sample(LAW.denoiser(), x, [2.0, end], solver)
        torch.testing.assert_close(step(x, torch.full_like(SIGMA, 2.0), torch.full_like(SIGMA, end)), expected)
    error = [
        float((step(x, SIGMA, SIGMA * (1 - h)) - LAW.flow_map()(x, SIGMA, SIGMA * (1 - h)))[1].abs().max())
        for h in (0.02, 0.01)
    ]
    assert math.log2(error[0] / error[1]) == pytest.approx(order, abs=0.15)


class Counted(FlowMap):
    """The exact map, counting calls and remembering where it was asked to go."""

    def __init__(self):
        super().__init__()
        self.exact, self.asked = LAW.flow_map(), []

    def average(self, x, sigma, sigma_to, cond=None):
        assert sigma.shape == sigma_to.shape == x.shape[:1]
        self.asked.append((float(sigma[0]), float(sigma_to[0])))
        return self.exact.average(x, sigma, sigma_to, cond)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_sampler_of_n_steps_makes_n_calls_and_the_exact_map_needs_but_one(steps):
    counted, x, seen = Counted(), normal(5, 1, 4, 6) * 80, []
    end = sample_map(counted, x, karras(steps, 0.05, 80.0), progress=lambda done, total: seen.append((done, total)))
    assert len(counted.asked) == steps
    assert seen == [(i + 1, steps) for i in range(steps)]
    torch.testing.assert_close(end, LAW.flow(x, 80.0, 0.0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_fresh_noise_on_the_way_keeps_the_law(gamma):
    """The samples' covariance is the data's whatever gamma; at 1 the map is only ever asked for level 0."""
    counted, batch = Counted(), 20_000
    law = GaussianField(power_law(3.0), (4, 6), variance=1.3, mean=0.4)
    x = law.sample(batch, seeded()) + 50 * normal(batch, 1, 4, 6, seed=1)
    end = sample_map(counted, x, [50.0, 1.0, 0.2, 0.0], noise=gaussian(x, seeded(2)), gamma=gamma).flatten(1)
    assert float((torch.cov(end.T) - law.covariance()).abs().max()) < 6 * 1.3 / math.sqrt(batch)
    assert len(counted.asked) == 3
    assert (max(asked for _, asked in counted.asked) == 0) == (gamma == 1.0)


@pytest.mark.parametrize("arguments", [{"gamma": 0.5}, {"gamma": 2.0}, {"sigmas": [1.0, 2.0]}, {"sigmas": [1.0]}])
def test_samplers_that_make_no_sense_are_refused(arguments):
    settings = {"sigmas": [2.0, 1.0, 0.0], **arguments}
    with pytest.raises(SciffusionError):
        sample_map(LAW.flow_map(), start(), **settings)


def test_heavy_tails_are_carried_but_not_mixed_with_normal_noise():
    exact = LAW.flow_map()
    exact.noise, exact.dof = "student-t", 5.0
    assert Diagonal(exact).dof == DenoiserMap(Diagonal(exact)).dof == 5.0
    with pytest.raises(SciffusionError, match="student-t"):
        sample_map(exact, start(), [2.0, 0.0], noise=gaussian(start()), gamma=0.5)


class Recorder(torch.nn.Module):
    def forward(self, x, c_noise, cond):
        self.seen = cond
        return x.half() * 0 + cond.vector.sum(1).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("cond", [None, Context(vector=normal(3, 2, seed=4))])
def test_the_target_level_reaches_a_network_through_the_vector(cond):
    """Finite at level 0, in the dtype of the field, and monotone in the level; the rest of the vector is kept."""
    flow_map = NetworkMap(Preconditioned(Recorder()))
    answers = [flow_map(start(), SIGMA, share * SIGMA, cond) for share in (0.0, 0.5, 1.0)]
    seen = flow_map.denoiser.network.seen
    assert seen.vector.shape == (3, NetworkMap.features + (0 if cond is None else 2))
    assert cond is None or torch.equal(seen.vector[:, :2], cond.vector)
    assert all(answer.isfinite().all() and answer.dtype == torch.float64 for answer in answers)
    torch.testing.assert_close(answers[2], start())
    assert not torch.equal(answers[0], answers[1])


def test_a_network_map_is_well_posed_at_the_finest_levels():
    """With EDM's coefficients the consistency function tends to the identity as sigma does to 0."""
    flow_map, x = NetworkMap(Preconditioned(Recorder())), normal(3, 1, 4, 6)
    gap = [
        float((flow_map(x, torch.full_like(SIGMA, s), torch.zeros_like(SIGMA)) - x).abs().max()) for s in (1e-3, 1e-5)
    ]
    assert gap[0] / gap[1] == pytest.approx(100, rel=0.05)


def test_wrappers_of_denoisers_work_inside_a_map():
    """Masked cells say nothing and end at 0; tiles and coarse constraints hold after one call."""
    valid, x = normal(3, 1, 4, 6, seed=7) > 0, start()
    cond = Context(valid=valid, vector=normal(3, 0))
    masked = NetworkMap(Masked(LAW.denoiser()))
    answer, other = (masked(field, SIGMA, 0 * END, cond) for field in (x, torch.where(valid, x, 1e3)))
    assert torch.equal(answer, other)
    assert not answer[~valid].any()
    operator, y = BlockMean((4, 6), (2, 3)), normal(3, 1, 2, 2)
    inside = Projected(Tiled(Preconditioned(Recorder()), (4, 4), 2, ("periodic", "periodic")), project(operator), y)
    torch.testing.assert_close(operator(sample_map(NetworkMap(inside), x, [80.0, 0.0])), y)


def test_a_member_is_the_same_for_any_batch():
    exact, x = LAW.flow_map(), normal(16, 1, 4, 6) * 80
    sigmas = np.array([80.0, 0.5, 0.0])
    whole = sample_map(exact, x, sigmas)
    parts = torch.cat([sample_map(exact, part, sigmas) for part in x.split(3)])
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-13)
    assert isinstance(Diagonal(exact), Denoiser)
