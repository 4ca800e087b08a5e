"""On Gaussian fields the posterior is known: MMPS meets it with every solver, others miss it as documented."""

from functools import cache

import numpy as np
import pytest
import torch

from sciffusion.diffusion import karras, sample, solver_gain, solvers
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.guidance import DPS, MMPS, TMPD, PiGDM, Replacement, by_name
from sciffusion.diffusion.problems import GaussianField, GaussianMixture, power_law
from sciffusion.diffusion.problems.gaussian import matrix
from sciffusion.operators import BlockMean, Mask, Points, Stations, stack

DOUBLE = torch.float64
START = 8.0  # samples start from the exact law at this level, so it need not be far above the field


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def levels(steps):
    return karras(steps, 0.01, START)


class Problem:
    """A field, observations of it with errors of unequal variance, and the exact posterior."""

    def __init__(self, field, operator, variance, seed=0):
        self.field, self.operator, self.shape = field, operator, field.shape
        self.variance = torch.as_tensor(variance, dtype=DOUBLE).expand(operator.out_shape)
        draw = seeded(seed)
        error = torch.randn(1, 1, *operator.out_shape, generator=draw, dtype=DOUBLE)
        self.y = operator(field.sample(1, draw)) + self.variance.sqrt() * error
        scale = self.variance.rsqrt()  # whitened, so that one variance serves
        self.posterior = field.posterior(scale * operator, (scale * self.y)[0, 0], 1.0)

    def start(self, batch, sigma=START):
        """Draws of the noisy posterior."""
        draw = seeded(1)
        z = torch.randn(batch, 1, *self.shape, generator=draw, dtype=DOUBLE)
        return self.posterior.sample(batch, draw) + sigma * z

    def guided(self, method, **settings):
        return method(self.field.denoiser(), self.operator, self.y, self.variance, **settings)


@cache
def small():
    """Ten cells; two cells, a station between cells and two block means, with errors of sd 0.3 to 0.45."""
    operator = stack([Points([[2], [3]], (10,)), Stations([[6.4]], (10,)), BlockMean((10,), (5,))])
    return Problem(GaussianField(power_law(2.0), (10,), mean=0.3), operator, [0.1, 0.15, 0.2, 0.1, 0.1])


@cache
def stations():
    """A plane with 16 stations on its 256 cells, errors of sd 0.1."""
    at = torch.cartesian_prod(torch.arange(1, 16, 4), torch.arange(1, 16, 4))
    return Problem(GaussianField(power_law(4.0, outer=2.0), (16, 16)), Points(at, (16, 16)), 0.01), at


@cache
def half():
    """The same plane seen in every cell of its left half: neighbours know about each other."""
    valid = torch.zeros(16, 16, dtype=torch.bool)
    valid[:, :8] = True
    return Problem(GaussianField(power_law(4.0, outer=2.0), (16, 16)), Points(valid.nonzero(), (16, 16)), 0.01), valid


def push_forward(problem, denoiser, grid, solver, **settings):
    """Mean and covariance of the samples without sampling: everything is affine, so unit vectors tell all."""
    prior = problem.posterior.covariance()
    root = torch.linalg.cholesky(prior + grid[0] ** 2 * torch.eye(len(prior), dtype=DOUBLE))
    starts = torch.cat([torch.zeros(1, len(prior), dtype=DOUBLE), root.T]).reshape(-1, 1, *problem.shape)
    ends = sample(denoiser, problem.posterior.mean + starts, grid, solver, **settings).flatten(1)
    linear = ends[1:] - ends[0]
    return ends[0], linear.T @ linear


SOLVERS = [
    ("euler", {}),
    ("heun", {}),
    ("dpmpp-2s", {}),
    ("dpmpp-2m", {}),
    ("dpmpp-3m", {}),
    ("unipc", {}),
    ("unipc", {"order": 3}),
    ("adams", {}),
    ("adams", {"order": 4, "correct": True}),
]


def enough_steps(solver, settings, variance):
    """The fewest steps in powers of two at which the solver itself is good to 0.3 % of the sd."""
    for steps in 2 ** np.arange(3, 13):
        if np.abs(solver_gain(solver, levels(steps), variance, **settings) - 1).max() < 0.003:
            return int(steps)
    raise AssertionError("no number of steps is enough")


