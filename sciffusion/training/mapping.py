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
from sciffusion.diffusion.sigmas import NoiseRange
from sciffusion.errors import SciffusionError
from sciffusion.execution.derivative import CompiledDerivative
from sciffusion.stages.denoiser import DenoiserStage
from sciffusion.stages.flowmap import FlowMapStage
from sciffusion.training.compiling import device_of, lay_out_networks, repays
from sciffusion.training.module import StageModule
from sciffusion.training.rounds import Halved, progressive_grid, round_of

__all__ = ["FlowMapModule"]

OWN = ("ect", "sct", "scd", "meanflow")  # objectives whose targets are the student's own answers nearby
MEMBERS = 4  # of the validation score
WARMUP = 0.5  # of derivatives; till then the answer is drawn to what takes power from every scale, too


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
        if teacher is not None:
            lay_out_networks(teacher.networks(), device_of(settings))
        self.derivative: Callable[..., Tensor] = trajectory_derivative
        self._round = 0
        self._master: FlowMap | None = None

    @property
    def teacher(self) -> DenoiserStage | None:
        """The teacher, on the device of the student."""
        teacher = self._teacher[0]
        return None if teacher is None else teacher.to(self.device).eval().requires_grad_(False)

    @property
    def momentum(self) -> float:
        """None where an answer is drawn to one's own nearby: what that turns, the memory of former steps makes grow."""
        return 0.0 if self.stage.settings.objective in OWN else super().momentum

    def networks(self) -> list[Any]:
        """The student's and the teacher's."""
        return [*super().networks(), *(self.teacher.networks() if self.teacher is not None else ())]

    def on_fit_start(self) -> None:
        """As of any stage; the derivative is compiled too."""
        super().on_fit_start()
        if repays(self.settings, self.device):
            self.derivative = CompiledDerivative()

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

        The teacher takes two of Heun's steps for one of the grid's: 32 of Euler's, of which the paper takes 1024, lose
        15 to 25 % of every scale's power, 32 of Heun's add 2 to 6 %, and so would a student that matched them.
        """
        teacher = self.teacher
        assert teacher is not None
        grid, rounds = progressive_grid(teacher, self.stage.settings.sampler.steps)
        wanted, _ = round_of(self.share, rounds)
        if wanted > self._round:
            self._promote(self.stage.denoiser.state_dict())
            self._round = wanted
        return self._master or Halved(HeunMap(teacher.denoiser)), grid[:: 2**self._round]

    def decay(self, done: float) -> float:
        """Anew in every round, as in the paper: else the last, which goes furthest, has the lowest rate."""
        teacher = self._teacher[0]
        if self.stage.settings.objective != "progressive" or teacher is None:
            return done
        return round_of(done, progressive_grid(teacher, self.stage.settings.sampler.steps)[1])[1]

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
    """With a teacher the student begins as a denoiser, and needs no samples that train it as one.

    The paper's levels, log-normal (-0.4, 1), hardly reach those where the finest scales of a field are decided, nor,
    as sCM's (-1, 1.4), those where samplers start: their first step's errors stay, as no noise is added after it.
    """
    teacher, noise = module.teacher, _levels(module, 0.0, 1.8)
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
