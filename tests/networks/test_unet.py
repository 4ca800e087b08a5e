"""What the UNet must satisfy whatever its weights are: symmetries, locality, conditioning, size of its activations."""

import pytest
import torch
from torch import nn

from sciffusion.context import Context
from sciffusion.errors import SciffusionError
from sciffusion.networks.layers import Conv, bake, lay_out, upsample
from sciffusion.networks.unet import UNet
from sciffusion.stage_settings import UNetSettings

GLOBE = ("pole", "periodic")
STYLES = ["magnitude-preserving", "classic"]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unet(rank=2, boundary=GLOBE, style=STYLES[0], out=2, extra=None, **settings):
    """A small network whose zero-initialised parameters have been given values, as training would."""
    torch.manual_seed(0)
    settings = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "dropout": 0.0, "embedding": 16} | settings
    network = UNet(
        3, out, rank=rank, boundary=boundary, settings=UNetSettings(style=style, **settings), **(extra or {})
    )
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return network.eval()


def noise(batch=1):
    return torch.linspace(-1, 1, batch)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("patch", [1, 2])
def test_it_commutes_with_shifts_by_the_total_stride_along_periodic_axes(style, patch):
    network = unet(style=style, patch=patch, multipliers=[1, 2, 2], attention=[2]).double()
    x = draw(1, 3, 13, 24).double()
    stride = 4 * patch
    shifted = network(x.roll(stride, -1), noise())
    torch.testing.assert_close(shifted, network(x, noise()).roll(stride, -1), rtol=0, atol=1e-12)
    off = network(x.roll(stride + 1, -1), noise()) - network(x, noise()).roll(stride + 1, -1)
    assert off.abs().max() > 1e-3  # only those shifts: the test can see a difference


def test_it_sees_across_the_pole_and_with_a_reassigned_boundary_it_does_not():
    network = unet(multipliers=[1])
    x = draw(1, 3, 17, 24)
    changed = x.clone()
    changed[..., 1, 3] += 1  # next to the north pole, half a turn away from column 15

    @torch.no_grad()
    def effect():
        return float((network(changed, noise()) - network(x, noise()))[..., 0, 15].abs().max())

    assert effect() > 1e-3
    network.boundary = ("reflect", "periodic")
    assert effect() == 0


def test_poles_stay_on_the_grid_of_every_level_whose_size_is_odd():
    rows = torch.linspace(90, -90, 181)[None, None]
    keep = Conv(1, 1, 1, kernel=1, normalised=True, stride=2)
    levels = [rows]
    for _ in range(2):
        levels.append((keep(levels[-1], ("reflect",)) / keep.effective().item()).detach())
    assert [level.shape[-1] for level in levels] == [181, 91, 46]
    for level in levels:
        assert level[0, 0, 0] == pytest.approx(90)
        assert level[0, 0, -1] == pytest.approx(-90)


@pytest.mark.parametrize(("name", "sees"), [("periodic", True), ("constant", False), ("reflect", False)])
def test_only_a_periodic_network_sees_across_the_seam(name, sees):
    network = unet(rank=1, boundary=(name,), multipliers=[1])
    x = draw(1, 3, 32)
    changed = x.clone()
    changed[..., -1] += 1
    assert bool((network(changed, noise()) - network(x, noise()))[..., 0].abs().max() > 1e-6) == sees


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("size", "boundary"),
    [
        ((33,), ("periodic",)),
        ((3,), ("reflect",)),
        ((181, 36), GLOBE),
        ((7, 45), GLOBE),
        ((37, 22), ("constant", "reflect")),
        ((9, 6, 7), ("reflect", "constant", "periodic")),
    ],
)
@pytest.mark.parametrize("patch", [1, 2])
def test_any_size_comes_back_in_its_shape(style, size, boundary, patch):
    network = unet(rank=len(size), boundary=boundary, style=style, patch=patch, multipliers=[1, 1, 1], channels=8)
    assert network(draw(2, 3, *size), noise(2)).shape == (2, 2, *size)


@pytest.mark.parametrize("style", STYLES)
def test_it_starts_at_zero_and_every_parameter_gets_a_gradient_once_trained(style):
    extra = {"context_channels": 2, "vector_features": 4, "token_features": 5}
    settings = UNetSettings(channels=16, multipliers=[1, 2], attention=[1], style=style)
    cond = Context(channels=draw(2, 2, 9, 8), vector=draw(2, 4), tokens=draw(2, 3, 5))
    fresh = UNet(3, 2, rank=2, boundary=GLOBE, settings=settings, **extra)
    assert not fresh(draw(2, 3, 9, 8), noise(2), cond).any()
    network = unet(style=style, attention=[1], extra=extra)
    network(draw(2, 3, 9, 8), noise(2), cond).square().mean().backward()
    idle = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().max() > 0]
    assert idle == []


def conditioned():
    network = unet(attention=[0, 1], extra={"context_channels": 2, "vector_features": 4, "token_features": 5})
    cond = {"channels": draw(2, 2, 9, 8), "vector": draw(2, 4), "tokens": draw(2, 3, 5)}
    return network, draw(2, 3, 9, 8), cond


