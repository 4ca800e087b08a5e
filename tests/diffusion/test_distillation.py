"""Objectives of few-step models: the exact flow map is where every one of them comes to rest, and where training goes.

For a Gaussian field and linear perturbations of the exact map the expected gradients are quadratic in data and noise,
so a handful of points with the exact second moments (a cubature rule) gives them without sampling error.
"""

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from sciffusion.context import Context
from sciffusion.diffusion import Masked, NoiseRange, Preconditioned, karras, sample, sample_map
from sciffusion.diffusion.denoiser import expand
from sciffusion.diffusion.distillation import (
    ConsistencyDistillation,
    ContinuousConsistency,
    Draw,
    EasyConsistency,
    MeanFlow,
    OneStepCRPS,
    ProgressiveDistillation,
    trajectory_derivative,
)
from sciffusion.diffusion.flowmap import DenoiserMap, Diagonal, FlowMap, HeunMap, NetworkMap
from sciffusion.diffusion.problems import DenseGaussian, GaussianField, power_law
from sciffusion.diffusion.weights import LearnedUncertainty
from sciffusion.networks.unet import UNet
from sciffusion.stage_settings import UNetSettings

LAW = GaussianField(power_law(2.0), (5,), variance=0.8, mean=0.3)
EXACT, TEACHER = LAW.flow_map(), LAW.denoiser()
NOISE = NoiseRange(0.02, 20.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cubature():
    """Points (x0, z), (4 n, 1, n) each, with the mean and covariance of data and noise to the last digit."""
    n = LAW.shape[0]
    units = math.sqrt(2 * n) * torch.eye(n, dtype=torch.float64)[:, None]
    roots, zero = LAW.filter(LAW.modes.sqrt(), units), torch.zeros_like(units)
    x0 = LAW.mean + torch.cat([roots, -roots, zero, zero])
    return x0, torch.cat([zero, zero, units, -units])


def draw(*levels):
    x0, z = cubature()
    return Draw(x0, z, torch.tensor(levels, dtype=x0.dtype)[:, None].expand(-1, len(x0)))


class Perturbed(FlowMap):
    """The exact map plus five linear directions of size ``theta``."""

    def __init__(self, size):
        super().__init__()
        self.theta = nn.Parameter(torch.full((5,), size, dtype=torch.float64))

    def average(self, x, sigma, sigma_to, cond=None):
        share, level = expand(sigma_to / sigma, x), expand(sigma / (1 + sigma), x)
        directions = (x, level * x, x.roll(1, -1), share * x, torch.ones_like(x))
        extra = sum(t * d / (1 + expand(sigma, x)) for t, d in zip(self.theta, directions, strict=True))
        return EXACT.average(x, sigma, sigma_to) + extra


def gradient(objective, size, *levels):
    student = Perturbed(size)
    objective.residual(student, draw(*levels)).square().mean().backward()
    return float(student.theta.grad.norm())


GRID = karras(8, 0.02, 20.0)
DISTILLED = [
    (ProgressiveDistillation(teacher=EXACT, sigmas=GRID), (20.0, 3.0, 0.5)),
    (ProgressiveDistillation(teacher=EXACT, sigmas=GRID), (0.5, 0.1, 0.0)),
    (ConsistencyDistillation(teacher=EXACT, sigmas=GRID), (3.0, 0.5)),
    (ConsistencyDistillation(teacher=EXACT, sigmas=GRID, target=EXACT), (0.5, 0.0)),
    (ContinuousConsistency(noise=NOISE, teacher=TEACHER), (3.0, 0.0)),
    (ContinuousConsistency(noise=NOISE, teacher=TEACHER, offset=None), (0.1, 0.0)),
    (MeanFlow(noise=NOISE, teacher=TEACHER), (3.0, 0.2)),
    (MeanFlow(noise=NOISE, teacher=TEACHER), (0.7, 0.7)),
]


@pytest.mark.parametrize(("objective", "levels"), DISTILLED)
def test_the_residual_of_the_exact_map_vanishes_under_an_exact_teacher(objective, levels):
    assert float(objective.residual(EXACT, draw(*levels)).abs().max()) < 1e-11
    assert gradient(objective, 0.01, *levels) > 1e-4


FROM_DATA = [
    (ContinuousConsistency(noise=NOISE, offset=None), (3.0, 0.0)),
    (ContinuousConsistency(noise=NOISE, offset=None, sigma_data=0.5), (0.1, 0.0)),
    (MeanFlow(noise=NOISE, offset=None), (3.0, 0.2)),
    (MeanFlow(noise=NOISE, offset=None), (0.5, 0.0)),
    (MeanFlow(noise=NOISE, offset=None), (0.7, 0.7)),
]


@pytest.mark.parametrize(("objective", "levels"), FROM_DATA)
def test_the_expected_gradient_of_the_exact_map_vanishes_without_a_teacher(objective, levels):
    """The loss does not (its targets are noisy); moved off by 1 %, the gradient is there."""
    assert gradient(objective, 0.0, *levels) < 1e-12
    assert gradient(objective, 0.01, *levels) > 1e-4


def test_discrete_objectives_draw_every_step_of_their_grids():
    """Neighbours of the teacher's grid; start, middle and end of the student's steps."""
    grid = torch.as_tensor(GRID)
    pairs = ConsistencyDistillation(teacher=EXACT, sigmas=GRID).levels(2000, seeded()).unique(dim=1).flip(1)
    torch.testing.assert_close(pairs, torch.stack([grid[:-1], grid[1:]]))
    triples = ProgressiveDistillation(teacher=EXACT, sigmas=GRID).levels(2000, seeded()).unique(dim=1).flip(1)
    torch.testing.assert_close(triples, torch.stack([grid[:-1:2], grid[1::2], grid[2::2]]))


def test_meanflow_draws_as_many_diagonal_and_final_pairs_as_it_says():
    sigma, lower = MeanFlow(noise=NOISE, diagonal=0.6, final=0.5).levels(20_000, seeded())
    assert float((lower == sigma).double().mean()) == pytest.approx(0.6, abs=0.02)
    assert float((lower == 0).double().mean()) == pytest.approx(0.2, abs=0.02)
    assert bool((lower <= sigma).all())


def test_the_gradient_of_easy_tuning_at_the_exact_map_closes_with_the_gap():
    """First order in sigma - r: by half per stage. The first stage is the denoising loss at all but high levels."""
    objective = EasyConsistency(noise=NOISE, stages=14)
    sizes = []
    for stage in (8, 9, 10):
        sigma, lower = objective.levels(1, seeded(), progress=(stage + 0.5) / 14)[:, 0].tolist()
        assert 0 < sigma - lower < 0.05 * sigma
        sizes.append(gradient(objective, 0.0, sigma, lower))
    assert sizes[0] / sizes[1] == pytest.approx(2, rel=0.05)
    assert sizes[1] / sizes[2] == pytest.approx(2, rel=0.05)
    sigma, lower = objective.levels(64, seeded(), progress=0.0)
    assert not lower[sigma < 1.9].any()
    x0, z = cubature()
    sigma = torch.full((len(x0),), 0.7, dtype=x0.dtype)
    residual = objective.residual(DenoiserMap(TEACHER), draw(0.7, 0.0))
    expected = (TEACHER(x0 + 0.7 * z, sigma) - x0) / math.sqrt(0.7)
    torch.testing.assert_close(residual, expected)


@pytest.mark.parametrize(("progress", "stage"), [(0.0, 0), (0.13, 1), (0.99, 7), (1.0, 7)])
def test_the_gap_of_easy_tuning_is_that_of_its_paper(progress, stage):
    """r / sigma = 1 - (1 + 8 sigmoid(-sigma)) / 2^(stage + 1), at least 0, in eight stages of equal length."""
    sigma, lower = EasyConsistency(noise=NOISE).levels(64, seeded(), progress)
    gap = (1 + 8 / (1 + sigma.exp())) / 2 ** (stage + 1)
    torch.testing.assert_close(lower, sigma * (1 - gap).clamp(min=0))


class Shifted(FlowMap):
    """The exact map whose average denoiser is off by one everywhere."""

    def average(self, x, sigma, sigma_to, cond=None):
        return EXACT.average(x, sigma, sigma_to) + 1


@pytest.mark.parametrize("sigma", [0.1, 20.0])
def test_progressive_distillation_weighs_by_the_truncated_snr(sigma):
    """max(1 / sigma^2, 1) of the squared error of x0: section 4 of arXiv:2202.00512."""
    objective = ProgressiveDistillation(teacher=EXACT, sigmas=GRID)
    residual = objective.residual(Shifted(), draw(sigma, sigma / 2, sigma / 4))
    torch.testing.assert_close(residual.square(), torch.full_like(residual, max(sigma**-2, 1)))


def test_one_step_generators_start_as_their_sampler_does():
    """At sd sqrt(sigma_data^2 + sigma_max^2), in one call from sigma_max to 0, with every member's own noise."""
    starts = []

    class Recording(FlowMap):
        def average(self, x, sigma, sigma_to, cond=None):
            starts.append(x)
            assert (sigma == 0.5).all()
            assert (sigma_to == 0).all()
            return x

    OneStepCRPS(sigma_max=0.5, members=3, sigma_data=1.2)(Recording(), torch.zeros(4000, 1, 5), None, seeded())
    assert starts[0].shape == (12_000, 1, 5)
    assert float(starts[0].std()) == pytest.approx(1.3, rel=0.02)
    assert float((starts[0][0::3] * starts[0][1::3]).mean()) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(("step", "order"), [(DenoiserMap, 2), (HeunMap, 3)])
def test_consistency_distillation_inherits_the_order_of_the_teachers_step(step, order):
    objective = ConsistencyDistillation(teacher=step(TEACHER), sigmas=GRID)
    error = [float(objective.residual(EXACT, draw(2.0, 2.0 * (1 - h))).abs().max()) for h in (0.02, 0.01)]
    assert math.log2(error[0] / error[1]) == pytest.approx(order, abs=0.1)


def test_progressive_distillation_of_a_denoiser_closes_in_on_the_exact_map():
    """Two DDIM steps per step of the student: its target's error falls linearly with the step."""
    error = []
    for steps in (64, 128):
        grid = karras(steps, 0.02, 20.0)
        objective = ProgressiveDistillation(teacher=DenoiserMap(TEACHER), sigmas=grid)
        at = steps // 2
        error.append(float(objective.residual(EXACT, draw(*grid[at : at + 3])).abs().max()))
    assert error[0] / error[1] == pytest.approx(2, rel=0.1)
    assert list(objective.halved(EXACT).sigmas) == list(grid[::2])


def test_meanflow_on_the_diagonal_is_the_flow_matching_loss():
    """The error of the velocity z = (x - x0) / sigma, in units of the network's answer."""
    student, at = Perturbed(0.1), draw(0.7, 0.7)
    x = at.at(at.levels[0])
    velocity_error = at.z - (x - Diagonal(student)(x, at.levels[0])) / 0.7
    residual = MeanFlow(noise=NOISE, offset=None).residual(student, at)
    torch.testing.assert_close(residual, math.hypot(1, 0.7) * velocity_error)


@pytest.mark.parametrize("levels", [(3.0, 0.2), (0.4, 0.0)])
def test_meanflow_is_the_papers_loss_on_the_path_of_exploding_variance(levels):
    """u - sg(v - (t - r) du/dt) with u, v, t of the paper, t = sigma and v = z; du/dt by finite differences."""
    student, at, (t, r), h = Perturbed(0.1), draw(*levels), levels, 1e-5

    def velocity(z_t, t):
        sigma = torch.full((len(z_t),), t, dtype=z_t.dtype)
        return (z_t - student(z_t, sigma, torch.full_like(sigma, r))) / (t - r)

    x, v = at.x0 + t * at.z, at.z
    change = (velocity(x + h * v, t + h) - velocity(x - h * v, t - h)) / (2 * h)
    expected = velocity(x, t) - (v - (t - r) * change)
    residual = MeanFlow(noise=NOISE, offset=None).residual(student, at)
    torch.testing.assert_close(-residual, math.hypot(1, t) * expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("progress", [0.0, 0.04, 1.0])
def test_scm_is_the_papers_tangent_on_the_trigonometric_path(progress):
    """g = -cos^2 (F - dx/dt) - r sin cos (x + dF/dt) of algorithm 1, its derivative taken by finite differences."""
    student, at, sd = Perturbed(0.1), draw(1.7, 0.0), 0.5
    t, r, h = math.atan(1.7 / sd), min(progress / 0.1, 1.0), 1e-5

    def network(x_t, t):
        sigma = torch.full((len(x_t),), sd * math.tan(t), dtype=x_t.dtype)
        answer = student.average(x_t / math.cos(t), sigma, torch.zeros_like(sigma))
        return (math.cos(t) * x_t - answer) / (math.sin(t) * sd)

    z = sd * at.z * (1.7 / (sd * math.tan(t)))
    x_t, rate = math.cos(t) * at.x0 + math.sin(t) * z, math.cos(t) * z - math.sin(t) * at.x0
    change = (network(x_t + h * rate, t + h) - network(x_t - h * rate, t - h)) / (2 * h)
    first = -(math.cos(t) ** 2) * (sd * network(x_t, t) - rate)
    g = (first - r * math.sin(t) * math.cos(t) * (x_t + sd * change)) / sd
    residual = ContinuousConsistency(noise=NOISE, offset=None, sigma_data=sd).residual(
        student, Draw(at.x0, at.z, at.levels, progress=progress)
    )
    torch.testing.assert_close(residual, g, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("objective", [ContinuousConsistency(noise=NOISE), MeanFlow(noise=NOISE)])
def test_normalised_tangents_are_at_most_one(objective):
    """And near it, however large: an answer that is far off is not given up, nor followed further than others."""
    near, far = (objective.residual(Perturbed(off), draw(20.0, 0.0)).detach().square().mean((1, 2)) for off in (1, 1e4))
    assert float(near.max()) < 1
    assert 0.99 < float(far.min()) <= float(far.max()) < 1


def test_derivatives_through_a_real_network_agree_with_finite_differences():
    """A UNet with attention and cross-attention, per sample at different levels; its embedding is float32."""
    torch.manual_seed(0)
    settings = UNetSettings(channels=8, multipliers=[1, 2], blocks=1, attention=[1], embedding=16)
    unet = UNet(
        1,
        1,
        rank=2,
        boundary=("periodic", "reflect"),
        vector_features=NetworkMap.features,
        token_features=3,
        settings=settings,
    )
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.1)
    student = NetworkMap(Preconditioned(unet.double())).eval()
    x, end = (torch.randn(2, 1, 6, 7, generator=seeded(s), dtype=torch.float64) for s in (0, 1))
    cond = Context(tokens=torch.randn(2, 4, 3, generator=seeded(2), dtype=torch.float64))
    sigma, sigma_to = torch.tensor([2.0, 0.3]).double(), torch.tensor([0.5, 0.0]).double()
    got = trajectory_derivative(student, x, sigma, sigma_to, end, cond)
    with torch.no_grad():
        ahead, behind = (student(x + h * (x - end), sigma * math.exp(h), sigma_to, cond) for h in (1e-3, -1e-3))
    torch.testing.assert_close(got, (ahead - behind) / 2e-3, rtol=0, atol=1e-5)
    assert not got.requires_grad
    assert float(got.abs().max()) > 0.1


@pytest.mark.parametrize(
    "objective", [EasyConsistency(noise=NOISE), ConsistencyDistillation(teacher=EXACT, sigmas=GRID)]
)
def test_student_and_target_drop_the_same_activations(objective):
    """Else their difference would not close with the gap; and the next call drops others."""
    dropping = nn.Sequential(nn.Linear(5, 64), nn.Dropout(0.5), nn.Linear(64, 5)).double()

    class Dropping(FlowMap):
        def average(self, x, sigma, sigma_to, cond=None):
            return dropping(x)

    student, at = Dropping().train(), draw(1.0, 1.0 - 1e-8)
    residual = objective.residual(student, at)
    assert float(residual.detach().abs().max()) < 1e-3
    assert not torch.equal(student(at.x0, *at.levels), student(at.x0, *at.levels))


def test_the_exact_generator_is_a_minimum_of_the_fair_crps():
    """Scaling the map by 1 + e changes the expected score by 0 to first order: measured within its standard error."""
    law = DenseGaussian(torch.zeros(1, dtype=torch.float64), torch.tensor([[0.49]], dtype=torch.float64))
    objective = OneStepCRPS(sigma_max=10.0, members=4, alpha=1.0, sigma_data=0.7)
    x0 = law.sample(30_000, seeded())

    class Scaled(FlowMap):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def average(self, x, sigma, sigma_to, cond=None):
            return self.scale * law.flow_map().average(x, sigma, sigma_to)

    scores = {e: objective(Scaled(1 + e), x0, None, seeded(1)) for e in (-0.3, -0.01, 0.0, 0.01, 0.3)}
    slope = (scores[0.01] - scores[-0.01]) / 0.02
    assert abs(float(slope.mean())) < 4 * float(slope.std()) / math.sqrt(len(x0))
    assert float(scores[0.0].mean()) < min(float(scores[e].mean()) for e in (-0.3, 0.3))
    assert float(scores[0.0].mean()) == pytest.approx(law.crps_floor(), rel=0.02)


class Tiny(nn.Module):
    """A small network of one cell's value, its level and its target."""

    def __init__(self, features):
        super().__init__()
        torch.manual_seed(0)
        sizes = [2 + features, 48, 48]
        hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(48, 1))

    def forward(self, x, c_noise, cond):
        inputs = [x.flatten(1), c_noise[:, None]] + ([] if cond is None else [cond.vector])
        return self.layers(torch.cat(inputs, dim=1)).reshape(x.shape)


POINT = DenseGaussian(torch.tensor([0.5]), torch.tensor([[0.36]]))
TOP = 10.0


def train(objective, student, steps, rate=1e-2):
    generator = seeded(3)
    optimiser = torch.optim.Adam(student.parameters(), lr=rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        optimiser.zero_grad()
        x0 = POINT.sample(192, generator)
        objective(student, x0, None, generator, progress=step / steps).mean().backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def error(student, sigmas=(TOP, 0.0), truth=None):
    """Rms distance to the exact map at the quantiles of the start, in units of the data's sd."""
    u = (torch.arange(99) + 1) / 100
    x = 0.5 + math.hypot(0.6, TOP) * torch.special.ndtri(u)[:, None, None]
    truth = POINT.flow(x, TOP, 0.0) if truth is None else truth(x)
    return float((sample_map(student, x, sigmas) - truth).square().mean().sqrt()) / 0.6


def student_map():
    return NetworkMap(Preconditioned(Tiny(NetworkMap.features)))


LEVELS = NoiseRange(0.02, TOP, distribution="loguniform")
LEARNT = {
    "consistency distillation": ConsistencyDistillation(
        teacher=HeunMap(POINT.denoiser()), sigmas=karras(18, 0.02, TOP)
    ),
    "scm distillation": ContinuousConsistency(noise=LEVELS, teacher=POINT.denoiser()),
    "scm training": ContinuousConsistency(noise=LEVELS),
    "meanflow distillation": MeanFlow(noise=LEVELS, teacher=POINT.denoiser(), diagonal=0.25),
    "meanflow": MeanFlow(noise=LEVELS, diagonal=0.25, offset=None),
    "crps": OneStepCRPS(sigma_max=TOP, members=8, alpha=1.0),
}


@pytest.mark.parametrize("name", list(LEARNT))
def test_a_tiny_network_approaches_the_exact_map_in_one_step(name):
    """From no relation (1.1 sd) to about a tenth of the data's sd, in 200 steps."""
    student = student_map()
    assert error(student) > 1
    train(LEARNT[name], student, 200)
    assert error(student) < 0.25


def test_easy_tuning_turns_a_denoiser_into_a_one_step_sampler():
    """A trained denoiser answers a start of pure noise with the mean, 0.99 sd away from the map."""
    student = DenoiserMap(Preconditioned(Tiny(0)))
    untuned = error(DenoiserMap(POINT.denoiser()))
    train(EasyConsistency(noise=LEVELS), student, 250)
    assert untuned > 0.9
    assert error(student) < 0.1


def test_progressive_distillation_makes_one_step_of_eight():
    """Three rounds; each ends near the eight steps of the first teacher."""
    student = student_map()
    objective = ProgressiveDistillation(teacher=DenoiserMap(POINT.denoiser()), sigmas=karras(8, 0.05, TOP))

    def eight(x):
        return sample(POINT.denoiser(), x, karras(8, 0.05, TOP), "euler")

    assert error(student, truth=eight) > 0.9
    for steps in (4, 2, 1):
        train(objective, student, 100)
        assert len(objective.student_sigmas) == steps + 1
        assert error(student, objective.student_sigmas, eight) < 0.25
        if steps > 1:
            objective = objective.halved(copy.deepcopy(student).requires_grad_(False))


def test_losses_ignore_what_stands_at_invalid_cells_and_use_all_weights():
    valid = torch.tensor([True, True, False, True, True]).expand(6, 1, 5)
    cond = Context(valid=valid)
    x0 = LAW.sample(6, seeded())
    spoilt = torch.where(valid, x0, torch.nan)
    uncertainty = LearnedUncertainty(8).double()
    for objective in (
        MeanFlow(noise=NOISE, teacher=TEACHER),
        ContinuousConsistency(noise=NOISE, uncertainty=uncertainty),
        EasyConsistency(noise=NOISE),
        ConsistencyDistillation(teacher=EXACT, sigmas=GRID),
        ProgressiveDistillation(teacher=DenoiserMap(TEACHER), sigmas=GRID),
        OneStepCRPS(sigma_max=20.0),
    ):
        student = NetworkMap(Masked(Diagonal(Perturbed(0.1))))
        losses = [objective(student, data, cond, seeded(1)) for data in (torch.where(valid, x0, 7.0), spoilt)]
        assert losses[0].shape == (6,)
        assert losses[0].isfinite().all()
        assert torch.equal(*losses)
        area = torch.tensor([0.5, 2.0, 1.0, 0.3, 1.2])
        weighed, same = (objective(student, x0, cond, seeded(1), weights=w) for w in (area, torch.ones(5)))
        torch.testing.assert_close(same, losses[0])
        assert not torch.allclose(weighed, losses[0], rtol=1e-3)
        losses[0].mean().backward()
        assert next(student.parameters()).grad.isfinite().all()
