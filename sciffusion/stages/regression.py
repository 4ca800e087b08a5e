"""The regression stage: the conditional mean of the codec's field by a deterministic network.

Two networks of equal build, each trained on the cases of one half of the training data (contiguous halves of the case
order). What later stages learn from, the error of the mean, is taken on cases that the network never saw: in sample it
would be too small, and their ensembles too narrow. On other cases the mean of both is used.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sciffusion import config
from sciffusion.context import Context
from sciffusion.stages.base import Parts
from sciffusion.stages.frame import Space
from sciffusion.stages.items import Item
from sciffusion.stages.networked import NetworkStage

__all__ = ["RegressionStage"]

HALVES = 2


class RegressionStage(NetworkStage):
    """Mean of the target given ``settings.inputs``, in the codec's units; its output is the same for every member."""

    kind: ClassVar[str] = "regression"
    direct: ClassVar[bool] = True
    settings: config.RegressionStage
    settings_type: ClassVar[type[config.Settings]] = config.RegressionStage

    def __init__(self, settings: config.RegressionStage, parts: Parts) -> None:
        super().__init__(settings, parts)
        self.halves = nn.ModuleList(self.make_network(Space(parts.codec)) for _ in range(HALVES))

    def networks(self) -> Sequence[Any]:
        """Both halves."""
        return list(self.halves)

    def mean(self, context: Context, like: Tensor, half: int | None = None) -> Tensor:
        """The answer of one network, or of both on average; ``like`` has the shape of the field."""
        zero, label = torch.zeros_like(like), like.new_zeros(len(like))
        chosen = self.halves if half is None else [self.halves[half]]
        answers = [self.fast(network)(zero, label, context).to(like.dtype) for network in chosen]
        answer = torch.stack(answers).mean(0)
        return answer if context.valid is None else torch.where(context.valid, answer, zero)

    def out_of_fold(self, batch: Mapping[str, Any], context: Context) -> Tensor:
        """For each sample the answer of the network that did not see its case; both on average where ``fold`` is -1."""
        z, fold = batch["z"], batch["fold"]
        answer = torch.zeros_like(z)
        for number in range(-1, HALVES):
            rows = torch.nonzero(fold == number).flatten()
            if len(rows):
                part = context.map(lambda value, rows=rows: value.index_select(0, rows))  # type: ignore[misc]
                half = None if number < 0 else HALVES - 1 - number
                answer = answer.index_copy(0, rows, self.mean(part, z.index_select(0, rows), half))
        return answer

    def in_fold(self, batch: Mapping[str, Any], context: Context) -> Tensor:
        """For each sample the answer of the network that learns from its case."""
        return self.out_of_fold({**batch, "fold": HALVES - 1 - batch["fold"]}, context)

    def conditioned(self, batch: Mapping[str, Any]) -> Context:
        """The context of a batch of training samples, nothing dropped."""
        keep = torch.ones(len(batch["z"]), dtype=torch.bool, device=batch["z"].device)
        return self.joined(self.encode(batch["inputs"], keep, batch["mask"]), self.truths(batch), batch["z"].shape[2:])

    def truth(self, batch: Mapping[str, Any]) -> Tensor:
        """The mean, predicted by a network that did not see the case."""
        return self.out_of_fold(batch, self.conditioned(batch))

    def draw(
        self,
        items: Sequence[Item],
        *,
        seed: int,
        sampler: config.Sampler | None = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The mean of each item's case."""
        cases, order = self.per_item(items)
        first = [next(i for i, item in enumerate(items) if item.prepared is case) for case in cases]
        given = {name: value[first] for name, value in (outputs or {}).items()}
        with torch.no_grad():
            context = self.context(cases)
            window = cases[0].window
            size = self.codec.valid_cells(window).shape[1:]
            like = torch.zeros(len(cases), len(self.codec.channels), *size, device=self.device)
            return self.mean(self.joined(context, given, size), like).index_select(0, order)
