"""What runs fast answers what runs plainly, and what cannot run fast still runs."""

import logging

import pytest
import torch
from torch import nn

from sciffusion.context import Context
from sciffusion.errors import SciffusionError
from sciffusion.execution import accelerate as module
from sciffusion.execution.accelerate import Execution, accelerate
from sciffusion.execution.cpu import keep_memory, physical_cores, tune_cpu
from sciffusion.execution.graphs import Captured, _Record, _replay
from sciffusion.execution.precision import autocast, resolve_precision, tf32
from sciffusion.networks.dit import DiT
from sciffusion.networks.unet import UNet
from sciffusion.stage_settings import DiTSettings, UNetSettings

CPU = torch.device("cpu")
GLOBE = ("pole", "periodic")
NETWORKS = {
    "unet": (UNet, UNetSettings(channels=16, multipliers=[1, 2], blocks=1, dropout=0.3, embedding=16)),
    "classic": (UNet, UNetSettings(style="classic", channels=16, multipliers=[1, 2], blocks=1, embedding=16)),
    "dit": (DiT, DiTSettings(width=32, depth=2, heads=2, patch=2, embedding=16)),
}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(kind="unet"):
    build, settings = NETWORKS[kind]
    torch.manual_seed(0)
    made = build(2, 2, rank=2, boundary=GLOBE, context_channels=1, settings=settings)
    for parameter in made.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return made


def inputs(batch=2, device="cpu"):
    cond = Context(channels=draw(batch, 1, 13, 16, seed=1))
    return draw(batch, 2, 13, 16).to(device), torch.linspace(-1, 1, batch).to(device), cond.to(device)


@pytest.mark.parametrize("kind", list(NETWORKS))
def test_in_float32_the_answer_is_that_of_the_plain_network(kind):
    plain = network(kind).eval()
    expected = plain(*inputs())
    fast = accelerate(network(kind), CPU, Execution(precision="float32"))
    torch.testing.assert_close(fast(*inputs()), expected, rtol=1e-5, atol=1e-5 * float(expected.detach().std()))


@pytest.mark.parametrize("kind", list(NETWORKS))
def test_in_bfloat16_the_answer_is_float32_and_within_three_percent(kind):
    expected = network(kind).eval()(*inputs())
    fast = accelerate(network(kind), CPU, Execution(precision="bfloat16"))(*inputs())
    assert fast.dtype == torch.float32
    assert (fast - expected).square().mean().sqrt() < 0.03 * expected.square().mean().sqrt()


def test_gradients_flow_to_the_input_for_guidance():
    x, noise, cond = inputs()
    fast = accelerate(network(), CPU, Execution(compile=True))
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(fast(x, noise, cond).square().sum(), x)
    assert gradient.abs().max() > 0


def test_weights_loaded_later_count():
    made = network()
    fast = accelerate(made, CPU)
    before = fast(*inputs())
    made.load_state_dict({name: value + 0.05 * draw(*value.shape, seed=3) for name, value in made.state_dict().items()})
    assert (fast(*inputs()) - before).abs().max() > 1e-3


def test_a_compiler_that_fails_costs_one_line_and_nothing_else(monkeypatch, caplog):
    def broken(function):
        def fail(*_):
            raise RuntimeError("no compiler here\nand a long story")

        return fail

    monkeypatch.setattr(module, "_compiled", broken)
    fast = accelerate(network(), CPU, Execution(compile=True))
    with caplog.at_level(logging.WARNING, logger="sciffusion"):
        answers = [fast(*inputs()) for _ in range(3)]
    torch.testing.assert_close(answers[2], network().eval()(*inputs()), rtol=1e-4, atol=1e-4)
    assert [record.message for record in caplog.records] == [
        "not compiled (RuntimeError: no compiler here): the network runs eagerly"
    ]