def test_every_deterministic_solver_is_among_those_compared():
    """By name, or by being Euler under another one."""
    same = {name for name in solvers.names() if solvers.plan(name, levels(9)) == solvers.plan("euler", levels(9))}
    deterministic = {name for name in solvers.names() if not solvers.plan(name, levels(9)).stochastic}
    assert deterministic == same | {name for name, _ in SOLVERS}


@pytest.mark.parametrize(("solver", "settings"), SOLVERS)
def test_mmps_is_the_exact_posterior_with_every_deterministic_solver(solver, settings):
    problem = small()
    exact = problem.posterior.covariance()
    steps = enough_steps(solver, settings, problem.posterior.spectrum.numpy())
    mean, covariance = push_forward(problem, problem.guided(MMPS), levels(steps), solver, **settings)
    spread = (covariance.diagonal() / exact.diagonal()).sqrt()
    assert float((spread - 1).abs().max()) < 0.01
    error = mean - problem.posterior.mean.flatten()
    chi_squared = torch.linalg.solve(exact, covariance).trace() + error @ torch.linalg.solve(exact, error)
    assert float(chi_squared) / len(exact) == pytest.approx(1.0, abs=0.01)
    assert float((error**2 / exact.diagonal()).max()) < 0.01**2


def test_members_guided_by_mmps_are_draws_of_the_posterior():
    """20,000 members: one standard error of a spread ratio is 0.5 %, of chi^2 per degree of freedom 0.3 %."""
    problem = small()
    ends = sample(problem.guided(MMPS), problem.start(20_000), levels(32), "adams").flatten(1)
    exact, mean = problem.posterior.covariance(), problem.posterior.mean.flatten()
    assert float((ends.std(0) / exact.diagonal().sqrt()).mean()) == pytest.approx(1.0, abs=0.01)
    chi_squared = ((ends - mean) * torch.linalg.solve(exact, (ends - mean).T).T).sum(1)
    assert float(chi_squared.mean()) / 10 == pytest.approx(1.0, abs=0.01)
    assert float(((ends.mean(0) - mean) / exact.diagonal().sqrt()).abs().max()) < 4 / 20_000**0.5


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0, 8.0])
def test_mmps_is_the_denoiser_of_the_posterior_at_every_level(sigma):
    problem = small()
    x, s = problem.start(5, sigma), torch.full((5,), sigma, dtype=DOUBLE)
    exact = problem.posterior.denoiser()(x, s)
    torch.testing.assert_close(problem.guided(MMPS)(x, s), exact, rtol=0, atol=1e-5)
    for method in (TMPD, PiGDM, DPS, Replacement) if sigma > 0.1 else ():
        assert float((problem.guided(method)(x, s) - exact).abs().max()) > 1e-3


def test_each_method_is_equation_6_of_the_theory_written_out():
    """On a mixture, whose Jacobian depends on x, with dense matrices and errors of unequal variance."""
    problem = small()
    law = GaussianMixture([GaussianField(power_law(3.0), (10,), mean=m) for m in (1.0, -0.5)])
    prior, sigma = law.denoiser(), torch.full((1,), 0.7, dtype=DOUBLE)
    x = problem.start(1, 0.7)
    answer = prior(x, sigma).flatten()
    j = torch.autograd.functional.jacobian(lambda u: prior(u, sigma), x).reshape(10, 10)
    a, r = matrix(problem.operator, x), torch.diag(problem.variance)
    misfit, seen = problem.y.flatten() - a @ answer, 0.49 * a @ j.T @ a.T
    weights = r.inverse() / r.inverse().trace() * 5
    duals = {
        "mmps": torch.linalg.solve(r + seen, misfit),
        "tmpd": misfit / (r.diagonal() + seen.sum(1)),
        "pigdm": torch.linalg.solve(r + 0.49 / 1.49 * a @ a.T, misfit),
        "dps": 10.0 * weights @ misfit / (misfit @ weights @ misfit).sqrt(),
    }
    for name, v in duals.items():
        guided = by_name(name)(prior, problem.operator, problem.y, problem.variance)(x, sigma)
        torch.testing.assert_close(guided.flatten(), answer + 0.49 * j.T @ a.T @ v, rtol=1e-5, atol=1e-5)


