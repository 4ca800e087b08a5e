"""Training a flow-map stage: its objective on the frame's y, and the score of its few-step members in validation."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sciffusion import config
from sciffusion.diffusion.distillation import (
    ContinuousConsistency,
    EasyConsistency,
    MeanFlow,
    Objective,
    OneStepCRPS,
    ProgressiveDistillation,
    trajectory_derivative,
)
from sciffusion.diffusion.flowmap import FlowMap, HeunMap
from sciffusion.diffusion.noises import heavy_tails
from sciffusion.diffusion.objectives import almost_fair_crps
from sciffusion.diffusion.sigmas import NoiseRange, karras
from sciffusion.errors import SciffusionError
from sciffusion.execution.derivative import CompiledDerivative
from sciffusion.stages.denoiser import DenoiserStage
from sciffusion.stages.flowmap import FlowMapStage
from sciffusion.training.compiling import compile_networks, repays
from sciffusion.training.module import StageModule

__all__ = ["FlowMapModule", "progressive_grid"]

MEMBERS = 4  # of the validation score
WARMUP = 1.0  # of derivatives, whose step amplifies errors: they count in full where the learning rate has fallen


def progressive_grid(teacher: DenoiserStage, steps: int) -> tuple[Any, int]:
    """The grid that progressive distillation starts from, and its rounds: each halves the steps, down to ``steps``."""
    own, rounds = teacher.settings.sampler, 1
    while steps * 2**rounds < own.steps:
        rounds += 1
    levels = teacher.noise_range
    return karras(steps * 2**rounds, levels.sigma_min, levels.sigma_max, own.rho), rounds


class FlowMapModule(StageModule):
    """A flow-map stage in training, with its teacher where it has one."""

    stage: FlowMapStage

    def __init__(
        self, stage: FlowMapStage, settings: config.TrainSettings, teacher: DenoiserStage | None = None
    ) -> None:
        super().__init__(stage, settings)
        if teacher is None and stage.settings.objective in ("progressive", "scd"):
            raise SciffusionError(
                f"stage {stage.name}: {stage.settings.objective} distils a teacher, and none is named",
                "use `sciffusion distill RUN`, or set teacher: to a run folder",
            )
        self._teacher = [teacher]  # in a list: its weights are not the student's
        self.derivative: Callable[..., Tensor] = trajectory_derivative
        self._round = 0
        self._master: FlowMap | None = None

    @property
    def teacher(self) -> DenoiserStage | None:
        """The teacher, on the device of the student."""
        teacher = self._teacher[0]
        return None if teacher is None else teacher.to(self.device).eval().requires_grad_(False)

    def on_fit_start(self) -> None:
        """As of any stage; the derivative and the teacher's networks are compiled too."""
        super().on_fit_start()
        if repays(self.settings, self.device):
            self.derivative = CompiledDerivative()
            compile_networks(self.teacher.networks() if self.teacher is not None else [], None, self.device)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """The objective at this point of the training."""
        stage = self.stage
        learned = stage.learn(batch, self.kept(batch, stage.settings.condition_dropout))
        objective = _OBJECTIVES[stage.settings.objective](self)
        losses: Tensor = objective(
            stage.flow_map(), learned.y, learned.context, None, learned.area, learned.valid, progress=self.share
        )
        return losses.mean()

    def validation_losses(self, batch: dict[str, Any], number: int) -> dict[str, Tensor]:
        """Fair CRPS of a few members, drawn with noise fixed per validation case."""
        stage, generator = self.stage, torch.Generator().manual_seed(number)
        learned = stage.learn(batch, self.kept(batch), generator)
        shape = (MEMBERS * len(learned.y), *learned.y.shape[1:])

        def noise(_: int) -> Tensor:
            return heavy_tails(torch.randn(shape, generator=generator), stage.denoiser.dof, generator).to(learned.y)

        levels, context = stage.levels(stage.settings.sampler), learned.context.repeat(MEMBERS)
        members = stage.walk(stage.flow_map(), noise(0), levels, context, noise)
        ensemble = members.reshape(-1, MEMBERS, *shape[1:]).movedim(1, 0)
        return {"loss": almost_fair_crps(ensemble, learned.y, 1.0, learned.area, learned.valid).mean()}

    # --- progressive rounds: the student becomes the next teacher

    def master(self) -> tuple[FlowMap, Any]:
        """Who is to be matched now, and its grid.

        The teacher takes Heun's steps: Euler's, of which the paper takes 1024, lose 15 to 25 % of every scale's power
        in 32, and so would a student that matched them perfectly.
        """
        teacher = self.teacher
        assert teacher is not None
        grid, rounds = progressive_grid(teacher, self.stage.settings.sampler.steps)
        wanted = min(rounds - 1, int(self.share * rounds))
        if wanted > self._round:
            self._promote(self.stage.denoiser.state_dict())
            self._round = wanted
        return self._master or HeunMap(teacher.denoiser), grid[:: 2**self._round]

    def _promote(self, weights: dict[str, Any]) -> None:
        """Make a fixed copy of the student with ``weights`` the teacher."""
        stage = copy.copy(self.stage)
        denoiser = copy.deepcopy(self.stage.denoiser)
        denoiser.load_state_dict(weights)
        self._master = FlowMapStage.flow_map(stage, denoiser.to(self.device).eval().requires_grad_(False))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the present teacher too, where it is a former student."""
        super().on_save_checkpoint(checkpoint)
        master: Any = self._master
        checkpoint["round"] = self._round
        checkpoint["master"] = {} if master is None else master.denoiser.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue its round."""
        super().on_load_checkpoint(checkpoint)
        self._round = checkpoint["round"]
        if checkpoint["master"]:
            self._promote(checkpoint["master"])


def _levels(module: FlowMapModule, p_mean: float, p_std: float) -> NoiseRange:
    """A paper's log-normal, unless the settings name one; broad enough for the range of this stage's levels."""
    own, found = module.stage.settings.noise, module.stage.noise_range
    mean = p_mean if own.p_mean is None else own.p_mean
    return NoiseRange(found.sigma_min, found.sigma_max, mean, own.p_std or p_std)


def _progressive(module: FlowMapModule) -> Objective:
    master, grid = module.master()
    return ProgressiveDistillation(teacher=master, sigmas=grid)


def _continuous(module: FlowMapModule, teacher: DenoiserStage | None) -> Objective:
    noise, known = _levels(module, -1.0, 1.4), None if teacher is None else teacher.denoiser
    return ContinuousConsistency(noise=noise, teacher=known, warmup=WARMUP, derivative=module.derivative)


def _mean_flow(module: FlowMapModule) -> Objective:
    """With a teacher the student begins as a denoiser, and needs no samples that train it as one."""
    teacher, noise = module.teacher, _levels(module, -0.4, 1.0)
    if teacher is None:
        return MeanFlow(noise=noise, derivative=module.derivative)
    found = teacher.denoiser
    return MeanFlow(noise=noise, teacher=found, diagonal=0.0, warmup=WARMUP, derivative=module.derivative)


_OBJECTIVES: dict[str, Callable[[FlowMapModule], Objective]] = {
    "crps": lambda module: OneStepCRPS(
        sigma_max=module.stage.noise_range.sigma_max, members=module.stage.settings.members
    ),
    "progressive": _progressive,
    "ect": lambda module: EasyConsistency(noise=_levels(module, -1.1, 2.0)),
    "sct": lambda module: _continuous(module, None),
    "scd": lambda module: _continuous(module, module.teacher),
    "meanflow": _mean_flow,
}
