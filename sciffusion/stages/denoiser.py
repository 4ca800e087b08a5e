"""The denoiser stage: a conditional diffusion model of the target's normalised residual.

Its network space is the frame's: the codec's (transformed, baseline and mean residual removed, sd 1), less the output
of an earlier stage where one is the baseline. Members start from their own noise at sigma_max and are integrated to 0;
where a coarse field must be reproduced, every answer of the denoiser is projected onto it, so that the finest scales
are drawn consistently with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
import xarray as xr
from torch import Tensor

from sciffusion import config
from sciffusion.boundary import Boundary
from sciffusion.conditioners.base import Conditioner
from sciffusion.context import Context
from sciffusion.diffusion import parameterization, sampling, sigmas, solvers
from sciffusion.diffusion.denoiser import Denoiser, Masked, Preconditioned
from sciffusion.diffusion.guidance.classifier_free import ClassifierFree
from sciffusion.execution.transfer import to_device
from sciffusion.fields.cases import Case
from sciffusion.fields.codec import FieldCodec
from sciffusion.stages import levels
from sciffusion.stages.base import Item, Prepared, Stage, Window
from sciffusion.stages.constraint import CoarseConstraint
from sciffusion.stages.frame import Frame, Space
from sciffusion.stages.networked import NetworkStage, without_output

__all__ = ["DenoiserStage", "Learned", "frame_of"]


@dataclass(frozen=True)
class Learned:
    """A batch in the frame: target y (batch, channel, *grid), its conditioning, weights and validity of its cells."""

    y: Tensor
    context: Context
    area: Tensor | None
    valid: Tensor | None


def frame_of(settings: Any, codec: FieldCodec, earlier: Mapping[str, Stage]) -> Frame:
    """The frame that the settings describe, with nothing measured yet."""
    baseline = without_output(settings.baseline) if earlier and settings.baseline else None
    return Frame(Space(codec), baseline)


class DenoiserStage(NetworkStage):
    """Diffusion of the residual to ``settings.baseline``, conditioned on ``settings.inputs``."""

    kind: ClassVar[str] = "denoiser"
    settings: config.DenoiserStage | config.FlowMapStage
    settings_type: ClassVar[type[config.Settings]] = config.DenoiserStage

    def __init__(
        self,
        settings: config.DenoiserStage | config.FlowMapStage,
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        noise_range: sigmas.NoiseRange,
        constraint: CoarseConstraint | None = None,
        earlier: Mapping[str, Stage] | None = None,
        frame: Frame | None = None,
    ) -> None:
        super().__init__(settings, codec, conditioners, earlier)
        self.noise_range = noise_range
        self.constraint = constraint
        self.frame = frame or frame_of(settings, codec, self.earlier)
        self.path = levels.path_of(settings.noise, noise_range.sigma_min, noise_range.sigma_max)
        network = self.make_network(self.frame.space, features=self.label_features(settings))
        self.parameterization = parameterization.by_name(settings.parameterization)
        self.denoiser = Masked(Preconditioned(network, self.parameterization))

    @staticmethod
    def label_features(settings: Any) -> int:
        """Features that the network is told besides the conditions."""
        return 0

    @property
    def network(self) -> Any:
        """What the preconditioning wraps."""
        return self.denoiser.denoiser.network

    def networks(self) -> Sequence[Any]:
        """The one."""
        return [self.network]

    @property
    def boundary(self) -> Sequence[Boundary]:
        """Boundaries of the space."""
        return self.frame.space.boundary

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(channel, *grid) of the space."""
        return self.frame.space.shape

    def prepare(self, conditions: Mapping[str, xr.Dataset], case: Case, window: Window | None = None) -> Prepared:
        """Inputs of the chain, the baseline to add back, and the coarse field to reproduce."""
        prepared = super().prepare(conditions, case, window)
        if self.constraint is None or window is not None:
            return prepared
        name = self.constraint.condition
        reader: Any = self.readers[name]
        return replace(prepared, coarse=reader.coarse(conditions.get(name), case))

    # --- training

    def learn(self, batch: Mapping[str, Any], keep: Tensor) -> Learned:
        """A batch of training samples in the frame; conditions are dropped where ``keep`` is False."""
        outputs = self.truths(batch)
        size = batch["z"].shape[2:]
        context = self.joined(self.encode(batch["inputs"], keep, batch["mask"]), outputs, size)
        space = self.frame.space
        area, valid = space.cells(batch["area"], batch["valid"])
        y = self.frame.target(self.truth(batch), outputs)
        return Learned(y, space.context(context), area, valid)

    def truth(self, batch: Mapping[str, Any]) -> Tensor:
        """The field itself, in this stage's space."""
        with torch.no_grad():
            return self.frame.space.encode(batch["z"])

    # --- sampling

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
            context = self.item_context(items, outputs)
            noise = to_device(self.noise(items, seed=seed), self.device)
            shift = self.frame.shift(noise, outputs)
            denoiser = self.guided(settings, items, outputs, shift)
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

    def item_context(self, items: Sequence[Item], outputs: Mapping[str, Tensor], *, keep: bool = True) -> Context:
        """The conditioning of each item; without ``keep`` what the network is told when every condition is dropped."""
        cases, order = self.per_item(items)
        context = self.context(cases, keep=keep).map(lambda value: value.index_select(0, order))
        size = self.codec.valid_cells(cases[0].window).shape[1:]
        return self.frame.space.context(self.joined(context, outputs, size))

    def guided(
        self, settings: config.Sampler, items: Sequence[Item], outputs: Mapping[str, Tensor], shift: Tensor
    ) -> Denoiser:
        """The denoiser with the guidance of the settings and the constraint around it."""
        denoiser: Denoiser = self.denoiser
        if settings.guidance != 1.0:
            null = self.item_context(items, outputs, keep=False)
            interval = settings.guidance_interval or (0.0, float("inf"))
            denoiser = ClassifierFree(denoiser, null, settings.guidance, interval)
        right_sides = self._right_sides(items)
        if self.constraint is None or right_sides is None or not self.frame.space.plain:
            return denoiser
        right_sides = to_device(right_sides, self.device)
        if not self.frame.plain:
            right_sides = self.constraint.moved(right_sides, shift, self.frame.scale)
        return self.constraint.wrap(denoiser, right_sides)

    def field(self, output: Tensor) -> Tensor:
        """The output decoded to the codec's space."""
        return self.frame.space.decode(output, self.codec.grid.shape)

    def finish(self, fields: Tensor, items: Sequence[Item]) -> Tensor:
        """The coarse field made exact after the poles have been made single-valued."""
        right_sides = self._right_sides(items)
        if self.constraint is None or right_sides is None:
            return fields
        baselines = [item.prepared.baseline for item in items if item.prepared.baseline is not None]
        return self.constraint.finish(fields, right_sides, baselines or None)

    def shown(self, output: Tensor, size: Sequence[int]) -> Context:
        """The output as conditioning of a later stage."""
        return self.frame.space.shown(output, size)

    @property
    def shows(self) -> tuple[int, int]:
        """Channels and features of `shown`."""
        return self.frame.space.shows

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
    def restore(
        cls,
        entry: Mapping[str, Any],
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        earlier: Mapping[str, Stage],
    ) -> Self:
        """Rebuild from `describe`."""
        constraint = entry["constraint"] and CoarseConstraint.from_json(entry["constraint"], codec)
        settings: Any = cls.settings_type.model_validate(entry["settings"])
        return cls(
            settings,
            codec,
            conditioners,
            sigmas.NoiseRange.from_json(entry["noise_range"]),
            constraint or None,
            earlier,
        )


def _right_side(constraint: CoarseConstraint, case: Prepared) -> Tensor:
    assert case.coarse is not None
    return constraint.right_side(case.coarse, case.baseline)


def _solver_settings(settings: config.Sampler) -> dict[str, float]:
    """What differs from a solver's own defaults."""
    chosen = {"churn": settings.churn, "s_noise": settings.s_noise}
    return {name: value for name, value in chosen.items() if value != config.Sampler.model_fields[name].default}