def test_few_iterations_of_mmps_are_enough_where_neighbours_are_many():
    """128 observed cells: the error of D falls with the iterations, and eight are near the posterior's denoiser."""
    problem, _ = half()
    x, s = problem.start(4), torch.full((4,), 0.3, dtype=DOUBLE)
    exact = problem.posterior.denoiser()(x, s)
    errors = [float((problem.guided(MMPS, iterations=n)(x, s) - exact).square().mean().sqrt()) for n in (1, 4, 16, 64)]
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2
    assert errors[3] < 1e-4


@pytest.mark.parametrize(("iterations", "products"), [(None, 9), (3, 4)])
def test_mmps_costs_one_call_and_as_many_products_as_it_says(iterations, products):
    """Eight unless told, and the last one; none more for a batch, and fewer once a solve has converged."""
    problem, _ = half()
    prior, counted = problem.field.denoiser(), []

    class Counting(Denoiser):
        def forward(self, x, sigma, cond=None):
            counted.append("call")
            x.register_hook(lambda _: counted.append("product"))
            return prior(x, sigma, cond)

    settings = {} if iterations is None else {"iterations": iterations}
    for operator, y, most in (
        (problem.operator, problem.y, products),
        (Points([[1, 1]], (16, 16)), torch.ones(1, 1, 1), 2),
    ):
        counted.clear()
        MMPS(Counting(), operator, y.double(), 0.01, **settings)(problem.start(3), torch.full((3,), 0.3, dtype=DOUBLE))
        assert (counted.count("call"), counted.count("product")) == (1, most)


def test_mmps_finds_the_regime_of_a_mixture_that_the_observations_tell():
    """Two regimes of opposite mean; the observations leave no doubt, and the posterior is that of one component."""
    pattern = 2 * torch.sin(torch.arange(10, dtype=DOUBLE))
    laws = [GaussianField(power_law(3.0), (10,), variance=0.2, mean=m) for m in (pattern, -pattern)]
    operator = Points([[1], [4], [8]], (10,))
    y = operator(pattern)[None, None]
    exact = GaussianMixture(laws).posterior(operator, y[0, 0], 0.05)
    assert float(exact.weights[0]) > 0.999
    guided = MMPS(GaussianMixture(laws).denoiser(), operator, y, 0.05)
    start = START * torch.randn(400, 1, 10, generator=seeded(), dtype=DOUBLE)
    ends = sample(guided, start, levels(32), "adams")[:, 0]
    right = (ends * pattern).sum(1) > 0
    assert float(right.double().mean()) > 0.97  # V is only the covariance of a mixture, so not every member finds it
    law = exact.laws[0]
    assert float(((ends[right].mean(0) - law.mean) / law.cell_sd()).abs().max()) < 0.5
    assert float((ends[right].std(0) / law.cell_sd()).mean()) == pytest.approx(1.0, abs=0.2)


def spread_ratio(problem, denoiser, cells, steps=20):
    """Sd of 300 members over the exact one, mean over observed cells and over the others."""
    ratio = sample(denoiser, problem.start(300), levels(steps), "adams").std(0)[0] / problem.posterior.cell_sd()
    return float(ratio[cells].mean()), float(ratio[~cells].mean())


def observed(at):
    cells = torch.zeros(16, 16, dtype=torch.bool)
    cells[at[:, 0], at[:, 1]] = True
    return cells


def test_replacement_and_pigdm_without_errors_have_no_spread_at_observed_cells():
    problem, at = stations()
    for denoiser in (problem.guided(Replacement), PiGDM(problem.field.denoiser(), problem.operator, problem.y, 1e-8)):
        assert spread_ratio(problem, denoiser, observed(at))[0] < 0.01


def test_replacement_tells_the_neighbours_too_little():
    problem, at = stations()
    inside, outside = spread_ratio(problem, problem.guided(MMPS), observed(at))
    assert (inside, outside) == pytest.approx((1.0, 1.0), abs=0.05)
    assert spread_ratio(problem, problem.guided(Replacement), observed(at))[1] > 1.1


