"""Tiles are invisible: in the answers, in the statistics of the samples, in the members; and memory stays small."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sciffusion.context import Context, window
from sciffusion.diffusion import Masked, Preconditioned, karras, sample
from sciffusion.diffusion.denoiser import Denoiser, expand
from sciffusion.diffusion.guidance import MMPS, Projected
from sciffusion.diffusion.problems import DenseGaussian, GaussianField, power_law
from sciffusion.diffusion.tiling import Tiled, profiles, starts, tile_boundary
from sciffusion.errors import SciffusionError
from sciffusion.operators import BlockMean, Stations, project


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


class Local(Denoiser):
    """Nonlinear in x, level and condition, and sees two cells in each direction, beyond the boundaries as told."""

    def __init__(self, boundary):
        super().__init__()
        self.boundary = boundary
        self.largest = 0
        kernel = torch.randn((4, 2, *[3] * len(boundary)), generator=seeded(9), dtype=torch.float64)
        self.register_buffer("kernel", kernel / 3 ** len(boundary))

    def convolve(self, x, kernel):
        for axis, name in enumerate(self.boundary, start=2):
            rows = x.movedim(axis, -1)
            mode = {"periodic": "circular", "reflect": "reflect"}[name]
            padded = F.pad(rows.flatten(0, -2)[None], (1, 1), mode=mode)[0]
            x = padded.reshape(*rows.shape[:-1], -1).movedim(-1, axis)
        return getattr(F, f"conv{len(self.boundary)}d")(x, kernel)

    def forward(self, x, sigma, cond=None):
        self.largest = max(self.largest, x.numel())
        hidden = torch.cat([x, cond.channels], 1) + cond.vector[:, :1].reshape(-1, 1, *[1] * len(self.boundary))
        hidden = torch.tanh(self.convolve(hidden, self.kernel)) * torch.rsqrt(1 + expand(sigma, x) ** 2)
        return self.convolve(hidden, self.kernel.transpose(0, 1)[:1])


DOMAINS = [
    ((50,), (16,), ("periodic",)),
    ((50,), (16,), ("reflect",)),
    ((37, 48), (16, 20), ("reflect", "periodic")),
    ((14, 45), (16, 16), ("periodic", "reflect")),
    ((9, 22, 23), (12, 12, 14), ("periodic", "reflect", "periodic")),
]


def problem(shape, batch=3):
    cond = Context(channels=normal(batch, 1, *shape, seed=1), vector=normal(batch, 2, seed=2))
    return 3 * normal(batch, 1, *shape), torch.tensor([0.1, 1.0, 5.0][:batch], dtype=torch.float64), cond


@pytest.mark.parametrize(("shape", "tile", "boundary"), DOMAINS)
def test_tiles_answer_as_the_whole_domain_when_the_margin_covers_the_receptive_field(shape, tile, boundary):
    x, sigma, cond = problem(shape)
    tiled = Tiled(Local(tile_boundary(shape, tile, boundary)), tile, 6, boundary, margin=2)
    torch.testing.assert_close(tiled(x, sigma, cond), Local(boundary)(x, sigma, cond), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("shape", "tile", "boundary"), DOMAINS)
def test_without_a_margin_only_cells_near_the_cuts_differ(shape, tile, boundary):
    """The receptive field (radius 2) is narrower than the overlap: cells deep in one tile are exact."""
    x, sigma, cond = problem(shape)
    tiled = Tiled(Local(tile_boundary(shape, tile, boundary)), tile, 6, boundary, margin=0)
    whole = Local(boundary)(x, sigma, cond)
    wrong = ((tiled(x, sigma, cond) - whole).abs() > 1e-13).any(dim=(0, 1))
    core = torch.ones(shape, dtype=torch.bool)
    for axis, (n, t, name) in enumerate(zip(shape, tile, boundary, strict=True)):
        at = starts(n, t, 6, name == "periodic")
        edges = [s for s in at if s or name == "periodic"] + [s + t for s in at if s + t < n or name == "periodic"]
        near = {(e + d) % n for e in edges for d in (-2, -1, 0, 1)} if len(at) > 1 else set()
        core.movedim(axis, 0)[sorted(near)] = False
    assert not wrong[core].any()
    assert wrong.any()
    assert core.any()


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize(("tile", "overlap", "margin"), [(16, 6, 1), (16, 6, 3), (12, 0, 0), (10, 9, 2)])
def test_weights_are_a_partition_of_unity_without_jumps(tile, overlap, margin, periodic):
    for cells in range(tile - 3, 4 * tile):
        first = starts(cells, tile, overlap, periodic)
        weights = profiles(cells, tile, overlap, margin, periodic).numpy()
        total = np.zeros(cells)
        for s, w in zip(first, weights, strict=True):
            total[(s + np.arange(len(w))) % cells] += w
        np.testing.assert_allclose(total, 1, rtol=0, atol=1e-14)
        assert weights.min() >= 0
        assert all(tile - (b - a) >= overlap for a, b in pairwise(first))
        if overlap - 2 * margin >= 3:
            assert np.abs(np.diff(weights, axis=1)).max() < 0.8


def test_windows_go_on_at_the_beginning():
    value = torch.arange(24.0).reshape(1, 1, 4, 6)
    rolled = value.roll((-3, -4), dims=(2, 3))
    torch.testing.assert_close(window(value, (slice(3, 6), slice(4, 9))), rolled[:, :, :3, :5])
    cropped = Context(channels=value, valid=value > 3, vector=torch.ones(1, 2)).crop((slice(1, 3), slice(4, 9)))
    torch.testing.assert_close(cropped.channels, value.roll(-4, dims=3)[:, :, 1:3, :5])
    assert cropped.valid.shape == (1, 1, 2, 5)
    assert cropped.vector.shape == (1, 2)


def covariance_of_samples(denoiser, n, start, sigmas):
    """For a linear denoiser the sampler is a matrix, here read off the unit vectors: its samples' exact covariance."""
    response = sample(denoiser, torch.eye(n, dtype=torch.float64)[:, None], sigmas, "dpmpp-2m")[:, 0]
    return response.T @ start @ response


