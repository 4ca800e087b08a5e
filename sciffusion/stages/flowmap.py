"""The flow-map stage: a few-step generator in the frame of a denoiser stage.

It is a denoiser stage but for how it is sampled and trained: ``sampler.steps`` calls of the network walk down
``levels``. Maps that know the end only (consistency, CRPS) draw fresh noise between calls; maps between any two levels
(progressive, mean flow) are told where to go by two more features of the vector.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from sciffusion import config
from sciffusion.context import Context
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.flowmap import DenoiserMap, FlowMap, NetworkMap, sample_map
from sciffusion.diffusion.noises import require_gaussian
from sciffusion.diffusion.sampling import Noise, start_sd
from sciffusion.execution.transfer import to_device
from sciffusion.stages.base import Parts
from sciffusion.stages.denoiser import DenoiserStage
from sciffusion.stages.items import Item

__all__ = ["FlowMapStage"]

LAST = 1.6  # level of the last of several calls, where nothing else is said
TOLD = ("progressive", "meanflow")  # objectives whose network is told the level that a step ends at


class FlowMapStage(DenoiserStage):
    """From noise to the frame's y in as many network calls as the sampler has steps."""

    kind: ClassVar[str] = "flowmap"
    settings: config.FlowMapStage
    settings_type: ClassVar[type[config.Settings]] = config.FlowMapStage

    @staticmethod
    def late_features(settings: Any) -> int:
        """The level that a step ends at, for maps that are told it."""
        return NetworkMap.features if settings.objective in TOLD else 0

    @property
    def gamma(self) -> float:
        """Share of the noise that is drawn afresh between calls: all of it for maps that know the end only."""
        return 0.0 if self.settings.objective in TOLD else 1.0

    def check_noise(self) -> None:
        """Fresh noise between calls is Gaussian."""
        if self.gamma and self.settings.sampler.steps > 1:
            require_gaussian(self.denoiser, f"{self.settings.objective} in several calls")

    def flow_map(self, denoiser: Denoiser | None = None) -> FlowMap:
        """The map made of this stage's denoiser, or of ``denoiser``, which wraps it."""
        inner = self.denoiser if denoiser is None else denoiser
        if self.settings.objective in TOLD:
            return NetworkMap(inner, self.noise_range.sigma_min)
        return DenoiserMap(inner)

    def levels(self, settings: config.Sampler) -> np.ndarray:
        """Level before each call, and a final 0."""
        own = self.settings.levels
        if own is not None and len(own) == settings.steps and settings.sigma_max is None:
            return np.array([*own, 0.0])
        highest = settings.sigma_max or self.noise_range.sigma_max
        return np.append(np.geomspace(highest, min(LAST, highest), settings.steps), 0.0)

    def walk(self, flow_map: FlowMap, start: Tensor, levels: np.ndarray, context: Context, noise: Noise) -> Tensor:
        """From standard normal ``start`` to y."""
        x = start * start_sd(levels[0])
        return sample_map(flow_map, x, levels, context, noise, gamma=self.gamma if len(levels) > 2 else 0.0)

    def integrate(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        context: Context,
        settings: config.Sampler,
        items: Sequence[Item],
        seed: int,
    ) -> Tensor:
        """Walk down the levels; see `sciffusion.diffusion.flowmap.sample_map`."""

        def fresh(step: int) -> Tensor:
            return to_device(self.noise(items, seed=seed, step=step, stream="solver"), self.device)

        return self.walk(self.flow_map(denoiser), noise, self.levels(settings), context, fresh)

    def describe(self) -> dict[str, Any]:
        """As of a denoiser; a model is passed on, the folders of the machine that trained it are not."""
        entry = super().describe()
        teacher = entry["settings"]["teacher"]
        entry["settings"]["teacher"] = teacher and Path(teacher).name
        return entry

    @classmethod
    def of_teacher(cls, settings: config.FlowMapStage, teacher: DenoiserStage) -> Self:
        """A student in the teacher's frame, with its conditioners and, as far as they fit, its weights.

        A student that is told where a step ends starts without heeding it.
        """
        parts = Parts(teacher.codec, dict(teacher.conditioners.items()), teacher.earlier)
        student = cls(settings, parts, teacher.noise_range, teacher.constraint, teacher.frame)
        student.check_noise()
        own, given = student.state_dict(), teacher.state_dict()
        student.load_state_dict({name: given.get(name, value) for name, value in own.items()})
        return student
