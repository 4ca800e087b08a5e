"""The transformer's symmetries, its windows, its conditioning."""

import pytest
import torch
from torch import nn

from sciffusion.config import DenoiserStage, DiTSettings, UNetSettings, load_experiment
from sciffusion.context import Context
from sciffusion.errors import SciffusionError
from sciffusion.networks.dit import DiT
from sciffusion.networks.positions import angles, rotate
from sciffusion.networks.windows import Windows

GLOBE = ("pole", "periodic")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dit(rank=2, boundary=GLOBE, extra=None, **settings):
    """A small network whose zero-initialised parameters have been given values, as training would."""
    torch.manual_seed(0)
    settings = {"width": 32, "depth": 2, "heads": 2, "patch": 2, "dropout": 0.0, "embedding": 16} | settings
    network = DiT(3, 2, rank=rank, boundary=boundary, settings=DiTSettings(**settings), **(extra or {}))
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return network.eval()


def noise(batch=1):
    return torch.linspace(-1, 1, batch)


@pytest.mark.parametrize("window", [None, 4])
def test_it_commutes_with_shifts_along_periodic_axes(window):
    """By a patch with global attention, by a window with windows."""
    network = dit(window=window).double()
    x = draw(1, 3, 7, 32).double()
    shift = 2 * (window or 1)
    answer = network(x, noise()).roll(shift, -1)
    torch.testing.assert_close(network(x.roll(shift, -1), noise()), answer, rtol=0, atol=1e-6)
    assert (network(x.roll(1, -1), noise()) - network(x, noise()).roll(1, -1)).abs().max() > 1e-2


def test_positions_matter():
    network = dit(rank=1, boundary=("periodic",), patch=1)
    x = draw(1, 3, 12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    assert (network(x[..., order], noise()) - network(x, noise())[..., order]).abs().max() > 1e-3


def test_rotation_depends_on_differences_and_closes_on_a_periodic_axis():
    angle = angles((16,), ("periodic",), 8)
    q, k = draw(8), draw(8, seed=1)
    turn = angle.cos(), angle.sin()
    products = (rotate(q.expand(16, 8), turn) @ rotate(k.expand(16, 8), turn).T)[:, :]
    for shift in (1, 5):
        torch.testing.assert_close(products.roll((shift, shift), (0, 1)), products, rtol=1e-4, atol=1e-4)
    assert products[0].std() > 1e-2
    open_ended = angles((16,), ("reflect",), 8)
    assert (open_ended[-1] + open_ended[1] - 2 * torch.pi * (open_ended[-1] / 2 / torch.pi).round()).abs().max() > 0.1


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    ("size", "boundary"),
    [((8,), ("periodic",)), ((10, 7), ("periodic", "reflect")), ((5, 9), GLOBE), ((3, 5, 9), ("constant",) * 3)],
)
def test_joining_inverts_cutting_for_any_size(size, boundary, shifted):
    windows = Windows(4, size, boundary, shifted)
    x = draw(2, *size, 3)
    cut = windows.cut(x)
    torch.testing.assert_close(windows.join(cut, 2), x, rtol=0, atol=0)
    mask = windows.mask(2, x.device)
    counted = cut.shape[0] * cut.shape[1] if mask is None else int(mask.sum())
    assert counted == x[..., 0].numel()
    assert mask is None or bool(mask.any(dim=1).all())


@pytest.mark.parametrize(("name", "together"), [("periodic", True), ("reflect", False), ("pole", False)])
def test_shifted_windows_join_the_seam_of_periodic_axes_only(name, together):
    place = torch.arange(8.0)[None, :, None] + 1
    cut = Windows(4, (8,), (name,), shifted=True).cut(place)[..., 0]
    assert any({1.0, 8.0} <= set(window.tolist()) for window in cut) == together


def test_windows_that_hold_the_whole_grid_are_global_attention():
    x = draw(2, 3, 9, 12)
    torch.testing.assert_close(dit(window=6)(x, noise(2)), dit()(x, noise(2)), rtol=0, atol=0)