def increments(covariance):
    """Variance of the difference between neighbours around the circle: what shows a seam first."""
    variance = covariance.diagonal()
    return variance + variance.roll(-1) - 2 * covariance.roll(-1, 1).diagonal()


def test_samples_of_tiles_have_no_seams():
    """A red Gaussian field (correlated over 8 cells) through exact denoisers of 32 cells: the same across cuts.

    Variance and increments, exact rather than sampled, are those of the whole domain's sampler everywhere; with tiles
    side by side the increments across cuts are eight times too large.
    """
    n, tile = 96, 32
    field = GaussianField(power_law(3.0, outer=6.0), (n,))
    truth = field.covariance()
    local = DenseGaussian(torch.zeros(tile, dtype=torch.float64), truth[:tile, :tile]).denoiser()
    sigmas = karras(24, 0.002, 80.0)
    start = truth + 80.0**2 * torch.eye(n, dtype=torch.float64)
    whole = covariance_of_samples(field.denoiser(), n, start, sigmas)
    fused, hard = (
        covariance_of_samples(Tiled(local, (tile,), overlap, ("periodic",)), n, start, sigmas) for overlap in (16, 0)
    )
    assert float((fused.diagonal() / whole.diagonal() - 1).abs().max()) < 1e-3
    assert float((increments(fused) / increments(whole) - 1).abs().max()) < 1e-3
    assert float((increments(hard) / increments(whole)).max()) > 5


def test_memory_is_that_of_the_tiles_in_flight():
    """The denoiser never sees more than ``batch`` tiles, whatever the domain and however many members."""
    x, sigma, cond = problem((70, 50), batch=3)
    for batch, in_flight in ((1, 1), (2, 2), (4, 3), (7, 6)):
        local = Local(("reflect", "reflect"))
        Tiled(local, (16, 16), 6, ("periodic", "reflect"), batch=batch)(x, sigma, cond)
        assert local.largest == in_flight * 16 * 16


def test_gradients_are_those_of_the_whole_domain_and_keep_no_activations():
    x, sigma, cond = problem((30, 24))
    boundary = ("reflect", "periodic")
    tiled = Tiled(Local(("reflect", "reflect")), (16, 16), 8, boundary, margin=2, batch=2)
    whole = Local(boundary)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        answer = tiled(x.requires_grad_(), sigma, cond)
    (gradient,) = torch.autograd.grad(answer.square().sum(), x)
    (expected,) = torch.autograd.grad(whole(x, sigma, cond).square().sum(), x)
    torch.testing.assert_close(gradient, expected)
    assert max(kept) <= 2 * 16 * 16


