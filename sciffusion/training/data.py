"""The batches of a training: what `sciffusion.datasets` draws, as loaders that start at the right step."""

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Subset

from sciffusion import config
from sciffusion.datasets.draws import Draw, StepSampler
from sciffusion.datasets.pairs import ExperimentData
from sciffusion.datasets.resident import Resident
from sciffusion.stages.base import Stage
from sciffusion.stages.items import Prepared
from sciffusion.stages.measure import training_cases

__all__ = ["TrainingData"]

WHOLE = 2**20  # cells of a grid up to which validation sees it whole, also when training is by windows


class TrainingData(pl.LightningDataModule):
    """Training batches as a function of (seed, step, process), and validation cases one by one."""

    def __init__(self, experiment: config.Experiment, data: ExperimentData, stage: Stage) -> None:
        super().__init__()
        settings = self.settings = experiment.train
        self.data, self.stage = data, stage
        self.validated = 0  # cases that all processes validate, and the numbers of ours among them
        self.share: list[int] = []
        self.training = training_cases(
            experiment, data, stage, crop=settings.crop, augment=settings.augment, cache=settings.cache
        )
        crop = settings.crop if prod(data.grid.shape) > WHOLE else {}
        validated = bool(data.cases["validation"])
        self.validation = (
            training_cases(experiment, data, stage, "validation", crop=crop, cache=settings.cache)
            if validated
            else None
        )

    def train_dataloader(self) -> Iterable[Any]:
        """Batches from the trainer's present step on: made on the training's device where the samples fit there."""
        trainer = self.trainer
        assert trainer is not None
        sampler = StepSampler(
            self.training.space,
            self.settings.batch_size,
            self.settings.seed,
            self.settings.steps,
            trainer.global_rank,
            trainer.world_size,
            trainer.global_step,
        )
        workers, device = self.settings.workers, trainer.strategy.root_device
        if not workers and Resident.fits(self.training, device):
            return Resident(self.training, device, sampler)
        return DataLoader(
            self.training,
            batch_sampler=_Unsized(sampler),
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,
            pin_memory=device.type == "cuda",
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Our share of at most ``validation_cases`` of the validation split, evenly spread, without symmetries."""
        if self.validation is None:
            return []
        assert self.trainer is not None
        self.validated = min(self.settings.validation_cases, len(self.validation))
        chosen = np.linspace(0, len(self.validation) - 1, self.validated).round().astype(int)
        self.share = share_of(self.validated, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(Subset(self.validation, chosen[self.share].tolist()), batch_size=1)

    def prepared(self, number: int) -> Prepared:
        """Validation case ``number``, ready for sampling."""
        return self.stage.prepare(self.data.conditions, self.data.cases["validation"][number])


def share_of(count: int, rank: int, world: int) -> list[int]:
    """Which of ``count`` cases process ``rank`` of ``world`` validates: every world-th.

    All have as many, because they call the networks together: at the end some take cases of the others once more.
    """
    return [number % count for number in range(rank, -(-count // world) * world, world)]


class _Unsized:
    """A sampler without length: a resumed epoch is shorter than Lightning's count of its batches."""

    def __init__(self, sampler: StepSampler) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.sampler)