def test_what_is_far_outside_a_window_does_not_reach_a_cell():
    network = dit(rank=1, boundary=("reflect",), window=2, depth=1)
    x = draw(1, 3, 32)
    changed = x.clone()
    changed[..., 16] += 1
    change = (network(changed, noise()) - network(x, noise())).abs().amax(dim=1)[0]
    assert change[16:20].max() > 1e-3
    assert change[:16].max() == 0
    assert change[20:].max() == 0


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize(
    ("size", "boundary"),
    [((33,), ("periodic",)), ((13, 22), GLOBE), ((9, 14), ("constant", "reflect")), ((5, 6, 7), ("reflect",) * 3)],
)
def test_any_size_comes_back_in_its_shape(size, boundary, window):
    network = dit(rank=len(size), boundary=boundary, window=window)
    assert network(draw(2, 3, *size), noise(2)).shape == (2, 2, *size)


def conditioned(window=None):
    network = dit(extra={"context_channels": 2, "vector_features": 4, "token_features": 5}, window=window)
    cond = {"channels": draw(2, 2, 9, 8), "vector": draw(2, 4), "tokens": draw(2, 3, 5)}
    return network, draw(2, 3, 9, 8), cond


@pytest.mark.parametrize("part", ["channels", "vector", "tokens"])
def test_each_part_of_the_context_changes_the_answer_of_its_own_sample_only(part):
    network, x, cond = conditioned(window=2)
    changed = dict(cond) | {part: cond[part].clone()}
    changed[part][0] += 1
    change = (network(x, noise(2), Context(**changed)) - network(x, noise(2), Context(**cond))).flatten(1).abs().amax(1)
    assert change[0] > 1e-3
    assert change[1] < 1e-5


def test_masked_tokens_do_not_count():
    network, x, cond = conditioned()
    mask = torch.tensor([[True, True, False], [False, False, False]])
    answer = network(x, noise(2), Context(**cond, token_mask=mask))
    changed = dict(cond) | {"tokens": torch.where(mask[..., None], cond["tokens"], torch.tensor(100.0))}
    torch.testing.assert_close(network(x, noise(2), Context(**changed, token_mask=mask)), answer, rtol=0, atol=1e-6)


def test_it_starts_at_zero_and_every_parameter_gets_a_gradient_once_trained():
    network, x, cond = conditioned(window=2)
    extra = {"context_channels": 2, "vector_features": 4, "token_features": 5}
    fresh = DiT(3, 2, rank=2, boundary=GLOBE, settings=network.settings, **extra)
    assert not fresh(x, noise(2), Context(**cond)).any()
    network(x, noise(2), Context(**cond)).square().mean().backward()
    idle = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().max() > 0]
    assert idle == []


def test_bf16_stays_within_three_percent_of_float32():
    network, x, cond = conditioned()
    with torch.no_grad():
        exact = network(x, noise(2), Context(**cond))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(x, noise(2), Context(**cond))
    assert rough.dtype == torch.float32
    assert (rough - exact).square().mean().sqrt() < 0.03 * exact.square().mean().sqrt()


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(SciffusionError, match="heads of even width"):
        dit(width=36, heads=5)


def test_settings_choose_the_network_by_kind_and_mean_a_unet_without_one():
    assert DenoiserStage.model_validate({"network": {"channels": 8}}).network == UNetSettings(channels=8)
    assert DenoiserStage.model_validate({"network": {"kind": "dit", "depth": 3}}).network == DiTSettings(depth=3)
    stage = DenoiserStage(network=DiTSettings(depth=3))
    assert DenoiserStage.model_validate(stage.model_dump(mode="json")) == stage


def test_a_misspelt_network_setting_is_named():
    experiment = {
        "target": {"source": {"paths": ["a.nc"]}, "variables": {"u": {}}, "dims": ["x"]},
        "conditions": {"coarse": {"kind": "coarse", "variables": ["u"], "factor": 4}},
        "split": {"train": [[0, 5]]},
        "stages": [{"network": {"kind": "dit", "dept": 3}}],
    }
    with pytest.raises(SciffusionError, match=r"network\.dept: unknown setting") as caught:
        load_experiment(experiment)
    assert "did you mean 'depth'" in caught.value.mend


@pytest.mark.slow
def test_compiled_equals_eager():
    network, x, cond = conditioned(window=2)
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True)(x, noise(2), Context(**cond))
        torch.testing.assert_close(compiled, network(x, noise(2), Context(**cond)), rtol=1e-4, atol=1e-4)
