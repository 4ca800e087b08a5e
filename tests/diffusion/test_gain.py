"""For Gaussian data the covariance that a solver gives is known: the closed form, the weak orders, the choice by it."""

import numpy as np
import pytest
import torch

from sciffusion.diffusion import karras, sample, solvers
from sciffusion.diffusion.problems import GaussianField, power_law
from sciffusion.diffusion.sampling import gaussian
from sciffusion.diffusion.sigmas import NoiseRange
from sciffusion.diffusion.solvers.gain import _call, _update, best_sampler, solver_gain
from sciffusion.errors import SciffusionError
from sciffusion.stage_settings import Sampler

MODES = np.array([5.0, 1.0, 0.1, 0.01])
STOCHASTIC = [
    ("heun", {"churn": 40.0}),
    ("euler", {"churn": 20.0, "s_tmin": 0.1, "s_tmax": 10.0}),
    ("ddim", {"eta": 0.7}),
    ("ddpm", {"variance": "small"}),
    ("ddpm", {"variance": "large"}),
    ("euler-maruyama", {}),
    ("predictor-corrector", {"corrections": 2}),
    ("dpmpp-1-sde", {}),
    ("dpmpp-2s-sde", {}),
    ("dpmpp-2m-sde", {"eta": 0.5}),
    ("dpmpp-3m-sde", {}),
]


def grid(steps):
    return np.geomspace(20.0, 0.05, steps + 1)


def error(solver, steps, **settings):
    return float(np.abs(solver_gain(solver, grid(steps), MODES, **settings) - 1).max())


@pytest.mark.parametrize(("steps", "unit", "small"), [(18, 0.045, 0.16), (32, 0.013, 0.030), (64, 0.003, -0.009)])
def test_heun_on_the_edm_grid_misses_the_sd_by_the_known_amounts(steps, unit, small):
    gain = solver_gain("heun", karras(steps, 0.002, 80.0), [1.0, 1e-4]) - 1
    assert gain == pytest.approx([unit, small], abs=0.05 * max(unit, abs(small)) + 5e-4)


@pytest.mark.parametrize(("solver", "settings"), STOCHASTIC)
def test_covariance_of_samples_is_the_closed_form(solver, settings):
    """60,000 values of each mode: the sd is known to 0.3 % (one standard error), the test allows four."""
    field = GaussianField(power_law(4.0, outer=2.0), (8,))
    generator = torch.Generator().manual_seed(0)
    start = field.sample(60_000, generator) + 20 * torch.randn(60_000, 1, 8, generator=generator, dtype=torch.float64)
    levels = np.append(grid(9), 0.0)
    end = sample(field.denoiser(), start, levels, solver, noise=gaussian(start, generator), **settings)
    measured = torch.fft.rfft(end, norm="ortho").abs().square().mean((0, 1)).sqrt().numpy()
    gain = solver_gain(solver, levels, field.modes.numpy(), **settings)
    np.testing.assert_allclose(measured / field.modes.sqrt().numpy(), gain, rtol=0.012)


CALLS = (8, 16, 32)


def grid_of(solver, calls, settings):
    """The Karras grid of most steps that ``calls`` calls allow."""
    steps = max(n for n in range(1, calls + 1) if solvers.calls(solver, n, **settings) <= calls)
    return karras(steps, 0.002, 80.0)


@pytest.mark.parametrize(
    ("solver", "settings", "kept"),
    [
        ("euler", {}, (0.3, 0.6, 0.78)),
        ("ddim", {"eta": 1.0}, (0.2, 0.4, 0.63)),
        ("heun", {}, (15.0, 2.5, 1.27)),
        ("dpmpp-2m", {}, (0.93, 1.18, 1.06)),
        ("adams", {}, (0.82, 1.0, 1.0)),
    ],
)
def test_spectrum_ratio_against_network_calls(solver, settings, kept):
    """Small-scale power (k > n / 4) of samples over the field's is what the closed form says: solvers bias spectra.

    At 32 calls Euler keeps 78 % of it and ancestral sampling 63 %, while Heun makes 27 % too much. 16 samples of 3,300
    modes: the power is known to 0.9 % (one standard error).
    """
    field, draw = GaussianField(power_law(4.0), (64, 64)), torch.Generator().manual_seed(0)
    high, modes = field.wavenumber() > 16, field.modes.numpy()
    clean, z = field.sample(16, draw), torch.randn(16, 1, 64, 64, generator=draw, dtype=torch.float64)
    for calls, expected in zip(CALLS, kept, strict=True):
        levels = grid_of(solver, calls, settings)
        end = sample(field.denoiser(), clean + 80 * z, levels, solver, noise=gaussian(z, draw), **settings)
        measured = torch.fft.rfft2(end, norm="ortho").abs().square().mean((0, 1)).numpy()
        closed = modes * solver_gain(solver, levels, modes, **settings) ** 2
        ratio = closed[high].sum() / modes[high].sum()
        assert ratio == pytest.approx(expected, rel=0.02 if calls == 32 else 0.4)
        assert measured[high].sum() == pytest.approx(closed[high].sum(), rel=0.04)


