"""The flow solvers against exact solutions, conserved quantities, budgets, orders, and direct sums over wave pairs."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from sciffusion.datasets.simulators.box import Box, block_means, random_field, resample
from sciffusion.datasets.simulators.etdrk4 import ETDRK4
from sciffusion.datasets.simulators.kolmogorov import KolmogorovFlow
from sciffusion.datasets.simulators.kuramoto_sivashinsky import KuramotoSivashinsky
from sciffusion.datasets.simulators.model import frames
from sciffusion.datasets.simulators.shallow_water import ShallowWater
from sciffusion.errors import SciffusionError


def run(model, state, steps):
    (state,) = frames(model, state, steps, 1)
    return state


def order(errors):
    """Convergence orders of errors whose step is halved from one to the next."""
    return [math.log2(a / b) for a, b in pairwise(errors)]


def generated(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# --- the box


@pytest.mark.parametrize("shape", [(12,), (12, 9)])
def test_products_are_the_sums_over_pairs_of_waves(shape):
    """Modes of a b are sum_p a_p b_(k-p) / n, without the pairs that alias."""
    box = Box(shape, [1.0] * len(shape))
    a, b = (box.field(box.modes(generated(*shape)) * box.keep * phase) for phase in (1.0, 0.5))
    b = b.roll(1, 0)
    whole = [torch.fft.fftn(u) for u in (a, b)]
    expected = torch.zeros_like(whole[0])
    for p in np.ndindex(*shape):
        for q in np.ndindex(*shape):
            signed = [i + j - n * ((2 * i > n) + (2 * j > n)) for i, j, n in zip(p, q, shape, strict=True)]
            if all(3 * abs(s) < n for s, n in zip(signed, shape, strict=True)):
                index = tuple(s % n for s, n in zip(signed, shape, strict=True))
                expected[index] += whole[0][p] * whole[1][q] / math.prod(shape)
    half = expected[..., : shape[-1] // 2 + 1]
    torch.testing.assert_close(box.product(a, b), half, rtol=0, atol=1e-12 * float(half.abs().max()))


def test_resampling_interpolates_smooth_fields_exactly_and_comes_back():
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) / n for n in (48, 30)), indexing="ij")

    def wave(y, x):
        return torch.sin(2 * math.pi * (3 * y + 2 * x)) + torch.cos(2 * math.pi * (y - 4 * x)) + 2

    fine = resample(wave(y[::4, ::3], x[::4, ::3]), (48, 30))
    torch.testing.assert_close(fine, wave(y, x), rtol=0, atol=1e-12)
    torch.testing.assert_close(resample(fine, (12, 10)), fine[::4, ::3], rtol=0, atol=1e-12)


def test_random_fields_depend_on_their_case_alone_and_are_the_same_at_every_resolution():
    def draw(cases, n):
        box = Box((n, n), (1.0, 1.0))
        return random_field(cases, box, lambda k: 1.0 * (k < 30), seed=3, name="test", modes=(16, 16))

    torch.testing.assert_close(draw([5], 16)[0], draw([2, 5, 9], 16)[1], rtol=0, atol=1e-14)
    torch.testing.assert_close(draw([5], 48)[:, ::3, ::3], draw([5], 16), rtol=0, atol=1e-12)
    assert not torch.allclose(draw([5], 16), draw([6], 16))


def test_block_means_keep_the_mean_of_every_block():
    u = generated(2, 3, 8, 12)
    means = block_means(u, 4, 2)
    assert means.shape == (2, 3, 2, 3)
    torch.testing.assert_close(means[1, 2, 1, 2], u[1, 2, 4:8, 8:12].mean())


# --- the integrator


def test_the_linear_part_is_exact():
    rates = torch.tensor([0.0, -1e-9, -3.0, -1e4, 0.5], dtype=torch.float64)
    step = ETDRK4(rates, torch.zeros_like, 0.7)
    torch.testing.assert_close(step(torch.ones_like(rates)), torch.exp(0.7 * rates), rtol=1e-14, atol=0)


@pytest.mark.parametrize("rate", [0.0, -1.0, -20.0])
def test_the_integrator_is_of_fourth_order(rate):
    """Bernoulli's equation u' = r u - u^2 has a closed solution; r = 0 exercises the cancellation near zero."""
    start, time = 0.8, 1.0

    def solve(steps):
        step = ETDRK4(torch.tensor(rate, dtype=torch.float64), lambda u: -(u**2), time / steps)
        u = torch.tensor(start, dtype=torch.float64)
        for _ in range(steps):
            u = step(u)
        return float(u)

    exact = start / (1 + start * time) if rate == 0 else rate / (1 - (1 - rate / start) * math.exp(-rate * time))
    errors = [abs(solve(steps) - exact) for steps in (10, 20, 40)]
    assert min(order(errors)) > 3.8


def test_a_flow_that_blows_up_is_refused():
    model = KuramotoSivashinsky(64, step=50.0)
    with pytest.raises(SciffusionError, match="shorter time steps"):
        run(model, 1e6 * model.start([0], 0), 20)


# --- Kolmogorov flow


def advection_by_definition(flow, vorticity):
    """u . grad w, evaluated on a grid twice as fine, where no product of two fields aliases."""
    box = flow.box
    size = [2 * n for n in box.shape]
    gradient = [box.field(1j * k * vorticity) for k in box.k]
    u, v = flow.fields(vorticity).unbind(1)
    u, v, wy, wx = (resample(field, size) for field in (u, v, *gradient))
    return resample(u * wx + v * wy, box.shape)


def test_advection_is_that_of_the_definition():
    flow = KolmogorovFlow(32, 0.01, amplitude=0.0)
    state = flow.start([0, 1], seed=1)
    expected = flow.box.modes(advection_by_definition(flow, state)) * flow.box.keep
    torch.testing.assert_close(-flow.tendency(state), expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


def test_advection_creates_neither_energy_nor_enstrophy():
    flow = KolmogorovFlow(48, 0.01, amplitude=0.0)
    state = flow.start([0], seed=1)
    rate = flow.box.field(flow.tendency(state))
    vorticity = flow.box.field(state)
    psi = flow.box.field(torch.where(flow.box.k2 > 0, -state / flow.box.k2.clamp(min=1), 0))
    for weight in (vorticity, psi):
        assert abs(float((weight * rate).mean())) < 1e-13 * float((weight.abs() * rate.abs()).mean())


def test_velocity_has_no_divergence_and_the_vorticity_of_the_state():
    flow = KolmogorovFlow(32, 0.01)
    state = flow.start([0], seed=2)
    u, v = flow.velocity_modes(state).unbind(1)
    ky, kx = flow.box.k
    assert float((kx * u + ky * v).abs().max()) < 1e-12 * float(state.abs().max())
    torch.testing.assert_close(1j * (kx * v - ky * u), state, rtol=0, atol=1e-12 * float(state.abs().max()))
    assert float(flow.fields(state).square().sum(1).sqrt().max()) == pytest.approx(3.0)


def test_taylor_green_vortices_decay_at_the_viscous_and_the_drag_rate():
    """cos(2 x) cos(2 y) does not advect itself: w(t) = w(0) exp(-(8 nu + a) t)."""
    flow = KolmogorovFlow(24, 0.05, viscosity=0.02, drag=0.3, amplitude=0.0)
    y, x = torch.meshgrid(*[2 * math.pi / 24 * torch.arange(24, dtype=torch.float64)] * 2, indexing="ij")
    start = flow.box.modes((torch.cos(2 * x) * torch.cos(2 * y))[None])
    torch.testing.assert_close(run(flow, start, 20), math.exp(-(8 * 0.02 + 0.3)) * start, rtol=0, atol=1e-10)


def test_the_laminar_flow_is_steady():
    """u = A sin(4 y) / (16 nu + a) balances force, viscosity and drag."""
    flow = KolmogorovFlow(24, 0.05, viscosity=0.05, drag=0.1)
    y = 2 * math.pi / 24 * torch.arange(24, dtype=torch.float64)
    vorticity = (-4 * torch.cos(4 * y) / (16 * 0.05 + 0.1))[:, None].expand(24, 24)
    start = flow.box.modes(vorticity[None])
    torch.testing.assert_close(run(flow, start, 20), start, rtol=0, atol=1e-9)


def test_the_energy_budget_closes():
    """E(1) - E(0) is the integral of work by the force minus dissipation minus drag (Simpson's rule)."""
    flow = KolmogorovFlow(64, 0.005)
    states = [flow.start([0, 1], seed=3), *frames(flow, flow.start([0, 1], seed=3), 5, 40)]
    velocity = [flow.fields(state) for state in states]
    energy = [u.square().sum(1).mean((-2, -1)) / 2 for u in velocity]
    rates = [
        (u[:, 0] * flow.force).mean((-2, -1))
        - flow.viscosity * flow.box.field(w).square().mean((-2, -1))
        - 2 * flow.drag * e
        for u, w, e in zip(velocity, states, energy, strict=True)
    ]
    weights = torch.tensor([1, *[4, 2] * 19, 4, 1], dtype=torch.float64) * 0.025 / 3
    integral = (weights[:, None] * torch.stack(rates)).sum(0)
    torch.testing.assert_close(energy[-1] - energy[0], integral, rtol=1e-5, atol=0)


def test_kolmogorov_flow_converges_in_time_and_in_space():
    def solve(size, steps):
        flow = KolmogorovFlow(size, 0.4 / steps, viscosity=0.02)
        return flow.box.field(run(flow, flow.start([0], seed=4), steps))

    exact = solve(64, 128)
    errors = [float((solve(64, steps) - exact).abs().max()) for steps in (8, 16, 32)]
    assert min(order(errors)) > 3.7
    fine = resample(solve(192, 128), (64, 64))
    assert float((resample(solve(128, 128), (64, 64)) - fine).abs().max()) < 1e-4 * float(fine.abs().max())


@pytest.mark.slow
def test_turbulence_has_the_steep_spectrum_of_an_enstrophy_cascade():
    """Energy per wavenumber falls as k^-4 to k^-5 at k = 6 to 20 with drag (data.md: -4.5 at this viscosity)."""
    flow = KolmogorovFlow(128, 0.2 / 32)
    power = torch.zeros(64, dtype=torch.float64)
    for number, state in enumerate(frames(flow, flow.start([0, 1], seed=0), 32, 90)):
        if number >= 50:
            energy = flow.velocity_modes(state).abs().square().sum((0, 1))
            energy[..., 1:] *= 2
            shell = flow.box.k2.sqrt().round().long().clamp(max=63)
            power += torch.bincount(shell.flatten(), energy.flatten(), 64)
    k = torch.arange(6, 21, dtype=torch.float64)
    slope = np.polyfit(k.log(), power[6:21].log(), 1)[0]
    assert -5.5 < slope < -3.8


# --- Kuramoto-Sivashinsky


@pytest.mark.parametrize("mode", [3, 7, 12])
def test_small_waves_grow_at_the_linear_rate(mode):
    """exp((k^2 - k^4) t)."""
    model = KuramotoSivashinsky(64, 0.1)
    k = 2 * math.pi * mode / 64
    x = 64 / 64 * torch.arange(64, dtype=torch.float64)
    start = model.box.modes(1e-8 * torch.cos(k * x)[None])
    end = run(model, start, 50)
    assert float(end[0, mode].real / start[0, mode].real) == pytest.approx(math.exp((k**2 - k**4) * 5.0), rel=1e-6)


def test_a_moving_frame_changes_nothing():
    """u(x - c t) + c is a solution whenever u is, which fixes the coefficient of the nonlinear term."""
    model = KuramotoSivashinsky(128, 0.0125)
    start = run(model, model.start([0], 0), 1600)
    speed, steps = 1.5, 160
    plain, moved = run(model, start, steps), start.clone()
    moved[..., 0] += speed * 128
    expected = model.box.field(plain * torch.exp(-1j * model.box.k[0] * speed * steps * 0.0125)) + speed
    torch.testing.assert_close(model.box.field(run(model, moved, steps)), expected, rtol=0, atol=1e-6)


def test_the_mean_is_conserved_and_chaos_has_its_known_size():
    """On long domains u has mean square about 1.7 (sd 1.3; Wittenberg and Holmes 1999, doi:10.1063/1.166419)."""
    model = KuramotoSivashinsky(96, 0.1)
    start = model.start(range(8), 0)
    start[..., 0] = 0.25 * 96
    states = torch.stack([model.fields(state) for state in frames(model, start, 100, 40)])[10:]
    torch.testing.assert_close(states.mean(-1), torch.full_like(states.mean(-1), 0.25), rtol=0, atol=1e-12)
    assert 1.2 < float(states.std()) < 1.4


def test_kuramoto_sivashinsky_converges_in_time_and_in_space():
    def solve(size, steps):
        model = KuramotoSivashinsky(size, 8.0 / steps)
        return model.box.field(run(model, model.start([0], 1), steps))

    exact = solve(96, 2560)
    errors = [float((solve(96, steps) - exact).abs().max()) for steps in (160, 320, 640)]
    assert min(order(errors)) > 3.6
    fine = resample(solve(256, 320), (64,))
    assert float((resample(solve(192, 320), (64,)) - fine).abs().max()) < 1e-6


# --- shallow water


def test_small_waves_follow_the_dispersion_relation():
    """h = cos(k x) without wind splits into a steady part and waves: h(t) = (f^2 + g H k^2 cos(w t)) / w^2 cos(k x)."""
    model = ShallowWater(24, 120.0, damping=None)
    k = 2 * math.pi * 2 / 4e6
    x = 4e6 / 24 * torch.arange(24, dtype=torch.float64)
    height = 1e-6 * torch.cos(k * x).expand(24, 24)
    start = model.box.modes(torch.stack([0 * height, 0 * height, height])[None])
    steps = 100
    gravity = model.gravity * model.depth * k**2
    omega = math.sqrt(model.coriolis**2 + gravity)
    expected = (model.coriolis**2 + gravity * math.cos(omega * 120.0 * steps)) / omega**2
    after = model.fields(run(model, start, steps))[0, 2]
    torch.testing.assert_close(after, expected * height, rtol=0, atol=1e-5 * 1e-6)


def test_a_balanced_jet_is_steady():
    model = ShallowWater(32, 120.0, damping=None)
    y = 4e6 / 32 * torch.arange(32, dtype=torch.float64)
    k = 2 * math.pi / 4e6
    height = 300 * torch.cos(k * y)[:, None].expand(32, 32)
    wind = (model.gravity / model.coriolis * 300 * k * torch.sin(k * y))[:, None].expand(32, 32)
    start = torch.stack([wind, 0 * wind, height])[None]
    after = model.fields(run(model, model.box.modes(start), 50))
    torch.testing.assert_close(after, start, rtol=0, atol=1e-6)
    assert float(wind.abs().max()) > 40  # far from linear: f + zeta and the flux u h matter


def total_energy(model, state):
    """<(H + h) (u^2 + v^2) / 2 + g h^2 / 2> of each case."""
    u, v, h = model.fields(state).unbind(1)
    return ((model.depth + h) * (u**2 + v**2) / 2 + model.gravity * h**2 / 2).mean((-2, -1))


def test_mass_is_conserved_exactly_and_energy_to_the_order_of_the_step():
    drift = []
    for steps in (30, 60):
        model = ShallowWater(48, 10800.0 / steps, damping=None)
        start = model.start([0], 0)
        end = run(model, start, steps)
        assert abs(float(model.fields(end)[:, 2].mean())) < 1e-10
        drift.append(abs(float(total_energy(model, end) / total_energy(model, start)) - 1))
    assert drift[1] < 2e-4  # cut-off of the triple product, which does not fall with the step
    damped = ShallowWater(48, 180.0)
    assert float(total_energy(damped, run(damped, start, 60))) < float(total_energy(damped, start))


def test_shallow_water_converges_in_time_and_in_space():
    def solve(size, steps):
        model = ShallowWater(size, 7200.0 / steps, damping=None)
        return model.fields(run(model, model.start([0], 2), steps))

    exact = solve(48, 320)
    errors = [float((solve(48, steps) - exact)[:, :2].abs().max()) for steps in (20, 40, 80)]
    assert min(order(errors)) > 3.7
    fine = resample(solve(216, 80), (48, 48))
    coarser, finer = (float((resample(solve(n, 80), (48, 48)) - fine)[:, :2].abs().max()) for n in (96, 144))
    assert finer < min(coarser / 5, 0.01 * float(fine.abs().max()))


def test_the_start_is_in_geostrophic_balance():
    """f v = g dh/dx and f u = -g dh/dy, at 15 m/s rms."""
    model = ShallowWater(64, 100.0)
    state = model.start([0, 7], 1)
    u, v, h = state.unbind(1)
    ky, kx = model.box.k
    largest = float((model.coriolis * v).abs().max())
    torch.testing.assert_close(model.coriolis * v, 1j * kx * model.gravity * h, rtol=0, atol=1e-12 * largest)
    torch.testing.assert_close(model.coriolis * u, -1j * ky * model.gravity * h, rtol=0, atol=1e-12 * largest)
    wind = model.fields(state)[:, :2].square().sum(1).mean((-2, -1)).sqrt()
    torch.testing.assert_close(wind, torch.full_like(wind, 15.0))