def test_a_member_depends_neither_on_batch_mates_nor_on_the_micro_batch():
    x, sigma, cond = problem((40, 33))
    local = Local(("reflect", "reflect"))
    answers = [
        Tiled(local, (16, 16), 5, ("periodic", "reflect"), batch=batch)(x, sigma, cond) for batch in (1, 2, 3, 7, 64)
    ]
    alone = Tiled(local, (16, 16), 5, ("periodic", "reflect"))(x[1:2], sigma[1:2], cond.map(lambda v: v[1:2]))
    for answer in answers:
        torch.testing.assert_close(answer, answers[0], rtol=0, atol=1e-14)
        torch.testing.assert_close(answer[1:2], alone, rtol=0, atol=1e-14)


def test_compiled_tiles_are_one_graph_with_the_same_answer():
    x, sigma, cond = problem((22, 33))
    tiled = Tiled(Local(("reflect", "reflect")), (16, 16), 5, ("periodic", "reflect"))
    compiled = torch.compile(tiled, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, sigma, cond), tiled(x, sigma, cond), rtol=0, atol=1e-13)


def test_constraints_masks_and_solvers_work_on_top():
    """Projected(Tiled(Masked(D))) is a denoiser like any other: block means hold, masked cells stay 0 inside."""
    shape = (32, 24)
    valid = normal(2, 1, *shape, seed=5) > -1.5
    cond = Context(channels=normal(2, 1, *shape, seed=1), vector=normal(2, 2, seed=2), valid=valid)
    masked = Masked(Local(("reflect", "reflect")))
    tiled = Tiled(masked, (16, 16), 6, ("periodic", "periodic"), batch=4)
    x = math.hypot(1, 10.0) * normal(2, 1, *shape)
    assert not tiled(x, x.new_ones(2), cond)[~valid].any()
    operator = BlockMean(shape, (4, 4))
    y = normal(2, 1, 8, 6, seed=3)
    constrained = Projected(tiled, project(operator), y)
    for solver in ("dpmpp-2m", "heun"):
        end = sample(constrained, x, karras(4, 0.1, 10.0), solver, cond)
        torch.testing.assert_close(operator(end), y, rtol=0, atol=1e-6)


def test_guidance_by_observations_sees_through_tiles():
    """Several vector products with the derivative of one call, each computing tiles again: as on the whole domain."""
    x, sigma, cond = problem((30, 24))
    boundary, stations = ("reflect", "periodic"), Stations([[3.2, 5.0], [20.5, 23.5]], (30, 24))
    y = normal(3, 1, 2, seed=4)
    tiled = Tiled(Local(("reflect", "reflect")), (16, 16), 8, boundary, margin=2, batch=2)
    answers = [MMPS(denoiser, stations, y, noise=0.1)(x, sigma, cond) for denoiser in (tiled, Local(boundary))]
    torch.testing.assert_close(*answers)
    assert float((answers[0] - tiled(x, sigma, cond)).abs().max()) > 0.01


def test_one_tile_is_the_denoiser_itself():
    x, sigma, cond = problem((14, 16))
    local = Local(("periodic", "reflect"))
    tiled = Tiled(local, (14, 20), 6, local.boundary)
    assert torch.equal(tiled(x, sigma, cond), local(x, sigma, cond))


def test_networks_are_told_the_boundaries_of_tiles():
    assert tile_boundary((16, 90), (16, 32), ("periodic", "periodic")) == ("periodic", "reflect")
    assert tile_boundary((90, 180), (90, 64), ("pole", "periodic")) == ("reflect", "reflect")
    assert tile_boundary((90, 180), (90, 180), ("pole", "periodic")) == ("pole", "periodic")


@pytest.mark.parametrize(
    "settings", [{"overlap": 16}, {"overlap": 4, "margin": 3}, {"overlap": (4, 4, 4)}, {"overlap": 4, "batch": 0}]
)
def test_tiles_that_cannot_cover_are_refused(settings):
    with pytest.raises(SciffusionError, match="overlap"):
        Tiled(Local(("reflect",) * 2), (16, 16), boundary=("reflect",) * 2, **settings)
    with pytest.raises(SciffusionError, match="2-dimensional"):
        Tiled(Local(("reflect",) * 2), (16, 16), 4, ("reflect",) * 2)(torch.zeros(1, 1, 9), torch.ones(1))


def test_the_law_of_the_noise_passes_through():
    tiled = Tiled(Preconditioned(torch.nn.Identity(), dof=5.0), (8,), 2, ("periodic",))
    assert (tiled.noise, tiled.dof, tiled.gradients) == ("student-t", 5.0, False)