@pytest.mark.parametrize(
    ("solver", "settings", "order"),
    [
        ("euler", {"churn": 10.0}, 1),
        ("ddim", {"eta": 1.0}, 1),
        ("ddpm", {"variance": "small"}, 1),
        ("ddpm", {"variance": "large"}, 1),
        ("euler-maruyama", {}, 1),
        ("dpmpp-1-sde", {}, 1),
        ("heun", {"churn": 10.0}, 2),
        ("dpmpp-2s-sde", {}, 2),
        ("dpmpp-2m-sde", {}, 2),
        ("dpmpp-3m-sde", {}, 2),
    ],
)
def test_weak_order_of_stochastic_solvers(solver, settings, order):
    assert np.log2(error(solver, 256, **settings) / error(solver, 512, **settings)) >= order - 0.15


def test_every_stochastic_solver_is_compared_to_its_closed_form():
    by_itself = {name for name in solvers.names() if solvers.plan(name, grid(4)).stochastic}
    assert by_itself <= {solver for solver, _ in STOCHASTIC}


def test_predictor_corrector_converges_with_its_steps_and_step_size():
    """A Langevin step of size q is biased by O(q) = O(snr^2), an Euler-Maruyama step by O(h): both fall together."""
    errors = [error("predictor-corrector", n, snr=0.16 * (128 / n) ** 0.5) for n in (128, 512, 2048)]
    assert errors[1] < 0.3 * errors[0]
    assert errors[2] < 0.3 * errors[1]


def test_corrections_mend_what_too_few_steps_of_the_predictor_spoil():
    assert error("predictor-corrector", 16, corrections=8) < 0.5 * error("euler-maruyama", 16)


def test_noise_inflation_raises_the_spread():
    plain, inflated = (solver_gain("heun", grid(18), MODES, churn=30.0, s_noise=s) for s in (1.0, 1.05))
    assert (inflated > plain).all()


def test_ddim_is_euler_and_ancestral_sampling_at_its_ends():
    assert solvers.plan("ddim", grid(7)) == solvers.plan("euler", grid(7))
    ancestral, small = solvers.plan("ddim", grid(7), eta=1.0), solvers.plan("ddpm", grid(7))
    for a, b in zip(ancestral.rows, small.rows, strict=True):
        assert (a.x[0], a.noise) == pytest.approx((b.x[0], b.noise), rel=1e-9)


def test_large_ddpm_variance_is_exact_for_unit_gaussian_data():
    np.testing.assert_allclose(solver_gain("ddpm", grid(5), [1.0], variance="large"), 1.0, rtol=1e-12)


def test_adams_two_with_the_midpoint_rule_is_2m_to_second_order():
    a, b = solvers.plan("adams", grid(64), order=2, prediction="data"), solvers.plan("dpmpp-2m", grid(64))
    h = np.log(20 / 0.05) / 64
    assert max(abs(p.b[0] - q.b[0]) for p, q in zip(a.rows, b.rows, strict=True)) < h**2


def test_best_sampler_is_the_best_of_what_it_was_given():
    variance = np.geomspace(1e-4, 1e3, 30)
    choice = best_sampler(variance, 20, 0.002, 300.0)
    assert solvers.calls(choice.solver, choice.steps, **choice.settings) <= 20
    levels = karras(choice.steps, 0.002, 300.0, choice.rho)
    mine = np.abs(solver_gain(choice.solver, levels, variance, **choice.settings) - 1).max()
    assert mine == pytest.approx(choice.error)
    assert choice.error <= np.abs(solver_gain("heun", karras(10, 0.002, 300.0), variance) - 1).max()