def test_pigdm_is_exact_for_white_fields_and_over_dispersed_at_stations_of_correlated_ones():
    white = Problem(GaussianField(np.ones_like, (10,)), Points([[2], [7]], (10,)), 0.04)
    x, s = white.start(3), torch.tensor([0.1, 1.0, 10.0], dtype=DOUBLE)
    torch.testing.assert_close(white.guided(PiGDM)(x, s), white.posterior.denoiser()(x, s), rtol=0, atol=1e-5)
    problem, at = stations()
    assert 1.4 < spread_ratio(problem, problem.guided(PiGDM), observed(at))[0] < 1.9


def test_tmpd_is_good_for_stations_apart_and_biased_for_neighbours():
    problem, at = stations()
    assert spread_ratio(problem, problem.guided(TMPD), observed(at)) == pytest.approx((1.0, 1.0), abs=0.06)
    crowded, valid = half()
    assert spread_ratio(crowded, crowded.guided(TMPD), valid)[0] > 1.3


def test_dps_trades_its_misfit_for_its_spread_by_zeta():
    """Weak guidance leaves observations unheard, strong guidance gives them no spread: no zeta is the posterior."""
    problem, at = stations()
    weak, strong = (spread_ratio(problem, problem.guided(DPS, zeta=z), observed(at), 80)[0] for z in (1.0, 30.0))
    assert weak > 3
    assert strong < 0.1


def test_a_missing_value_is_no_observation():
    problem = small()
    x, s = problem.start(3), torch.tensor([0.1, 1.0, 10.0], dtype=DOUBLE)
    kept = torch.tensor([0, 2])
    gappy = torch.full((1, 1, 10), torch.nan, dtype=DOUBLE)
    gappy[..., kept] = torch.tensor([1.0, -1.0], dtype=DOUBLE)
    prior, everywhere = problem.field.denoiser(), Points(torch.arange(10)[:, None], (10,))
    for name in ("mmps", "tmpd", "pigdm", "dps", "replacement"):
        few = by_name(name)(prior, Points(kept[:, None], (10,)), gappy[..., kept], 0.1)
        torch.testing.assert_close(by_name(name)(prior, everywhere, gappy, 0.1)(x, s), few(x, s))


@pytest.mark.parametrize("name", ["mmps", "tmpd", "pigdm", "dps", "replacement"])
def test_nothing_observed_is_no_guidance(name):
    """For one sample of the batch; the other has its observations."""
    problem = small()
    x, s = problem.start(2), torch.tensor([0.1, 3.0], dtype=DOUBLE)
    y = torch.stack([torch.full_like(problem.y[0], torch.nan), problem.y[0]])
    prior = problem.field.denoiser()
    guided = by_name(name)(prior, problem.operator, y, problem.variance)(x, s)
    torch.testing.assert_close(guided[0], prior(x, s)[0])
    torch.testing.assert_close(guided[1:], problem.guided(by_name(name))(x[1:], s[1:]))


def test_a_mask_is_the_points_that_it_shows():
    """Gap filling: what the mask hides is no observation, whatever value stands there."""
    problem, valid = half()
    x, s = problem.start(2), torch.tensor([0.3, 3.0], dtype=DOUBLE)
    field = torch.zeros(1, 1, 16, 16, dtype=DOUBLE)
    field[..., valid] = problem.y
    field[..., ~valid] = 1e3
    for name in ("mmps", "tmpd", "pigdm", "dps", "replacement"):
        points = by_name(name)(problem.field.denoiser(), problem.operator, problem.y, 0.01)
        mask = by_name(name)(problem.field.denoiser(), Mask(valid), field, 0.01)
        torch.testing.assert_close(mask(x, s), points(x, s), rtol=1e-7, atol=1e-7)


def test_observations_of_one_channel_leave_independent_channels_alone():
    problem = small()
    x, s = problem.start(3).expand(3, 2, 10), torch.tensor([0.1, 1.0, 10.0], dtype=DOUBLE)
    prior = problem.field.denoiser()
    alone = problem.guided(MMPS)(x[:, :1], s)
    both = MMPS(prior, problem.operator, problem.y, problem.variance, channels=[1])(x, s)
    torch.testing.assert_close(both[:, 1:], alone)
    torch.testing.assert_close(both[:, :1], prior(x[:, :1], s))
