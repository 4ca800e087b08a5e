"""Few-step emulators: they call the network exactly as often as they say, and start from what their teacher knows."""

from itertools import pairwise

import pytest
import torch

from sciffusion.cli import main
from sciffusion.diffusion import karras
from sciffusion.diffusion.flowmap import HeunMap
from sciffusion.diffusion.problems import GaussianField, power_law
from sciffusion.emulator import load
from sciffusion.errors import SciffusionError
from sciffusion.generation import held_out
from sciffusion.networks.layers import Conv
from sciffusion.stages.flowmap import FlowMapStage
from sciffusion.stages.saved import stage_from_state, state_of
from sciffusion.training import mapping, module, train
from sciffusion.training.mapping import FlowMapModule
from sciffusion.training.rounds import Halved, progressive_grid
from sciffusion.training.teacher import distilled
from tests.stages.toy import batch_of, toy


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    made = toy(tmp_path_factory.mktemp("teacher"), "edm", "stages.denoiser.sampler.steps=8", validation_members=0)
    train(made.experiment, progress=False)
    return made


def counted(emulator, check, members=2, **options):
    """Network calls of one batch, and the ensemble."""
    calls = []
    for stage in emulator.stages:
        for network in stage.networks():
            network.register_forward_pre_hook(lambda *_: calls.append(1))
    ensemble = emulator.sample(check, members, device="cpu", batch_size=members, **options)
    return len(calls) // len(check.cases), ensemble


@pytest.mark.parametrize("method", ["progressive", "ect", "sct", "scd", "meanflow"])
def test_a_distilled_emulator_calls_the_network_as_often_as_it_says(teacher, tmp_path, method):
    out = str(tmp_path / "student")
    command = ["distill", str(teacher.folder), "--method", method, "--steps", "2", "-o", out, "--no-progress"]
    assert main([*command, "--set", "train.steps=4"]) == 0
    emulator = load(out)
    check = emulator.check(*held_out(out))
    assert emulator.sampler().steps == 2
    assert emulator.stage.settings.teacher == teacher.folder.name  # no folder of this machine
    calls, ensemble = counted(emulator, check)
    assert calls == 2
    assert float(ensemble.a.std("member").mean()) > 0
    one = emulator.sample(check, [1], device="cpu", batch_size=1)
    torch.testing.assert_close(
        torch.from_numpy(one.a.values[0]), torch.from_numpy(ensemble.a.values[1]), rtol=0, atol=1e-4
    )


def test_a_one_step_emulator_is_trained_by_its_score(tmp_path):
    made = toy(tmp_path, "crps")
    train(made.experiment, progress=False)
    emulator = load(made.folder)
    check = emulator.check(*held_out(made.folder))
    calls, ensemble = counted(emulator, check)
    assert calls == 1
    assert float(ensemble.a.std("member").mean()) > 0


def student_of(teacher, method, tmp_path, *overrides):
    experiment = distilled(teacher.folder, method, 2, str(tmp_path / "s"), overrides)
    trained = load(teacher.folder).stage
    return experiment, trained, FlowMapStage.of_teacher(experiment.stages[-1], trained).eval()


@pytest.fixture(scope="module")
def told_nothing(tmp_path_factory):
    """A teacher whose conditions are fields alone: no features of a vector."""
    changes = ("stages.denoiser.sampler.steps=8", "stages.denoiser.inputs=[coarse]")
    made = toy(tmp_path_factory.mktemp("fields"), "edm", *changes, validation_members=0)
    train(made.experiment, progress=False)
    return made


@pytest.mark.parametrize("method", ["ect", "meanflow", "progressive"])
@pytest.mark.parametrize("kind", ["teacher", "told_nothing"])
def test_a_student_starts_as_its_teacher(kind, request, tmp_path, method):
    teacher = request.getfixturevalue(kind)
    experiment, trained, student = student_of(teacher, method, tmp_path)
    batch = batch_of(experiment, teacher.build()[1], trained, 3)
    learned = trained.learn(batch, torch.ones(3, dtype=torch.bool))
    assert (learned.context.vector is None) == (kind == "told_nothing")
    x, sigma = 3 * torch.randn(learned.y.shape, generator=torch.Generator().manual_seed(0)), torch.full((3,), 2.0)
    with torch.no_grad():
        answer = student.flow_map().average(x, sigma, sigma / 2, learned.context)
        expected = trained.denoiser(x, sigma, learned.context)
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)


def test_on_a_gpu_a_teacher_is_laid_out_as_its_student(teacher, tmp_path, monkeypatch):
    experiment, trained, student = student_of(teacher, "scd", tmp_path)
    for room in (mapping, module):
        monkeypatch.setattr(room, "device_of", lambda settings: torch.device("cuda"))
    learning = FlowMapModule(student, experiment.train, trained)
    layers = [layer for network in learning.networks() for layer in network.modules()]
    weights = [layer.weight for layer in layers if isinstance(layer, Conv)]
    assert len(weights) > 10
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_weights_of_another_shape_are_refused_in_a_line_with_the_mend(teacher, tmp_path):
    """As those of students by `meanflow` that were told their levels as numbers."""
    student = student_of(teacher, "meanflow", tmp_path)[2]
    entry, tensors = state_of(student)
    (name,) = (name for name in tensors if name.endswith("embedding.late.weight"))
    with pytest.raises(SciffusionError) as refusal:
        stage_from_state(entry, tensors | {name: tensors[name][:, :2]}, student.earlier)
    what, mend = str(refusal.value).split("\n")
    assert "'flowmap' do not fit" in what
    assert "embedding.late.weight" in what
    assert "train anew" in mend


