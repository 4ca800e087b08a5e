"""Training an autoencoder stage, and its reconstruction floor: what coding alone costs, in the scores of members."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from sciffusion.datasets.pairs import ExperimentData
from sciffusion.evaluation import evaluate
from sciffusion.fields.cases import select
from sciffusion.stages.autoencoder import AutoencoderStage
from sciffusion.training.module import StageModule
from sciffusion.training.reconstruction import code_size, reconstruction_error, spectral_distance

__all__ = ["AutoencoderModule", "floors", "reconstruction_floor"]

log = logging.getLogger(__name__)
CASES = 16  # of the reconstruction floor


class AutoencoderModule(StageModule):
    """An autoencoder stage in training."""

    stage: AutoencoderStage

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Reconstruction of a code drawn around its mean, its spectrum, and the size of the code."""
        z, settings, network = batch["z"], self.stage.settings, self.stage.network
        mean, spread = network.encode(z)
        code = mean + (0.5 * spread).exp() * torch.randn_like(mean)
        answer = network.decode(code, z.shape[2:])
        error = reconstruction_error(answer, z, batch["area"], batch["valid"], tails=settings.tails)
        loss = error + settings.kl * code_size(mean, spread)
        if settings.spectrum:
            loss = loss + settings.spectrum * spectral_distance(answer, z, batch["valid"])
        return loss.mean()

    def validation_losses(self, batch: dict[str, Any], number: int) -> dict[str, Tensor]:
        """Error and spectral distance of the code's mean."""
        z, settings = batch["z"], self.stage.settings
        answer = self.stage.truth(batch)
        error = reconstruction_error(answer, z, batch["area"], batch["valid"]).mean()
        distance = spectral_distance(answer, z, batch["valid"]).mean()
        return {"loss": error + settings.spectrum * distance, "error": error, "spectrum": distance}


def reconstruction_floor(stage: AutoencoderStage, data: ExperimentData) -> dict[str, dict[str, float]]:
    """CRPS (of one member: mean absolute error) and RALSD in dB of decode(encode(x)), per variable, on held-out cases.

    Validation cases, or training cases where there are none.
    """
    cases = (data.cases["validation"] or data.cases["train"])[:CASES]
    rebuilt = []
    for case in cases:
        prepared = stage.prepare(data.conditions, case)
        z, _ = stage.codec.encode(select(data.target, case), prepared.baseline)
        with torch.no_grad():
            answer = stage.truth({"z": z[None].to(stage.device)}).cpu()
        rebuilt.append(stage.decode(answer, prepared, [0]).isel(member=0, drop=True))
    ensemble: Any = xr.combine_by_coords(rebuilt, combine_attrs="drop_conflicts") if cases[0].dims else rebuilt[0]
    grid = stage.codec.grid
    periodic = [dim for dim, wraps in zip(grid.dims, grid.periodic, strict=True) if wraps]
    scores = evaluate(ensemble, data.target, grid=grid.dims, periodic=periodic).scores.isel(system=0)
    floor = {
        str(name): {key: float(scores[key].sel(variable=name)) for key in ("crps", "ralsd")}
        for name in scores["variable"].values
    }
    for name, values in floor.items():
        log.info("reconstruction floor of %s: CRPS %.4g, RALSD %.2f dB", name, values["crps"], values["ralsd"])
    return floor


def floors(stages: Sequence[Any], data: ExperimentData, device: torch.device) -> dict[str, Any]:
    """The floor of every autoencoder of a chain, by its name."""
    coders = [stage for stage in stages if isinstance(stage, AutoencoderStage)]
    return {coder.name: reconstruction_floor(coder.to(device), data) for coder in coders}
