"""Training a regression stage: mean square error, the cases of each half by its own network."""

from typing import Any, ClassVar

from torch import Tensor

from sciffusion.diffusion.objectives import weighted_mean
from sciffusion.stages.regression import RegressionStage
from sciffusion.training.module import StageModule

__all__ = ["RegressionModule"]


class RegressionModule(StageModule):
    """A regression stage in training."""

    stage: RegressionStage
    steady: ClassVar[bool] = False  # a batch is shared out among the halves as it comes

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Mean square error of the network that learns from each sample's case."""
        answer = self.stage.in_fold(batch, self.stage.conditioned(batch))
        # a batch may leave one network out, and processes that train together need a gradient of every parameter
        nothing = sum(parameter.sum() for parameter in self.stage.halves.parameters()) * 0.0
        return self._error(answer, batch) + nothing

    def validation_losses(self, batch: dict[str, Any], number: int) -> dict[str, Tensor]:
        """Mean square error of both networks on average."""
        return {"loss": self._error(self.stage.out_of_fold(batch, self.stage.conditioned(batch)), batch)}

    def _error(self, answer: Tensor, batch: dict[str, Any]) -> Tensor:
        return weighted_mean((answer - batch["z"]) ** 2, batch["area"], batch["valid"]).mean()
