"""Toy trainings of every family: a Gaussian random field of 16 x 24 cells, networks of a few thousand weights."""

from pathlib import Path

import numpy as np
import torch

from sciffusion import recipes
from sciffusion.config import load_experiment
from sciffusion.datasets.pairs import open_experiment
from sciffusion.stages.build import build_stage
from sciffusion.stages.measure import batches, training_cases
from tests.tiny import tiny_data, tiny_experiment

__all__ = ["Toy", "batch_of", "toy"]

TRAIN = {"steps": 4, "validate_every": 4, "validation_cases": 1, "statistics_cases": 12}


class Toy:
    """A recipe's experiment on the tiny data, with small networks; ``changes`` are overrides ``a.b=value``."""

    def __init__(self, folder: Path, recipe: str, *changes: str, settings: dict | None = None, **train) -> None:
        data = folder / "data.nc"
        data = data if data.exists() else tiny_data(data)
        base = tiny_experiment(data, folder / f"run-{recipe}", **TRAIN, **train) | (settings or {})
        rows = recipes.load(recipe)["stages"]
        small = [f"stages.{row['name']}.{path}={value}" for row in rows for path, value in _small(row).items()]
        self.experiment = load_experiment(base | {"recipe": "edm"}, [*small, *changes], recipe)
        self.folder = Path(self.experiment.output)

    def build(self):
        """Every stage untrained, in evaluation mode, each behind those before it; the data."""
        data, stages = open_experiment(self.experiment), {}
        for own in self.experiment.stages:
            torch.manual_seed(0)
            stages[own.name] = build_stage(own, self.experiment, data, stages).eval()
        return stages, data


def _small(row: dict) -> dict:
    """Overrides that make a stage tiny."""
    changes = {"sampler.steps": 2} if row["kind"] == "denoiser" else {}
    if row.get("network", {}).get("kind") == "dit":
        return changes | {"network": "{kind: dit, width: 16, depth: 1, heads: 2, patch: 4, embedding: 16}"}
    if row["kind"] == "autoencoder":
        return {"network.channels": 8, "network.blocks": 1}
    if row.get("network", {}).get("kind") == "mlp":
        return changes | {"network": "{kind: mlp, width: 16, depth: 1, embedding: 16}"}
    return changes


def toy(folder: Path, recipe: str, *changes: str, **options) -> Toy:
    """A `Toy`."""
    return Toy(folder, recipe, *changes, **options)


def batch_of(experiment, data, stage, count: int = 4, split: str = "train"):
    """``count`` cases as one batch of training samples."""
    rows = list(batches(training_cases(experiment, data, stage, split), count, torch.device("cpu")))
    return _stacked(rows)


def _stacked(rows):
    if isinstance(rows[0], dict):
        return {key: _stacked([row[key] for row in rows]) for key in rows[0]}
    return torch.cat([row.reshape(1, *row.shape[1:]) for row in rows])


def moved(stage, seed: int = 0, size: float = 0.3):
    """Give every parameter that starts at zero other values, so that an untrained network says something."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in stage.parameters():
        if not parameter.detach().any():
            parameter.data = size * torch.randn(parameter.shape, generator=generator) / np.sqrt(max(parameter.shape))
    return stage
