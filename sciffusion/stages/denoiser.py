"""The denoiser stage: a conditional diffusion model of the target's normalised residual.

Its network space is the frame's: the codec's (transformed, baseline and mean residual removed, sd 1), less the output
of an earlier stage where one is the baseline. Members start from their own noise at sigma_max and are integrated to 0;
where a coarse field must be reproduced, every answer of the denoiser is projected onto it, so that the finest scales
are drawn consistently with it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion import config
from sciffusion.boundary import Boundary
from sciffusion.conditioners.base import Conditioner
from sciffusion.context import Context
from sciffusion.diffusion import parameterization, sampling, sigmas, solvers
from sciffusion.diffusion.denoiser import Denoiser, Masked, Preconditioned, Wrapper, expand
from sciffusion.diffusion.guidance.classifier_free import ClassifierFree
from sciffusion.diffusion.guidance.threshold import Thresholded
from sciffusion.diffusion.noises import require_gaussian
from sciffusion.diffusion.tiling import Tiled, tile_boundary
from sciffusion.errors import SciffusionError
from sciffusion.execution.transfer import to_device
from sciffusion.fields.cases import Case
from sciffusion.fields.codec import FieldCodec
from sciffusion.noise import NoiseKey, normal
from sciffusion.stages import levels
from sciffusion.stages.base import Item, Prepared, Stage, Window
from sciffusion.stages.constraint import CoarseConstraint
from sciffusion.stages.frame import Frame
from sciffusion.stages.networked import NetworkStage, without_output
from sciffusion.stages.spaces import Vector, space_of

__all__ = ["DenoiserStage", "Learned", "frame_of"]

_TILES = 8  # per call of the network, at least


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
    return Frame(space_of(settings, codec, earlier), baseline)


class DenoiserStage(NetworkStage):
    """Diffusion of the residual to ``settings.baseline``, conditioned on ``settings.inputs``."""

    kind: ClassVar[str] = "denoiser"
    settings: config.DenoiserStage | config.FlowMapStage
    settings_type: ClassVar[type[config.Settings]] = config.DenoiserStage
    bounds: Tensor | None  # lowest, highest value, largest quantile of any case: see Thresholded

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
        measured = settings.sampler.threshold is not None
        self.register_buffer("bounds", torch.zeros(3, self.frame.space.shape[0]) if measured else None)
        self.parameterization = parameterization.by_name(settings.parameterization)
        self.denoiser = Masked(Preconditioned(network, self.parameterization, dof=settings.noise.dof or math.inf))

    def check_noise(self) -> None:
        """Raise SciffusionError where members cannot be drawn with the settings' law of the noise."""
        settings = self.settings.sampler
        plan = solvers.plan(settings.solver, levels.grid(settings, self.noise_range, self.path))
        if plan.stochastic:
            require_gaussian(self.denoiser, f"the solver {settings.solver}")

    def item_noise(self, item: Item, seed: int, step: int, stream: str) -> np.ndarray:
        """As of any stage; a start in Student-t noise is divided by one number per item, from a stream of its own."""
        drawn, dof = super().item_noise(item, seed, step, stream), self.settings.noise.dof
        if dof is None or stream != "start":
            return drawn
        tails = normal(NoiseKey(seed, item.prepared.case.labels, item.member, self.name, step, "tails"), (dof,))
        return np.asarray(drawn / np.sqrt(np.mean(tails.astype(np.float64) ** 2)), np.float32)

    @staticmethod
    def label_features(settings: Any) -> int:
        """Features that the network is told besides the conditions: the level of the augmentation."""
        return int(settings.augmentation.largest > 0)

    @property
    def network(self) -> Any:
        """What the preconditioning wraps."""
        return self.denoiser.denoiser.network

    def accelerated(self, size: Sequence[int], settings: config.Sampler | None = None, batch: int = 1) -> Denoiser:
        """The denoiser of fields of ``size``, of tiles if the settings say so, in its fast form if there is one.

        Not for training.
        """
        sides = [min(cells, (settings and settings.tile) or cells) for cells in size]
        names = self.frame.space.boundary
        cut = tuple(sides) != tuple(size)
        self._bound(tile_boundary(size, sides, names) if cut else names)
        fast = self.fast(self.denoiser)
        denoiser: Denoiser = self.denoiser if fast is self.denoiser else _Called(self.denoiser, fast)
        if not cut or settings is None:
            return denoiser
        overlap = min(sides) // 4 if settings.overlap is None else settings.overlap
        shared = [overlap if side < cells else 0 for side, cells in zip(sides, size, strict=True)]
        return Tiled(denoiser, sides, shared, names, batch=max(_TILES, batch))

    def _bound(self, names: tuple[Boundary, ...]) -> None:
        """Let the network know another boundary than it knows now, keeping its form."""
        if tuple(self.network.boundary) != names and not isinstance(self.frame.space, Vector):
            execution = self.execution
            super().set_boundary(names)
            if execution is not None:
                self.prepare_network(execution)

    def networks(self) -> Sequence[Any]:
        """The one."""
        return [self.network]

    def calls(self) -> Sequence[tuple[Any, Callable[..., Any]]]:
        """The whole denoiser, so that the arithmetic around the network is recorded and compiled with it."""
        return [(self.network, self.denoiser)]

    def set_boundary(self, names: tuple[Boundary, ...]) -> None:
        """Tell the network and the space; a code vector has none."""
        if len(names) == len(self.frame.space.boundary) and not isinstance(self.frame.space, Vector):
            super().set_boundary(names)
            self.frame.space.boundary = names

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

    def coarse_misfit(self, fields: Mapping[str, np.ndarray], prepared: Prepared) -> dict[str, float]:
        """Of the constraint's variables."""
        if self.constraint is None or prepared.coarse is None:
            return {}
        return self.constraint.misfit(fields, prepared.coarse)

    # --- training

    def learn(self, batch: Mapping[str, Any], keep: Tensor, generator: torch.Generator | None = None) -> Learned:
        """A batch of training samples in the frame; conditions are dropped where ``keep`` is False.

        ``generator`` draws the noise of the augmentation; None: torch's own.
        """
        outputs = self.truths(batch)
        size = batch["z"].shape[2:]
        context = self.encode(batch["inputs"], keep, batch["mask"])
        level = to_device(_uniform(len(keep), generator), keep.device) * self.settings.augmentation.largest
        noises = {name: _normal(outputs[name], generator) for name in self.given if self.settings.augmentation.largest}
        context = self.told(context, outputs, size, level, noises)
        space = self.frame.space
        area, valid = space.cells(batch["area"], batch["valid"])
        y = self.frame.target(self.truth(batch), outputs)
        return Learned(y, space.context(context), area, valid)

    def told(
        self,
        context: Context,
        outputs: Mapping[str, Tensor],
        size: Sequence[int],
        level: Tensor,
        noises: Mapping[str, Tensor],
    ) -> Context:
        """The conditions joined by the outputs given, these with noise of ``level`` (batch,), which is told too.

        An output v becomes (v + level n) / sqrt(1 + level^2), of unit variance still (Ho et al. 2021, cascaded
        diffusion, arXiv:2106.15282, section 4).
        """
        if not self.settings.augmentation.largest or not self.given:
            return self.joined(context, outputs, size)
        shown = []
        for name in self.given:
            stage, column = self.earlier[name], expand(level, outputs[name])
            noisy = (stage.standard(outputs[name]) + column * noises[name]) / torch.sqrt(1 + column**2)
            shown.append(stage.shown(noisy, size))
        return Context.merge([context, *shown, Context(vector=level[:, None])])

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

    def item_context(
        self, items: Sequence[Item], outputs: Mapping[str, Tensor], seed: int, *, keep: bool = True
    ) -> Context:
        """The conditioning of each item; without ``keep`` what the network is told when every condition is dropped."""
        cases, order = self.per_item(items)
        context = self.context(cases, keep=keep).map(lambda value: value.index_select(0, order))
        size = self.codec.valid_cells(cases[0].window).shape[1:]
        level = torch.full((len(items),), self.settings.augmentation.sampling, device=self.device)
        noises = {}
        if self.settings.augmentation.largest:
            stream = f"into {self.name}"
            noises = {n: self.earlier[n].noise(items, seed=seed, stream=stream).to(self.device) for n in self.given}
        return self.frame.space.context(self.told(context, outputs, size, level, noises))

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

    def standard(self, output: Tensor) -> Tensor:
        """Mean 0 and sd 1."""
        return self.frame.standard(output)

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


class _Called(Wrapper):
    """``denoiser`` by way of ``function``, another form of its forward: recorded, compiled."""

    def __init__(self, denoiser: Denoiser, function: Callable[..., Tensor]) -> None:
        super().__init__(denoiser)
        self.function = function

    def forward(self, x: Tensor, sigma: Tensor, cond: Context | None = None) -> Tensor:
        """E[x0 | x]."""
        return self.function(x, sigma, cond)


def _uniform(count: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(count, generator=generator)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return to_device(torch.randn(like.shape, generator=generator), like.device).to(like.dtype)


def _right_side(constraint: CoarseConstraint, case: Prepared) -> Tensor:
    assert case.coarse is not None
    return constraint.right_side(case.coarse, case.baseline)


def _solver_settings(settings: config.Sampler) -> dict[str, float]:
    """What differs from a solver's own defaults."""
    chosen = {"churn": settings.churn, "s_noise": settings.s_noise}
    return {name: value for name, value in chosen.items() if value != config.Sampler.model_fields[name].default}
