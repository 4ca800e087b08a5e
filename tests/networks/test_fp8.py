"""Products in e4m3: errors within their closed forms, invariances of the scales, and which layers are rounded."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sciffusion.networks import fp8
from sciffusion.networks.dit import DiT
from sciffusion.networks.layers import Linear, bake, fp8_layers
from sciffusion.networks.unet import UNet
from sciffusion.stage_settings import DiTSettings, UNetSettings

HALF_STEP = 2.0**-4  # relative: 3 bits of mantissa
SMALLEST_HALF_STEP = 2.0**-10  # in units of the scale: below 2^-6 numbers are evenly spaced by 2^-9
RMS = HALF_STEP / math.sqrt(3) * math.sqrt(3 / (8 * math.log(2)))  # uniform error, magnitudes even over an octave


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def octaves(*shape, count):
    """Magnitudes spread evenly over ``count`` octaves, with random signs."""
    generator = torch.Generator().manual_seed(0)
    exponent = count * torch.rand(*shape, generator=generator, dtype=torch.float64)
    sign = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    return (sign * torch.exp2(exponent)).float()


def most(x):
    """The largest error of every element of ``x``."""
    scale = x.abs().amax(-1, keepdim=True) / fp8.LARGEST
    return torch.maximum(HALF_STEP * x.abs(), (SMALLEST_HALF_STEP * scale).expand_as(x)) * (1 + 1e-6)


def rounded(x):
    values, scale = fp8.quantise(x)
    return values.double() * scale.double()


def test_an_element_is_off_by_half_a_step_at_most():
    x = octaves(64, 512, count=30)
    error = (rounded(x) - x).abs()
    assert (error <= most(x)).all()
    assert (error / x.abs()).max() > 0.9 / 17  # a half step above a power of two, relative to itself


def test_the_relative_error_of_an_element_has_the_rms_of_its_closed_form():
    x = octaves(64, 4096, count=6)
    assert float(((rounded(x) - x) / x).square().mean().sqrt()) == pytest.approx(RMS, rel=0.01)


def test_a_product_is_within_the_sum_of_its_factors_errors_and_has_their_rms():
    x, w = draw(256, 384), draw(128, 384, seed=1)
    exact = x.double() @ w.double().T
    answer = fp8.Product(w)(x)
    error, (x, w) = answer.double() - exact, (x.double(), w.double())
    bound = most(x) @ w.abs().T + x.abs() @ most(w).T + most(x) @ most(w).T + 2.0**-8 * answer.double().abs()
    assert (error.abs() <= bound).all()
    rms = float(error.square().mean().sqrt() / exact.square().mean().sqrt())
    assert rms == pytest.approx(math.sqrt(2) * RMS, rel=0.05)  # of normal numbers octaves are nearly even


@pytest.mark.parametrize("power", [-20, 5])
def test_a_row_times_a_power_of_two_changes_nothing_but_its_answer(power):
    x, w, factor = draw(8, 64), draw(32, 64, seed=1), torch.ones(8, 1)
    factor[3] = 2.0**power
    answer = fp8.Product(w)(x)
    torch.testing.assert_close(fp8.Product(w)(factor * x), factor.bfloat16() * answer, rtol=0, atol=0)
    factor = torch.ones(32, 1)
    factor[5] = 2.0**power
    torch.testing.assert_close(fp8.Product(factor * w)(x), factor.T.bfloat16() * answer, rtol=0, atol=0)


def test_rows_of_zeros_answer_the_bias_and_what_is_no_number_stays_none():
    x, w, bias = draw(4, 16), draw(32, 16, seed=1), draw(32, seed=2)
    x[1], w[7], x[2, 3] = 0, 0, torch.nan
    answer = fp8.Product(w, bias)(x)
    torch.testing.assert_close(answer[1], bias.bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(answer[[0, 1, 3], 7], bias[7].bfloat16().expand(3), rtol=0, atol=0)
    assert answer[2].isnan().all()
    assert answer[[0, 1, 3]].isfinite().all()


def test_leading_axes_are_kept():
    layer = fp8.Product(draw(32, 16))
    x = draw(2, 3, 5, 16)
    torch.testing.assert_close(layer(x)[1, 2, 4], layer(x[1, 2, 4:])[0], rtol=0, atol=0)


def dit(**settings):
    settings = {"width": 64, "depth": 2, "heads": 2, "patch": 2, "embedding": 16} | settings
    return DiT(2, 2, rank=1, boundary=("periodic",), token_features=16, settings=DiTSettings(**settings))


def test_only_perceptrons_of_transformers_are_rounded_after_the_first_block():
    network = dit(depth=3)
    names = {name for name, module in network.named_modules() if module in fp8_layers(network)}
    assert names == {f"blocks.{block}.{layer}" for block in (1, 2) for layer in ("expand", "contract")}
    assert fp8_layers(dit(width=72)) == []  # no multiple of 16
    assert fp8_layers(dit(width=48)) == []  # narrow
    settings = UNetSettings(channels=16, multipliers=[1, 2], blocks=1, attention=[-1], embedding=16)
    assert fp8_layers(UNet(2, 2, rank=1, boundary=("periodic",), settings=settings)) == []


def test_it_is_one_graph_that_never_waits_for_values():
    layer = bake(Linear(64, 80, normalised=False, roundable=True), torch.bfloat16, in_fp8=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(draw(2, 3, 64)), layer(draw(2, 3, 64)), rtol=0, atol=0)


def test_the_rounded_weight_is_that_of_the_parameter_and_goes_when_that_changes():
    layer, x = Linear(80, 64, normalised=True, gain=2.0, roundable=True), draw(4, 80)

    def answer():
        with torch.no_grad():
            return layer(x)

    plain = answer()
    for change in (lambda: layer.train(), lambda: layer.load_state_dict(layer.state_dict()), lambda: bake(layer)):
        bake(layer, torch.bfloat16, in_fp8=True)
        assert answer().dtype == torch.bfloat16
        assert 0.01 < (answer() - plain).std() / plain.std() < 0.08
        change()
        torch.testing.assert_close(answer(), plain)


def test_derivatives_are_those_of_the_unrounded_map():
    layer, x = bake(Linear(80, 64, normalised=False, roundable=True), in_fp8=True), draw(4, 80).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(gradient, layer.weight.sum(0).expand(4, 80))


def test_what_has_no_such_products_says_why(monkeypatch):
    assert fp8.refusal(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    assert fp8.refusal(torch.device("cuda")) == "A100 has no units for it"


@pytest.mark.parametrize("kind", [AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError])
def test_a_gpu_that_cannot_after_all_says_why(monkeypatch, kind):
    """Whatever kind of error torch has for shapes and layouts; the trial has the least sides."""

    def fail(weight, bias):
        assert fp8.fits(*weight.shape)
        raise kind("not this layout\nand where")

    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch, "ones", lambda *size, device: ones(*size))
    monkeypatch.setattr(fp8, "Product", fail)
    assert fp8.refusal(torch.device("cuda")) == "not this layout"


def test_on_a_gpu_torch_is_given_the_layout_that_it_asks_for():
    """Rows of the first factor, columns of the second, a scale each: checked by torch itself, without a device."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = fp8.Product(torch.empty(64, 128, device="cuda"), torch.empty(64, device="cuda"))
        answer = layer(torch.empty(2, 5, 128, device="cuda"))
    assert (answer.shape, answer.dtype, answer.device.type) == ((2, 5, 64), torch.bfloat16, "cuda")


@pytest.mark.gpu
def test_a_gpu_answers_what_the_cpu_does():
    gpu = torch.device("cuda")
    if (reason := fp8.refusal(gpu)) is not None:
        pytest.skip(reason)
    x, w, bias = draw(300, 3072), draw(768, 3072, seed=1) / 3072**0.5, draw(768, seed=2)
    layer, spread = fp8.Product(w, bias), (x @ w.T).std()
    on_cpu, on_gpu = layer(x).float(), layer.to(gpu)(x.to(gpu)).float().cpu()
    # Its sums are said to keep 12 to 14 bits after every 32 products: 0.4 to 1 % here; the rounded factors cost 3.75 %.
    assert (on_gpu - on_cpu).square().mean().sqrt() < 0.02 * spread
    assert (on_gpu - on_cpu).mean().abs() < 0.01 * spread