@pytest.mark.parametrize("part", ["channels", "vector", "tokens"])
def test_each_part_of_the_context_changes_the_answer_of_its_own_sample_only(part):
    network, x, cond = conditioned()
    changed = dict(cond) | {part: cond[part].clone()}
    changed[part][0] += 1
    change = (network(x, noise(2), Context(**changed)) - network(x, noise(2), Context(**cond))).flatten(1).abs().amax(1)
    assert change[0] > 1e-3
    assert change[1] < 1e-6


def test_masked_tokens_do_not_count_and_a_sample_without_tokens_ignores_them():
    network, x, cond = conditioned()
    mask = torch.tensor([[True, True, False], [False, False, False]])
    answer = network(x, noise(2), Context(**cond, token_mask=mask))
    changed = dict(cond) | {"tokens": torch.where(mask[..., None], cond["tokens"], torch.tensor(100.0))}
    torch.testing.assert_close(network(x, noise(2), Context(**changed, token_mask=mask)), answer, rtol=0, atol=1e-6)
    kept = dict(cond) | {"tokens": cond["tokens"][:, :2]}
    shorter = network(x, noise(2), Context(**kept))
    torch.testing.assert_close(shorter[:1], answer[:1], rtol=0, atol=1e-5)


def test_the_noise_level_changes_the_answer():
    network, x, cond = conditioned()
    change = network(x, noise(2), Context(**cond)) - network(x, noise(2) + 0.5, Context(**cond))
    assert change.abs().max() > 1e-3


def test_activations_keep_their_magnitude_through_the_network():
    torch.manual_seed(0)
    settings = UNetSettings(channels=64, multipliers=[1, 1, 1], blocks=3, attention=[2], dropout=0.0)
    network = UNet(3, 2, rank=2, boundary=("periodic", "periodic"), settings=settings)
    seen = {}
    for name, module in network.named_modules():
        if name.count(".") == 1 and name.startswith(("encoder", "decoder")):
            module.register_forward_hook(
                lambda _, __, out, name=name: seen.update({name: float(out.square().mean().sqrt())})
            )
    with torch.no_grad():
        network(draw(2, 3, 32, 32), noise(2))
    assert len(seen) == 5
    assert all(0.6 < rms < 1.6 for rms in seen.values()), seen


def test_weights_of_any_norm_act_alike_and_baking_changes_nothing():
    network, x, cond = conditioned()
    with torch.no_grad():
        before = network(x, noise(2), Context(**cond))
        for module in network.modules():
            if isinstance(module, Conv) and module.normalised:
                module.weight.mul_(7.0)
        torch.testing.assert_close(network(x, noise(2), Context(**cond)), before, rtol=1e-4, atol=1e-4)
        bake(network)
        torch.testing.assert_close(network(x, noise(2), Context(**cond)), before, rtol=1e-4, atol=1e-4)
        assert network.train().stem.baked is None


@pytest.mark.parametrize("style", STYLES)
def test_bf16_stays_within_two_percent_of_float32(style):
    network = unet(style=style, multipliers=[1, 2], blocks=2)
    x = draw(2, 3, 19, 24)
    with torch.no_grad():
        exact = network(x, noise(2))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(x, noise(2))
    assert rough.dtype == torch.float32
    assert (rough - exact).square().mean().sqrt() < 0.02 * exact.square().mean().sqrt()


def test_channels_last_changes_the_layout_and_nothing_else():
    network = unet(multipliers=[1, 2])
    x = draw(2, 3, 19, 24)
    plain = network(x, noise(2))
    last = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), noise(2))
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_laid_out_for_a_gpu_a_network_computes_the_same(rank):
    network = unet(rank=rank, boundary=("periodic",) * rank, style="classic")
    x = draw(2, 3, *[8] * rank)
    plain = network(x, noise(2))
    lay_out(network)
    torch.testing.assert_close(network(x, noise(2)), plain, rtol=1e-4, atol=1e-4)
    inner = [layer.weight.stride(1) for layer in network.modules() if isinstance(layer, Conv) and layer.reach]
    assert inner == [1 if rank > 1 else 3] * len(inner)  # torch has no such layout for one axis


def test_upsampling_keeps_the_coarse_cells_and_a_linear_function():
    line = torch.arange(0.0, 10.0, 2.0)[None, None]
    torch.testing.assert_close(upsample(line, [9], ["reflect"])[0, 0], torch.arange(9.0))
    wave = torch.randn(1, 1, 6)
    fine = upsample(wave, [12], ["periodic"])
    torch.testing.assert_close(fine[..., ::2], wave)
    torch.testing.assert_close(fine[..., -1], (wave[..., -1] + wave[..., 0]) / 2)


def test_a_contradictory_network_is_refused_before_any_work():
    with pytest.raises(SciffusionError, match="levels 0 to 1"):
        unet(attention=[2])
    with pytest.raises(SciffusionError, match="no attention to read them"):
        unet(extra={"token_features": 3})
    with pytest.raises(SciffusionError, match="built for 0 context channels and got 1"):
        unet()(draw(1, 3, 5, 8), noise(), Context(channels=draw(1, 1, 5, 8)))


@pytest.mark.slow
def test_compiled_equals_eager():
    network = unet(multipliers=[1, 2], attention=[1])
    x = draw(2, 3, 19, 24)
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True)(x, noise(2))
        torch.testing.assert_close(compiled, network(x, noise(2)), rtol=1e-4, atol=1e-4)
