"""What a frame has to be told of the training data: means, sds and the leading mode of a stage's own target.

Measured on the very tensors that training will see, with the earlier stages as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sciffusion import config
from sciffusion.datasets.pairs import ExperimentData
from sciffusion.datasets.training import Cache, TrainingCases
from sciffusion.fields.statistics import Sketch, Totals
from sciffusion.stages.base import Stage
from sciffusion.stages.denoiser import DenoiserStage
from sciffusion.stages.frame import Frame, Measured

__all__ = ["batches", "bounds", "measure", "spread", "training_cases"]

T = TypeVar("T")
CASES = 128


def training_cases(
    experiment: config.Experiment,
    data: ExperimentData,
    stage: Stage,
    split: str = "train",
    *,
    crop: Mapping[str, int] | None = None,
    augment: config.Augment | None = None,
    cache: Cache = "none",
) -> TrainingCases:
    """The samples of a split that the chain up to ``stage`` learns from."""
    return TrainingCases(
        data,
        stage.codec,
        stage.readers,
        experiment.target,
        split=split,
        baseline=stage.first_guess,
        crop=crop,
        augment=augment,
        cache=cache,
        workers=experiment.train.workers,
    )


def spread(cases: Sequence[T], most: int) -> list[T]:
    """At most ``most`` cases, evenly spread."""
    chosen = np.linspace(0, len(cases) - 1, min(most, len(cases))).round().astype(int)
    return [cases[index] for index in chosen]


def batches(cases: TrainingCases, most: int, device: torch.device) -> Iterator[dict[str, Any]]:
    """At most ``most`` cases, evenly spread, each as a batch of one without symmetries."""
    for index in spread(range(len(cases)), most):
        yield _batched(cases[index], device)


def _batched(item: Any, device: torch.device) -> Any:
    if isinstance(item, Tensor):
        return item[None].to(device)
    return {key: _batched(value, device) for key, value in item.items()}


def measure(experiment: config.Experiment, data: ExperimentData, frame: Frame, reader: Stage) -> Measured:
    """Means and sds per channel of v - b over training cases, and the rms of the leading mode of y.

    ``reader`` stands for the stage that the frame is to belong to: it reads the cases and knows the earlier stages.
    """
    device = next((stage.device for stage in reader.earlier.values()), reader.device)
    frame.to(device)
    channels = frame.space.shape[0]
    totals, sketch = Totals.zeros(channels), Sketch()
    most = min(CASES, experiment.train.statistics_cases)
    with torch.no_grad():
        cases = training_cases(experiment, data, reader, crop=experiment.train.crop)
        for batch in batches(cases, most, device):
            outputs = {} if frame.baseline is None else {frame.baseline: reader.earlier[frame.baseline].truth(batch)}
            v = frame.target(frame.space.encode(batch["z"]), outputs)
            area, valid = frame.space.cells(batch["area"], batch["valid"])
            r = _array(v if valid is None else torch.where(valid, v, torch.nan))
            totals.update(r, np.ones(r.shape[1:]) if area is None else np.broadcast_to(_array(area)[0], r.shape[1:]))
            sketch.update(r)
    scaling = totals.scaling(frame.space.rank)
    sd = np.maximum(scaling.sd, 1e-6)
    return Measured(
        torch.from_numpy(totals.mean).float(), torch.from_numpy(sd).float(), sketch.leading_rms(scaling.mean, sd)
    )


def bounds(experiment: config.Experiment, data: ExperimentData, stage: DenoiserStage, order: float) -> Tensor:
    """Lowest and highest y of the training cases, and the largest quantile of |y| of any case, (3, channel)."""
    found = []
    device = next((earlier.device for earlier in stage.earlier.values()), stage.device)
    stage.to(device)
    with torch.no_grad():
        cases = training_cases(experiment, data, stage, crop=experiment.train.crop)
        for batch in batches(cases, CASES, device):
            y = stage.frame.target(stage.truth(batch), stage.truths(batch))[0].flatten(1).double()
            found.append(torch.stack([y.amin(1), y.amax(1), torch.quantile(y.abs(), order, dim=1)]))
    low, high, size = torch.stack(found).cpu().unbind(1)
    return torch.stack([low.amin(0), high.amax(0), size.amax(0)]).float()


def _array(x: Tensor) -> np.ndarray:
    return np.asarray(x[0].double().cpu())
