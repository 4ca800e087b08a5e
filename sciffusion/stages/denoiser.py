"""The denoiser stage: a conditional diffusion model of the target's normalised residual.

Its network space is the frame's: the codec's (transformed, baseline and mean residual removed, sd 1), less the output
of an earlier stage where one is the baseline. Members start from their own noise at sigma_max and are integrated to 0;
where a coarse field must be reproduced, every answer of the denoiser is projected onto it, so that the finest scales
are drawn consistently with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion import config
from sciffusion.context import Context
from sciffusion.diffusion import sampling, sigmas, solvers
from sciffusion.diffusion.denoiser import Denoiser
from sciffusion.diffusion.guidance.classifier_free import ClassifierFree
from sciffusion.diffusion.guidance.threshold import Thresholded
from sciffusion.diffusion.noises import require_gaussian
from sciffusion.errors import SciffusionError
from sciffusion.execution.transfer import to_device
from sciffusion.fields.cases import Case
from sciffusion.noise import MemberNoise, NoiseKey, normal
from sciffusion.stages import levels
from sciffusion.stages.base import Parts
from sciffusion.stages.constraint import CoarseConstraint
from sciffusion.stages.frame import Frame
from sciffusion.stages.framed import FramedStage
from sciffusion.stages.items import Item, Prepared, Window

__all__ = ["DenoiserStage"]


class DenoiserStage(FramedStage):
    """Diffusion of the residual to ``settings.baseline``, conditioned on ``settings.inputs``."""

    kind: ClassVar[str] = "denoiser"
    settings: config.DenoiserStage | config.FlowMapStage
    settings_type: ClassVar[type[config.Settings]] = config.DenoiserStage
    bounds: Tensor | None  # lowest, highest value, largest quantile of any case: see Thresholded

    def __init__(
        self,
        settings: config.DenoiserStage | config.FlowMapStage,
        parts: Parts,
        noise_range: sigmas.NoiseRange,
        constraint: CoarseConstraint | None = None,
        frame: Frame | None = None,
    ) -> None:
        super().__init__(settings, parts, frame)
        self.noise_range = noise_range
        self.constraint = constraint
        self.path = levels.path_of(settings.noise, noise_range.sigma_min, noise_range.sigma_max)
        measured = settings.sampler.threshold is not None
        self.register_buffer("bounds", torch.zeros(3, self.frame.space.shape[0]) if measured else None)

    def check_noise(self) -> None:
        """Raise SciffusionError where members cannot be drawn with the settings' law of the noise."""
        settings = self.settings.sampler
        plan = solvers.plan(settings.solver, levels.grid(settings, self.noise_range, self.path))
        if plan.stochastic:
            require_gaussian(self.denoiser, f"the solver {settings.solver}")

    def item_noise(self, item: Item, seed: int, step: int, stream: str) -> MemberNoise:
        """As of any stage; a start in Student-t noise is divided by one number per item, from a stream of its own."""
        gaussian, dof = super().item_noise(item, seed, step, stream), self.settings.noise.dof
        if dof is None or stream != "start":
            return gaussian
        tails = normal(NoiseKey(seed, item.prepared.case.labels, item.member, self.name, step, "tails"), (dof,))
        return replace(gaussian, divisor=float(np.sqrt(np.mean(tails.astype(np.float64) ** 2))))

    def prepare(self, conditions: Mapping[str, xr.Dataset], case: Case, window: Window | None = None) -> Prepared:
        """Inputs of the chain, the baseline to add back, and the coarse field to reproduce."""
        prepared = super().prepare(conditions, case, window)
        if self.constraint is None or window is not None:
            return prepared
        name = self.constraint.condition
        reader: Any = self.readers[name]
        return replace(prepared, coarse=reader.coarse(conditions.get(name), case))

    def coarse_misfit(self, fields: Mapping[str, np.ndarray], prepared: Prepared) -> dict[str, float]:
        """Of the constraint's variables."""
        if self.constraint is None or prepared.coarse is None:
            return {}
        return self.constraint.misfit(fields, prepared.coarse)

    def draw(
        self,
        items: Sequence[Item],
        *,
        seed: int,
        sampler: config.Sampler | None = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Integrate each item from its own noise, and add what the frame took off."""
        settings, outputs = sampler or self.settings.sampler, dict(outputs or {})
        with torch.no_grad():
            context = self.item_context(items, outputs, seed)
            noise = to_device(self.noise(items, seed=seed), self.device)
            shift = self.frame.shift(noise, outputs)
            denoiser = self.guided(settings, items, outputs, shift, seed)
            y = self.integrate(denoiser, noise, context, settings, items, seed)
            return self.frame.value(y, outputs)

    def integrate(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        context: Context,
        settings: config.Sampler,
        items: Sequence[Item],
        seed: int,
    ) -> Tensor:
        """From ``noise`` to y; see `sciffusion.diffusion.sampling.sample`."""
        grid = levels.grid(settings, self.noise_range, self.path)
        plan = solvers.plan(settings.solver, grid, **_solver_settings(settings))
        return sampling.sample(
            denoiser,
            noise * sampling.start_sd(grid[0]),
            grid,
            plan,
            context,
            noise=lambda step: to_device(self.noise(items, seed=seed, step=step, stream="solver"), self.device),
        )

    def guided(
        self, settings: config.Sampler, items: Sequence[Item], outputs: Mapping[str, Tensor], shift: Tensor, seed: int
    ) -> Denoiser:
        """The denoiser with the guidance of the settings and the constraint around it."""
        denoiser = self.accelerated(shift.shape[2:], settings, len(items))
        if settings.guidance != 1.0:
            null = self.item_context(items, outputs, seed, keep=False)
            interval = settings.guidance_interval or (0.0, float("inf"))
            denoiser = ClassifierFree(denoiser, null, settings.guidance, interval)
        if settings.threshold is not None:
            low, high, limit = self._bounds()
            denoiser = Thresholded(denoiser, low, high, limit, settings.threshold)
        right_sides = self._right_sides(items)
        if self.constraint is None or right_sides is None or not self.frame.space.plain:
            return denoiser
        right_sides = to_device(right_sides, self.device)
        if not self.frame.plain:
            right_sides = self.constraint.moved(right_sides, shift, self.frame.scale)
        return self.constraint.wrap(denoiser, right_sides)

    def _bounds(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.bounds is None:
            raise SciffusionError(
                f"stage {self.name} was trained without a threshold, so the range of its target was not measured",
                "set stages.NAME.sampler.threshold before training, or sample without one",
            )
        low, high, limit = self.bounds
        return low, high, limit

    def finish(self, fields: Tensor, items: Sequence[Item]) -> Tensor:
        """The coarse field made exact after the poles have been made single-valued."""
        right_sides = self._right_sides(items)
        if self.constraint is None or right_sides is None:
            return fields
        baselines = [item.prepared.baseline for item in items if item.prepared.baseline is not None]
        return self.constraint.finish(fields, right_sides, baselines or None)

    def _right_sides(self, items: Sequence[Item]) -> Tensor | None:
        """The constraint's right-hand side per item, (item, channel, *coarse grid) on the host, or None."""
        constraint = self.constraint
        if constraint is None or any(item.prepared.coarse is None for item in items):
            return None
        cases = [item.prepared for item in items]
        return torch.stack([case.once("right side", partial(_right_side, constraint, case)) for case in cases])

    def describe(self) -> dict[str, Any]:
        """Settings, noise range and constraint."""
        return {
            **super().describe(),
            "noise_range": self.noise_range.to_json(),
            "constraint": None if self.constraint is None else self.constraint.to_json(),
        }

    @classmethod
    def restore(cls, entry: Mapping[str, Any], parts: Parts) -> Self:
        """Rebuild from `describe`."""
        constraint = entry["constraint"] and CoarseConstraint.from_json(entry["constraint"], parts.codec)
        settings: Any = cls.settings_type.model_validate(entry["settings"])
        return cls(settings, parts, sigmas.NoiseRange.from_json(entry["noise_range"]), constraint or None)


def _right_side(constraint: CoarseConstraint, case: Prepared) -> Tensor:
    assert case.coarse is not None
    return constraint.right_side(case.coarse, case.baseline)


def _solver_settings(settings: config.Sampler) -> dict[str, float]:
    """What differs from a solver's own defaults."""
    chosen = {"churn": settings.churn, "s_noise": settings.s_noise}
    return {name: value for name, value in chosen.items() if value != config.Sampler.model_fields[name].default}
