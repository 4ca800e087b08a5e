"""The batches of a training: what `sciffusion.datasets` draws, as loaders that start at the right step."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Subset

from sciffusion import config
from sciffusion.datasets.draws import Draw, StepSampler
from sciffusion.datasets.pairs import ExperimentData
from sciffusion.datasets.training import TrainingCases
from sciffusion.stages.base import Prepared
from sciffusion.stages.denoiser import DenoiserStage

__all__ = ["TrainingData"]

WHOLE = 2**20  # cells of a grid up to which validation sees it whole, also when training is by windows


class TrainingData(pl.LightningDataModule):
    """Training batches as a function of (seed, step, process), and validation cases one by one."""

    def __init__(self, experiment: config.Experiment, data: ExperimentData, stage: DenoiserStage) -> None:
        super().__init__()
        self.settings, self.data, self.stage = experiment.train, data, stage
        self.training = self._cases(experiment, "train", experiment.train.augment, experiment.train.crop)
        crop = experiment.train.crop if prod(data.grid.shape) > WHOLE else {}
        self.validation = self._cases(experiment, "validation", None, crop) if data.cases["validation"] else None

    def _cases(
        self, experiment: config.Experiment, split: str, augment: config.Augment | None, crop: dict[str, int]
    ) -> TrainingCases:
        settings = self.settings
        return TrainingCases(
            self.data,
            self.stage.codec,
            dict(self.stage.conditioners.items()),
            experiment.target,
            split=split,
            baseline=self.stage.settings.baseline,
            crop=crop,
            augment=augment,
            cache=settings.cache,
            workers=settings.workers,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches from the trainer's present step on."""
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
        workers = self.settings.workers
        return DataLoader(
            self.training,
            batch_sampler=_Unsized(sampler),
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """At most ``validation_cases`` of the validation split, evenly spread, without symmetries."""
        if self.validation is None:
            return []
        count = min(self.settings.validation_cases, len(self.validation))
        chosen = np.linspace(0, len(self.validation) - 1, count).round().astype(int)
        return DataLoader(Subset(self.validation, chosen.tolist()), batch_size=1)

    def prepared(self, number: int) -> Prepared:
        """Validation case ``number``, ready for sampling."""
        return self.stage.prepare(self.data.conditions, self.data.cases["validation"][number])


class _Unsized:
    """A sampler without length: a resumed epoch is shorter than Lightning's count of its batches."""

    def __init__(self, sampler: StepSampler) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.sampler)
