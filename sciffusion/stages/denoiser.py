"""The denoiser stage: a conditional diffusion model of the target's normalised residual.

Its network space is the codec's: transformed, baseline and mean residual removed, sd 1. Members start from their own
noise at sigma_max and are integrated to 0; where a coarse field must be reproduced, every answer of the denoiser is
projected onto it, so that the finest scales are drawn consistently with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion import config, registry
from sciffusion.conditioners.base import Conditioner
from sciffusion.context import Context
from sciffusion.diffusion import parameterization, sampling, sigmas, solvers
from sciffusion.diffusion.denoiser import Denoiser, Masked, Preconditioned
from sciffusion.execution.cpu import tune_cpu
from sciffusion.execution.transfer import to_device
from sciffusion.fields.cases import Case
from sciffusion.fields.codec import FieldCodec
from sciffusion.networks.layers import bake
from sciffusion.stages.base import Item, Prepared, Stage, Window
from sciffusion.stages.constraint import CoarseConstraint

__all__ = ["DenoiserStage"]


class DenoiserStage(Stage):
    """Diffusion of the residual to ``settings.baseline``, conditioned on ``settings.inputs``."""

    kind: ClassVar[str] = "denoiser"

    def __init__(
        self,
        settings: config.DenoiserStage,
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        noise_range: sigmas.NoiseRange,
        constraint: CoarseConstraint | None = None,
    ) -> None:
        super().__init__(settings.name, codec, conditioners)
        self.settings = settings
        self.noise_range = noise_range
        self.constraint = constraint
        network = _network(settings, codec, conditioners)
        self.denoiser = Masked(Preconditioned(network, parameterization.by_name(settings.parameterization)))

    @property
    def network(self) -> Any:
        """What the preconditioning wraps."""
        return self.denoiser.denoiser.network

    def prepare_network(self) -> None:
        """Cache normalised weights, and on a CPU use its best settings; training mode undoes it."""
        if self.device.type == "cpu":
            tune_cpu()
        bake(self.network, channels_last=True)

    def prepare(self, conditions: Mapping[str, xr.Dataset], case: Case, window: Window | None = None) -> Prepared:
        """Inputs of the network, the baseline to add back, and the coarse field to reproduce."""
        prepared = super().prepare(conditions, case, window)
        baseline = coarse = None
        if self.settings.baseline is not None:
            name = self.settings.baseline
            baseline = self.conditioners[name].baseline(conditions.get(name), case, window)
        if self.constraint is not None and window is None:
            name = self.constraint.condition
            coarse = self.conditioners[name].coarse(conditions.get(name), case)
        return replace(prepared, baseline=baseline, coarse=coarse)

    def encode(self, inputs: Mapping[str, Mapping[str, Tensor]], keep: Tensor, mask: Tensor) -> Context:
        """The conditions, and where cells are always missing the mask, as both a channel and a rule."""
        context = super().encode(inputs, keep, mask)
        if self.codec.valid is None:
            return context
        return Context.merge([context, Context(channels=mask.float(), valid=mask)])

    def draw(self, items: Sequence[Item], *, seed: int, sampler: config.Sampler | None = None) -> Tensor:
        """Integrate each item from its own noise; see `sciffusion.diffusion.sampling.sample`."""
        settings = sampler or self.settings.sampler
        grid = self.sigmas(settings)
        plan = solvers.plan(settings.solver, grid, **_solver_settings(settings))
        cases = {id(item.prepared): item.prepared for item in items}
        order = torch.tensor([list(cases).index(id(item.prepared)) for item in items], device=self.device)
        right_sides = self._right_sides(items)
        denoiser: Denoiser = self.denoiser
        if self.constraint is not None and right_sides is not None:
            denoiser = self.constraint.wrap(denoiser, to_device(right_sides, self.device))
        with torch.no_grad():
            context = self.context(list(cases.values())).map(lambda value: value.index_select(0, order))
            return sampling.sample(
                denoiser,
                to_device(self.noise(items, seed=seed), self.device) * sampling.start_sd(grid[0]),
                grid,
                plan,
                context,
                noise=lambda step: to_device(self.noise(items, seed=seed, step=step, stream="solver"), self.device),
            )

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

    def sigmas(self, settings: config.Sampler) -> np.ndarray:
        """Noise levels of the sampler's grid, from sigma_max to 0."""
        lowest = settings.sigma_min or self.noise_range.sigma_min
        highest = settings.sigma_max or self.noise_range.sigma_max
        return sigmas.karras(settings.steps, lowest, highest, settings.rho)

    def describe(self) -> dict[str, Any]:
        """Settings, noise range and constraint."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "noise_range": self.noise_range.to_json(),
            "constraint": None if self.constraint is None else self.constraint.to_json(),
        }

    @classmethod
    def restore(cls, entry: Mapping[str, Any], codec: FieldCodec, conditioners: Mapping[str, Conditioner]) -> Self:
        """Rebuild from `describe`."""
        constraint = entry["constraint"] and CoarseConstraint.from_json(entry["constraint"], codec)
        return cls(
            config.DenoiserStage.model_validate(entry["settings"]),
            codec,
            conditioners,
            sigmas.NoiseRange.from_json(entry["noise_range"]),
            constraint or None,
        )


def _right_side(constraint: CoarseConstraint, case: Prepared) -> Tensor:
    assert case.coarse is not None
    return constraint.right_side(case.coarse, case.baseline)


def _network(settings: config.DenoiserStage, codec: FieldCodec, conditioners: Mapping[str, Conditioner]) -> Any:
    channels = len(codec.channels)
    masked = 0 if codec.valid is None else codec.valid.shape[0]
    return registry.get("networks", settings.network.kind)(
        channels,
        channels,
        rank=codec.grid.rank,
        boundary=codec.grid.boundary(),
        context_channels=sum(conditioner.channels for conditioner in conditioners.values()) + masked,
        vector_features=sum(conditioner.features for conditioner in conditioners.values()),
        settings=settings.network,
    )


def _solver_settings(settings: config.Sampler) -> dict[str, float]:
    """What differs from a solver's own defaults."""
    chosen = {"churn": settings.churn, "s_noise": settings.s_noise}
    return {name: value for name, value in chosen.items() if value != config.Sampler.model_fields[name].default}