@pytest.mark.parametrize("leading", [5.0, 50.0, 210.0])
def test_the_default_sampler_is_the_choice_of_best_sampler(leading):
    """For fields from a thousandth of the data's variance to a leading mode of that rms, at the default's 20 calls."""
    levels, default = NoiseRange.fit(leading), Sampler()
    choice = best_sampler(np.geomspace(1e-3, leading**2, 80), default.steps, levels.sigma_min, levels.sigma_max)
    assert (choice.solver, choice.settings) == ("adams", {"order": 3, "correct": False})
    assert solvers.plan("adams", grid(9)) == solvers.plan("adams", grid(9), **choice.settings)
    assert (choice.solver, choice.steps, choice.rho) == (default.solver, default.steps, default.rho)
    assert choice.error < 0.01


def test_the_gain_of_a_solver_far_from_stable_is_no_rounding():
    """Its inner numbers grow and cancel, and a covariance would square their rounding."""
    variance, unstable = np.geomspace(1e-4, 210.0**2, 60), ("adams", {"order": 4, "correct": True})
    table = solvers.plan(unstable[0], karras(20, 0.002, 1050.0), **unstable[1])
    size = 2 + table.depth
    state = np.zeros((len(variance), size), np.longdouble)
    state[:, 0] = np.sqrt(np.asarray(variance, np.longdouble) + table.start**2)
    for row in table.rows:
        gain = row.answer[0] * variance / (variance + row.sigma**2) + row.answer[1]
        step = (_update(row, size) @ _call(gain, size)).astype(np.longdouble)
        state = np.einsum("mij,mj->mi", step, state)
    exact = np.abs(state[:, 0]) / np.sqrt(variance + table.end**2)
    np.testing.assert_allclose(solver_gain(table, [], variance), exact.astype(float), rtol=1e-6)
    choice = best_sampler(variance, 20, 0.002, 1050.0, [unstable, ("dpmpp-2m", {})], rhos=[7.0])
    assert choice.solver == "dpmpp-2m"


def test_a_gain_that_is_not_a_number_is_never_chosen():
    assert best_sampler([np.nan, 1.0], 4, 0.002, 80.0).error == np.inf


@pytest.mark.parametrize("c", ["velocity", 0.3])
@pytest.mark.parametrize("correct", [False, True])
def test_adams_is_exact_for_gaussian_modes_of_the_sd_of_its_frame(c, correct):
    """Equation (1) of adams.py has K = 0 for them."""
    sd = 1.0 if c == "velocity" else c
    gain = solver_gain("adams", grid(3), [sd**2], prediction=c, correct=correct)
    np.testing.assert_allclose(gain, 1.0, rtol=1e-12)


def test_the_default_adams_keeps_the_spectrum_at_16_calls():
    """Over six decades of variance the sd is right to 1.2 %, where DPM-Solver++(2M) is 8 % off or more."""
    levels, variance = karras(16, 0.002, 80.0), np.geomspace(1e-3, 1e3, 50)
    assert np.abs(solver_gain("adams", levels, variance) - 1).max() < 0.012
    assert np.abs(solver_gain("dpmpp-2m", levels, variance) - 1).max() > 0.08


@pytest.mark.parametrize(
    ("name", "sigmas", "settings", "mend"),
    [
        ("dpmpp-2n", [1.0, 0.0], {}, "dpmpp-2m"),
        ("heun", [1.0, 0.0], {"chrun": 3.0}, "churn"),
        ("heun", [1.0, 1.0, 0.0], {}, "karras"),
        ("heun", [0.0, 1.0], {}, "karras"),
        ("adams", [1.0, 0.0], {"order": 7}, "order"),
        ("adams", [1.0, 0.0], {"prediction": "x"}, "noise"),
        ("unipc", [1.0, 0.0], {"variant": "bh3"}, "bh1"),
        ("unipc", [1.0, 0.0], {"order": 4}, "order"),
        ("ddpm", [1.0, 0.0], {"variance": "medium"}, "large"),
        ("ddim", [1.0, 0.1, 0.0], {"eta": 1.7}, "ranges"),
        ("predictor-corrector", [1.0, 0.1, 0.0], {"snr": 1.1}, "ranges"),
        ("dpmpp-2m-sde", [1.0, 0.1, 0.0], {"eta": -0.5}, "ranges"),
        ("dpmpp-2s", [1.0, 0.1, 0.0], {"r": 0.0}, "ranges"),
    ],
)
def test_a_wrong_solver_setting_or_grid_is_named_with_its_mend(name, sigmas, settings, mend):
    with pytest.raises(SciffusionError, match=mend):
        solvers.plan(name, sigmas, **settings)