def test_answers_that_are_the_field_itself_are_not_rounded():
    asked = Execution(precision="bfloat16")
    fast, expected = accelerate(network(), CPU, asked, direct=True), network().eval()(*inputs())
    torch.testing.assert_close(fast(*inputs()), expected, rtol=1e-5, atol=1e-5 * float(expected.detach().std()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classic"])  # the others are compiled in tests/networks
def test_compiled_equals_eager(kind, monkeypatch, tmp_path):
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path))
    fast = accelerate(network(kind), CPU, Execution(precision="float32", compile=True))
    with torch.no_grad():
        torch.testing.assert_close(fast(*inputs()), network(kind).eval()(*inputs()), rtol=1e-4, atol=1e-4)
    assert not fast._fast.broken


def test_precision_is_checked_and_float32_changes_nothing():
    with pytest.raises(SciffusionError, match="bfloat16"):
        resolve_precision("half", CPU)
    assert resolve_precision("auto", CPU) == torch.float32
    with autocast(torch.float32, CPU):
        assert (draw(2, 2) @ draw(2, 2)).dtype == torch.float32
    with autocast(torch.bfloat16, CPU):
        assert (draw(2, 2) @ draw(2, 2)).dtype == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_is_used_where_it_is_allowed_and_the_settings_of_others_come_back(allowed):
    gpu = torch.device("cuda")
    a, b = draw(256, 256).to(gpu), draw(256, 256, seed=1).to(gpu)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with tf32(allowed, gpu):
        error = (a @ b).double() - a.double() @ b.double()
    assert bool(error.std() > 1e-4 * 16) is allowed  # 10 bits: 3e-4 of the sd of 16; float32 3e-7
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


def test_a_capture_off_the_gpu_is_the_function():
    captured = Captured(lambda x, cond: (x + 1, cond.vector))
    x = draw(3)
    out, vector = captured(x, Context(vector=x))
    torch.testing.assert_close(out, x + 1)
    assert vector is x


class Doubling:
    """In the place of a CUDA graph: doubles what its input holds."""

    def __init__(self, place, output):
        self.place, self.output = place, output

    def replay(self):
        self.output.copy_(2 * self.place)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_replay_sees_inputs_that_were_changed_in_place(mode):
    """Tensors of inference mode do not count their changes, so they are copied every time."""
    with mode():
        place, output = torch.zeros(3), torch.zeros(3)
        record = _Record(Doubling(place, output), [place], output)
        x = torch.ones(3)
        first = _replay(record, [x])
        x.mul_(5)
        torch.testing.assert_close(_replay(record, [x]), torch.full((3,), 10.0))
        torch.testing.assert_close(first, torch.full((3,), 2.0))  # the caller's own


def test_threads_are_those_asked_for_and_memory_settings_of_the_environment_win(monkeypatch):
    before = torch.get_num_threads()
    tune_cpu(threads=before)
    assert torch.get_num_threads() == before
    assert physical_cores() >= 1
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert keep_memory() is False


@pytest.mark.gpu
@pytest.mark.parametrize("kind", list(NETWORKS))
def test_a_recorded_network_answers_new_inputs_and_keeps_old_answers(kind):
    gpu = torch.device("cuda")
    fast = accelerate(network(kind), gpu, Execution(precision="float32"))
    plain = network(kind).eval().to(gpu)
    with torch.no_grad():
        x, noise, cond = inputs(device=gpu)
        first = fast(x, noise, cond)
        kept = first.clone()
        second = fast(2 * x, noise, cond)
        third = fast(x, noise, cond.map(lambda value: value + 1))
        torch.testing.assert_close(first, kept, rtol=0, atol=0)
        for answer, expected in (
            (first, plain(x, noise, cond)),
            (second, plain(2 * x, noise, cond)),
            (third, plain(x, noise, cond.map(lambda value: value + 1))),
        ):
            torch.testing.assert_close(answer, expected, rtol=1e-2, atol=1e-2)  # TF32 may be on
        x.mul_(3)  # the same tensor, changed in place
        torch.testing.assert_close(fast(x, noise, cond), plain(x, noise, cond), rtol=1e-2, atol=1e-2)
    assert not fast._fast.broken
