"""Hard constraints hold to rounding in every sample, and cost the spectrum nothing that can be seen."""

import pytest
import torch

from sciffusion.diffusion import karras, sample
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.guidance import MMPS, DivergenceFree, Projected, Retracted, multiplicative
from sciffusion.diffusion.guidance.divergence_free import divergence, divergence_free
from sciffusion.diffusion.problems import GaussianField, power_law
from sciffusion.errors import SciffusionError
from sciffusion.operators import BlockMean, Mean, Separable, project

DOUBLE = torch.float64


def randn(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def power(x):
    """Mean power of (batch, 1, n, n) in bands of wavenumber: 1, 2-3, 4-7, 8-16."""
    n = x.shape[-1]
    modes = torch.fft.fft2(x, norm="ortho").abs().square().mean((0, 1))
    k = torch.fft.fftfreq(n, 1 / n)
    band = (k[:, None] ** 2 + k**2).sqrt().clamp(min=1).log2().long().clamp(max=3)
    return torch.stack([modes[band == b].mean() for b in range(4)])


class Conditional(Denoiser):
    """What a network learns that knows the coarse field of its sample with errors of variance ``noise``: exact."""

    def __init__(self, field, operator, y, noise):
        super().__init__()
        self.law = field.posterior(operator, torch.zeros(operator.out_shape, dtype=DOUBLE), noise)
        gain = torch.stack([field.posterior(operator, unit, noise).mean for unit in units(operator)])
        self.mean = torch.einsum("bco,oij->bcij", y.double().flatten(2), gain).to(y)

    def forward(self, x, sigma, cond=None):
        return self.mean + self.law.denoiser()(x - self.mean, sigma)


def units(operator):
    size = operator.out_shape[0] * operator.out_shape[1]
    return torch.eye(size, dtype=DOUBLE).reshape(size, *operator.out_shape)


FIELD = GaussianField(power_law(3.0, outer=2.0), (16, 16))
BLOCKS = BlockMean((16, 16), (4, 4))
KNOWING = {
    "conditional": lambda y: Conditional(FIELD, BLOCKS, y, 0.1**2),
    "observed": lambda y: MMPS(FIELD.denoiser(), BLOCKS, y, 0.02**2, iterations=16),
}


def pairs():
    """400 truths with a start and noises for each, float32."""
    draw = torch.Generator().manual_seed(0)
    truth = FIELD.sample(400, draw).float()
    start = (FIELD.sample(400, draw) + 40 * randn(400, 1, 16, 16)).float()
    return truth, start, torch.randn(40, *truth.shape, generator=draw)


@pytest.mark.parametrize("solver", ["adams", "heun", "dpmpp-2m-sde"])
@pytest.mark.parametrize("knowing", KNOWING)
def test_coarse_consistency_to_1e_6_in_float32_costs_the_spectrum_nothing(knowing, solver):
    """Each of 400 members gets the coarse field of its own truth, so that the members' spectrum should be the field's.

    The denoiser knows the coarse field up to an error, as a conditional network does; from the same noise, members with
    and without the projection show what it costs.
    """
    truth, start, z = pairs()
    free = KNOWING[knowing](BLOCKS(truth))
    held = Projected(free, project(BLOCKS), BLOCKS(truth))
    levels = karras(16, 0.005, 40.0)
    ends = [sample(d, start, levels, solver, noise=lambda i: z[i]) for d in (free, held)]
    missed = [float((BLOCKS(end) - BLOCKS(truth)).abs().max()) for end in ends]
    assert missed[0] > 0.01
    assert missed[1] < 1e-6 * float(truth.abs().max())
    before, after = ((power(end) / power(truth)).log().abs() for end in ends)
    assert bool((after < before + 0.02).all()), (before, after)


def test_projection_of_a_denoiser_that_knows_nothing_of_the_coarse_field_shows_at_the_seams_of_blocks():
    """Moving least in L2 is not moving likely: give such a denoiser the coarse field as observations as well."""
    truth, start, _ = pairs()
    held = Projected(FIELD.denoiser(), project(BLOCKS), BLOCKS(truth))
    end = sample(held, start, karras(16, 0.005, 40.0), "adams")
    assert float((power(end) / power(truth)).log().abs().max()) > 0.05


def test_an_integral_is_a_uniform_shift():
    area = torch.linspace(0.2, 1.5, 6, dtype=DOUBLE)[:, None].expand(6, 9)
    x, y, s = randn(4, 2, 6, 9), randn(4, 2, 1, seed=1), torch.ones(4, dtype=DOUBLE)
    held = Projected(Identity(), project(Mean(area), area), y)(x, s)
    torch.testing.assert_close((held * area).sum((-2, -1)) / area.sum(), y[..., 0])
    shift = held - x
    torch.testing.assert_close(shift, shift[..., :1, :1].expand_as(shift))


class Identity(Denoiser):
    def forward(self, x, sigma, cond=None):
        return x


# Divergence ----------------------------------------------------------------------------------------------------------

BOXES = {"plane": ((12, 10), (1.0, 2.5)), "odd": ((9, 7), (0.3, 0.1)), "box": ((6, 8, 5), (1.0, 2.0, 0.5))}


@pytest.mark.parametrize("derivative", ["spectral", "centred", "staggered"])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_divergence_is_zero_to_rounding_with_scales_and_offsets_of_the_codec(box, derivative, dtype):
    shape, spacing = BOXES[box]
    rank = len(shape)
    z, offset = randn(3, rank, *shape, dtype=dtype), randn(1, rank, *shape, seed=1, dtype=dtype)
    scale = torch.linspace(1.0, 3.0, rank, dtype=dtype)
    held = divergence_free(z, spacing, scale, offset, derivative)
    factors = scale.reshape(-1, *[1] * rank)
    before, after = (divergence(factors * v + offset, spacing, derivative).abs().max() for v in (z, held))
    assert float(after) < 10 * torch.finfo(dtype).eps * float(before)
    torch.testing.assert_close(divergence_free(held, spacing, scale, offset, derivative), held)


@pytest.mark.parametrize("box", BOXES)
def test_differences_are_what_they_are_called(box):
    shape, spacing = BOXES[box]
    rank = len(shape)
    u = randn(2, rank, *shape)
    parts = [(u[:, j], j - rank, h) for j, h in enumerate(spacing)]
    centred = sum((v.roll(-1, axis) - v.roll(1, axis)) / (2 * h) for v, axis, h in parts)
    staggered = sum((v.roll(-1, axis) - v) / h for v, axis, h in parts)
    torch.testing.assert_close(divergence(u, spacing, "centred"), centred)
    torch.testing.assert_close(divergence(u, spacing, "staggered"), staggered)


def test_the_spectral_divergence_is_that_of_waves():
    t = 2 * torch.pi * torch.arange(16, dtype=DOUBLE) / 16
    y, x = torch.meshgrid(t, t, indexing="ij")
    u = torch.stack([torch.sin(3 * y) * torch.cos(x), torch.cos(2 * x + y)])
    exact = 3 * torch.cos(3 * y) * torch.cos(x) - 2 * torch.sin(2 * x + y)
    step = 2 * torch.pi / 16
    torch.testing.assert_close(divergence(u, (step, step)), exact)


@pytest.mark.parametrize("derivative", ["spectral", "centred", "staggered"])
def test_the_projection_is_the_nearest_field_without_divergence(derivative):
    """The move is orthogonal to every field without divergence, and such a field is not moved."""
    shape, spacing = BOXES["plane"]
    z = randn(2, 2, *shape)
    still = divergence_free(randn(2, 2, *shape, seed=1), spacing, None, None, derivative)
    move = divergence_free(z, spacing, None, None, derivative) - z
    assert float(move.square().mean()) > 0.1
    assert float((move * still).sum((1, 2, 3)).abs().max()) < 1e-12
    torch.testing.assert_close(divergence_free(still, spacing, None, None, derivative), still)


def flow(batch, n=16):
    """Random velocities u = (d psi / dx, -d psi / dy), without divergence, float32."""
    field = GaussianField(power_law(5.0, outer=2.0), (n, n), dtype=torch.float32)
    psi = field.sample(batch, torch.Generator().manual_seed(0))
    k = 2j * torch.pi * torch.fft.fftfreq(n)
    k[n // 2] = 0
    modes = torch.fft.fft2(psi[:, 0])
    u = torch.stack([torch.fft.ifft2(modes * k).real, -torch.fft.ifft2(modes * k[:, None]).real], dim=1)
    return u / u.std()


class PerChannel(Denoiser):
    """Wiener filter of each component alone, so that it does not know about the divergence."""

    def __init__(self, draws):
        super().__init__()
        self.power = torch.fft.rfft2(draws, norm="ortho").abs().square().mean(0)

    def forward(self, x, sigma, cond=None):
        gain = self.power / (self.power + sigma.reshape(-1, 1, 1, 1) ** 2)
        return torch.fft.irfft2(torch.fft.rfft2(x) * gain, s=x.shape[-2:])


def test_samples_have_no_divergence_and_other_channels_are_left_alone():
    truth = torch.cat([flow(200), randn(200, 1, 16, 16, dtype=torch.float32)], dim=1)
    free = PerChannel(truth)
    held = DivergenceFree(free, (0, 1), (1.0, 1.0))
    start = 20 * randn(50, 3, 16, 16, seed=1, dtype=torch.float32)
    ends = [sample(denoiser, start, karras(24, 0.002, 20.0), "dpmpp-2m") for denoiser in (free, held)]
    size = [float(divergence(end[:, :2], (1.0, 1.0)).square().mean().sqrt()) for end in ends]
    assert size[0] > 0.1
    assert size[1] < 2e-6
    torch.testing.assert_close(ends[1][:, 2], ends[0][:, 2])


@pytest.mark.parametrize("derivative", ["spectral", "centred", "staggered"])
def test_samples_in_a_box_have_no_divergence(derivative):
    shape, spacing = BOXES["box"]
    free = GaussianField(power_law(3.0), shape, dtype=torch.float32).denoiser()
    held = DivergenceFree(free, (0, 1, 2), spacing, (1.0, 2.0, 0.5), randn(1, 3, 1, 1, 1).float(), derivative)
    end = sample(held, 20 * randn(4, 3, *shape, dtype=torch.float32), karras(8, 0.01, 20.0), "adams")
    physical = end * torch.tensor([1.0, 2.0, 0.5]).reshape(3, 1, 1, 1)
    size = [float(divergence(u, spacing, derivative).abs().max()) for u in (physical, physical.flip(1))]
    assert size[0] < 1e-5 * size[1]


def test_a_time_axis_may_come_before_the_plane():
    u = randn(2, 2, 3, 12, 10)
    held = DivergenceFree(Identity(), (0, 1), (1.0, 2.5), scale=(1.0, 2.0), offset=randn(1, 2, 1, 12, 10, seed=1))
    whole = held(u, torch.ones(2, dtype=DOUBLE))
    for time in range(3):
        alone = divergence_free(u[:, :, time], (1.0, 2.5), (1.0, 2.0), randn(1, 2, 1, 12, 10, seed=1)[:, :, 0])
        torch.testing.assert_close(whole[:, :, time], alone)


def test_components_that_do_not_fit_the_axes_are_named():
    with pytest.raises(SciffusionError, match="one component per axis"):
        DivergenceFree(Identity(), (0, 1, 2), (1.0, 1.0))
    with pytest.raises(SciffusionError, match="component"):
        divergence_free(randn(3, 4, 4), (1.0, 1.0))
    with pytest.raises(SciffusionError, match="staggered"):
        divergence_free(randn(2, 4, 4), (1.0, 1.0), derivative="upwind")


# Positivity ----------------------------------------------------------------------------------------------------------


def test_retraction_keeps_rain_positive_and_its_coarse_means():
    """Network units are log(1 + rain): the projection is done on rain, and the answer is in network units."""
    blocks = BlockMean((8, 8), (4, 4))
    truth = torch.relu(randn(5, 1, 8, 8, dtype=torch.float32))
    truth[0, 0, :4, :4] = 0  # a dry block
    coarse = blocks(truth)
    held = Retracted(Identity(), multiplicative(blocks, coarse), torch.expm1, torch.log1p)
    rain = torch.expm1(held(2 * randn(5, 1, 8, 8, seed=1, dtype=torch.float32), torch.ones(5)))
    assert float(rain.min()) >= 0
    assert float(rain[0, 0, :4, :4].max()) == 0
    torch.testing.assert_close(blocks(rain), coarse, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("solver", ["adams", "heun", "dpmpp-2m-sde"])
def test_sampled_rain_is_positive_and_has_its_coarse_means(solver):
    """In float32, through a logarithm; without the retraction a third of the cells of the same members is negative."""
    truth, start, z = (field[:50] if field.ndim == 4 else field[:, :50] for field in pairs())
    coarse = BLOCKS(truth.relu())
    held = Retracted(FIELD.denoiser(), multiplicative(BLOCKS, coarse), torch.expm1, torch.log1p, below=2.0)
    ends = [
        sample(denoiser, start, karras(12, 0.005, 40.0), solver, noise=lambda i: z[i]).expm1()
        for denoiser in (held, FIELD.denoiser())
    ]
    assert float(ends[0].min()) >= 0
    torch.testing.assert_close(BLOCKS(ends[0]), coarse, rtol=1e-6, atol=1e-6)
    assert float((ends[1] < 0).double().mean()) > 1 / 3


def test_retraction_acts_below_its_level_only_and_clips_by_default():
    x, sigma = randn(3, 1, 8), torch.tensor([0.5, 1.0, 2.0], dtype=DOUBLE)
    held = Retracted(Identity(), below=1.0)(x, sigma)
    torch.testing.assert_close(held, torch.cat([x[:2].clamp(min=0), x[2:]]))


def test_scaling_fills_dry_blocks_evenly_and_lets_missing_data_be():
    blocks = BlockMean((6,), (2,))
    y = torch.tensor([3.0, torch.nan, 0.0])
    scaled = multiplicative(blocks, y)(torch.tensor([-1.0, 0.0, 2.0, -1.0, 4.0, 5.0]))
    torch.testing.assert_close(scaled, torch.tensor([3.0, 3.0, 2.0, 0.0, 0.0, 0.0]))


def test_scaling_keeps_the_proportions_within_a_block_however_dry():
    blocks, x = BlockMean((6,), (3,)), torch.tensor([1e-3, 2e-3, 3e-3, 4.0, 0.0, 8.0])
    scaled = multiplicative(blocks, torch.tensor([0.5, 1.0]))(x)
    torch.testing.assert_close(scaled, torch.tensor([0.25, 0.5, 0.75, 1.0, 0.0, 2.0]))


def test_scaling_converges_where_blocks_overlap():
    edges = torch.tensor([[0.5, 0.5, 0, 0, 0], [0, 0.25, 0.5, 0.25, 0], [0, 0, 0, 0.5, 0.5]], dtype=DOUBLE)
    means = Separable([edges])
    y = means(torch.rand(7, 1, 5, generator=torch.Generator().manual_seed(0), dtype=DOUBLE))
    x = torch.rand(7, 1, 5, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    errors = [float((means(multiplicative(means, y, n)(x)) - y).abs().max()) for n in (1, 10, 1000)]
    assert errors[1] < errors[0] / 3
    assert errors[2] < 1e-6
    assert float(multiplicative(means, y, 10)(x).min()) >= 0