def test_what_only_the_student_is_told_does_not_outweigh_the_rest(told_nothing, tmp_path):
    """Rows of unit norm that begin at zero have gradients of a million times those of the others."""
    experiment, trained, student = student_of(told_nothing, "meanflow", tmp_path)
    batch = batch_of(experiment, told_nothing.build()[1], trained, 3)
    learned = trained.learn(batch, torch.ones(3, dtype=torch.bool))
    sigma = torch.full((3,), 2.0)
    student.flow_map().average(learned.y, sigma, sigma / 2, learned.context).square().mean().backward()
    weights = student.network.embedding
    told, known = weights.late.weight.grad.norm(), weights.noise.weight.grad.norm()
    assert 0 < float(told) < 100 * float(known)


def test_progressive_rounds_halve_the_steps_and_end_at_the_students(teacher, tmp_path):
    experiment, trained, student = student_of(teacher, "progressive", tmp_path)
    grid, rounds = progressive_grid(trained, 2)
    assert (len(grid) - 1, rounds) == (8, 2)
    module = FlowMapModule(student, experiment.train.model_copy(update={"steps": 10}), trained)
    seen, fallen = [], []
    for step in range(10):
        module.__dict__["global_step"] = step
        type(module).global_step = property(lambda self: self.__dict__["global_step"])
        seen.append(len(module.master()[1]) - 1)
        fallen.append(module.decay(step / 10))
    del type(module).global_step
    assert seen == [8] * 5 + [4] * 5
    assert fallen == pytest.approx([0, 0.2, 0.4, 0.6, 0.8] * 2)  # the learning rate, in every round
    assert module.decay(1.0) == 1
    torch.testing.assert_close(torch.tensor(student.levels(student.settings.sampler)), torch.tensor(grid[::4]))


@pytest.mark.parametrize(
    ("method", "share"), [("progressive", 1.0), ("ect", 1 / 3), ("sct", 0.1), ("scd", 0.1), ("meanflow", 0.1)]
)
def test_students_of_their_own_answers_learn_at_a_lower_rate(teacher, tmp_path, method, share):
    made = distilled(teacher.folder, method, 2, str(tmp_path))
    assert made.train.learning_rate == pytest.approx(share * teacher.experiment.train.learning_rate)


@pytest.mark.parametrize(
    ("method", "beta"), [("progressive", 0.9), ("ect", 0.0), ("sct", 0.0), ("scd", 0.0), ("meanflow", 0.0)]
)
def test_students_of_their_own_answers_learn_without_momentum(teacher, tmp_path, method, beta):
    """A wave along the trajectory grows in every step by (1/2 + beta / (1 - beta)) times the square of its turn."""
    experiment, trained, student = student_of(teacher, method, tmp_path)
    module = FlowMapModule(student, experiment.train, trained)
    assert module.configure_optimizers()["optimizer"].param_groups[0]["betas"] == (beta, 0.99)


@pytest.mark.parametrize("method", ["sct", "scd", "meanflow"])
def test_a_derivative_counts_in_full_in_the_second_half(teacher, tmp_path, method):
    """Before, what it amplifies made networks of some millions of parameters forget their teacher."""
    experiment, trained, student = student_of(teacher, method, tmp_path)
    objective = mapping._OBJECTIVES[method](FlowMapModule(student, experiment.train, trained))
    instant, whole = torch.zeros(3), torch.ones(3)
    shares = [float(objective.blend(instant, whole, progress).mean()) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert shares == pytest.approx([0.0, 0.5, 1.0, 1.0])


def test_a_mean_flow_that_begins_as_a_denoiser_is_not_trained_as_one(teacher, tmp_path):
    experiment, trained, student = student_of(teacher, "meanflow", tmp_path)
    diagonals = []
    for master in (trained, None):
        made = mapping._mean_flow(FlowMapModule(student, experiment.train, master))
        sigma, lower = made.levels(4000, torch.Generator().manual_seed(0))
        diagonals.append(float((sigma == lower).float().mean()))
    assert diagonals == pytest.approx([0.0, 0.75], abs=0.03)  # 4 standard deviations


def test_the_steps_that_are_halved_first_keep_the_power_of_every_scale(teacher, tmp_path):
    """Euler's lose 15 to 25 % of it in 32 steps, Heun's add up to 6 %."""
    experiment, trained, student = student_of(teacher, "progressive", tmp_path)
    first = FlowMapModule(student, experiment.train, trained).master()[0]
    assert isinstance(first, Halved)
    assert isinstance(first.flow_map, HeunMap)
    law = GaussianField(power_law(3.0), (64,))
    first, grid = Halved(HeunMap(law.denoiser())), torch.from_numpy(karras(32, 0.002, 80.0, 9.0))[:, None]
    x = start = 80 * torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sigma, lower in pairwise(grid):
        x = first(x, sigma, lower)
    exact = law.flow_map()(start, grid[0], grid[-1])
    power = torch.fft.rfft(x).abs().square() / torch.fft.rfft(exact).abs().square()
    assert float((power - 1).abs().max()) < 0.015


def test_a_run_that_is_no_denoiser_is_not_distilled(tmp_path, teacher, capsys):
    assert main(["distill", str(tmp_path), "-o", str(tmp_path / "x")]) == 2
    assert "not a run folder" in capsys.readouterr().err
