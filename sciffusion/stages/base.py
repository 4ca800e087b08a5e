"""What every stage of an emulator is: prepared inputs of a case in, members of a field out.

A stage owns the door (codec) and the named conditions it looks at (conditioners). ``prepare`` works on xarray data and
numpy, once per case; ``draw`` works on tensors, once per batch of (case, member) items. A stage may look at the outputs
of those before it in the chain (``earlier``): in ``draw`` at what they drew for the same items, in training at what
their ``truth`` is for the batch. All stages of a chain share one codec.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sciffusion import config
from sciffusion.conditioners.base import Conditioner
from sciffusion.context import Context
from sciffusion.execution.accelerate import Execution
from sciffusion.execution.normals import drawn_on, draws_noise
from sciffusion.execution.transfer import to_device
from sciffusion.fields.cases import Case
from sciffusion.fields.codec import FieldCodec
from sciffusion.noise import MemberNoise, NoiseKey, member_noise
from sciffusion.stages.ahead import Batch
from sciffusion.stages.items import Item, Prepared, Window

__all__ = ["Parts", "Stage"]


@dataclass(frozen=True)
class Parts:
    """What every stage is made of, besides what its own entry of model.json says."""

    codec: FieldCodec
    conditioners: Mapping[str, Conditioner]
    earlier: Mapping[str, "Stage"] = field(default_factory=dict)


class Stage(nn.Module):
    """A link of an emulator's chain. Subclasses draw fields in network space; the codec turns them into physics."""

    kind: ClassVar[str]
    draws: ClassVar[bool] = True  # whether sampling runs it, or only later stages use it
    on_host: ClassVar[bool] = False  # whether it is without networks and draws in numpy
    conditioners: Any  # nn.ModuleDict of Conditioner

    def __init__(
        self,
        name: str,
        codec: FieldCodec,
        conditioners: Mapping[str, Conditioner],
        earlier: Mapping[str, "Stage"] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.codec = codec
        self.conditioners = nn.ModuleDict(conditioners)
        self.earlier = dict(earlier or {})  # a plain dict: their parameters are not this stage's

    @property
    def chain(self) -> list["Stage"]:
        """The stages before this one, and itself."""
        return [*self.earlier.values(), self]

    @property
    def readers(self) -> dict[str, Conditioner]:
        """Every conditioner that the chain up to here needs, by the name of its condition."""
        return {name: conditioner for stage in self.chain for name, conditioner in stage.conditioners.items()}

    @property
    def first_guess(self) -> str | None:
        """The coarse condition whose interpolation the codec subtracts."""
        return None

    def prepare(self, conditions: Mapping[str, xr.Dataset], case: Case, window: Window | None = None) -> Prepared:
        """Read everything that the chain up to this stage needs of one case."""
        readers, baseline = self.readers, None
        inputs = {name: reader.prepare(conditions.get(name), case, window) for name, reader in readers.items()}
        if (name := self.first_guess) is not None:
            coarse: Any = readers[name]
            baseline = coarse.baseline(conditions.get(name), case, window)
        return Prepared(case, inputs, baseline, window=window)

    def reduced(self) -> Sequence[nn.Module]:
        """Networks that may run in less than float32."""
        return ()

    def prepare_network(self, execution: Execution | None = None) -> None:
        """Whatever makes many calls of the stage's network faster; nothing where there is none."""

    def ready(self, device: torch.device, execution: Execution | None = None) -> None:
        """On ``device``, for sampling as ``execution`` says; cheap where it is already.

        A stage that draws ``on_host`` stays there.
        """
        place = torch.device("cpu") if self.on_host else device
        if self.device != place:
            self.to(place)
        self.eval().prepare_network(execution)

    def set_cut(self, cut: Sequence[bool]) -> None:
        """Say along which grid axes training sees windows that are smaller than the grid; nothing without a network."""

    def decode(self, fields: Tensor, prepared: Prepared, members: Sequence[int]) -> xr.Dataset:
        """Fields of one case (member, channel, *grid) as physics, with dims (member, *case dims, *grid)."""
        case = prepared.case
        decoded = self.codec.decode(fields, prepared.baseline)
        ones = (1,) * len(case.dims)
        decoded = {name: value.reshape(len(members), *ones, *value.shape[1:]) for name, value in decoded.items()}
        return self.codec.dataset(decoded, {"member": np.asarray(members), **{d: [v] for d, v in case.values.items()}})

    def coarse_misfit(self, fields: Mapping[str, np.ndarray], prepared: Prepared) -> dict[str, float]:
        """Largest distance of the conservative coarsening of ``fields``, (*channel dims, *grid) in physical units by
        variable, from the coarse field that they have to reproduce; {} where none is required.
        """
        return {}

    def blank(self, leading: Mapping[str, Any], *, filled: bool) -> xr.Dataset:
        """A Dataset of NaN with dims (*leading, *grid); without ``filled`` it takes no memory and is read-only."""
        sizes = [len(coordinate) for coordinate in leading.values()]
        arrays = {}
        for variable in self.codec.variables:
            shape = (*sizes, *variable.channel_shape, *self.codec.grid.shape)
            nan = np.array(np.nan, variable.dtype)
            arrays[variable.name] = np.full(shape, nan) if filled else np.broadcast_to(nan, shape)
        return self.codec.dataset(arrays, leading)

    def sample(self, items: Sequence[Item], *, seed: int, sampler: config.Sampler | None = None) -> Tensor:
        """Run the chain: fields in the codec's space, (item, channel, *grid) float32, one per item.

        Deterministic in (seed, item). ``sampler`` is for this stage; earlier ones use their own. On a GPU the answer
        stays there and may still be in the making; `finish` completes it on the host.
        """
        outputs: dict[str, Tensor] = {}
        for stage in self.chain:
            if stage.draws or stage is self:
                own = sampler if stage is self else None
                outputs[stage.name] = stage.draw(items, seed=seed, sampler=own, outputs=outputs)
        return self.field(outputs[self.name])

    def draw(
        self,
        items: Sequence[Item],
        *,
        seed: int,
        sampler: config.Sampler | None = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Output per item, float32, given the ``outputs`` of stages before. Deterministic in (seed, item)."""
        raise TypeError(f"{type(self).__name__} does not draw fields")

    def field(self, output: Tensor) -> Tensor:
        """An output as fields in the codec's space, (item, channel, *grid)."""
        return output

    def finish(self, fields: Tensor, items: Sequence[Item]) -> Tensor:
        """What is left to do, on the host, to the answer of `sample` for these very items."""
        return fields

    def truth(self, batch: Mapping[str, Any]) -> Tensor:
        """What later stages are given in the place of this one's output in training, for a batch of training samples.

        ``batch`` is one of `sciffusion.datasets.training.TrainingCases`.
        """
        raise TypeError(f"{type(self).__name__} has no output that a later stage could use")

    def standard(self, output: Tensor) -> Tensor:
        """An output in units in which a later stage's network likes to be told it."""
        return output

    def shown(self, output: Tensor, size: Sequence[int]) -> Context:
        """A `standard` output as conditioning of a later stage on fields of ``size``."""
        return Context(channels=output)

    @property
    def shows(self) -> tuple[int, int]:
        """How many channels and vector features `shown` has."""
        return len(self.codec.channels), 0

    def context(self, prepared: Sequence[Prepared], *, keep: bool = True) -> Context:
        """Conditioning of several cases as one batch; without ``keep`` every condition is dropped.

        Each case is encoded once and by itself, so that its encoding does not depend on the other cases of the batch.
        """
        name = f"context of {self.name} on {self.device}" + ("" if keep else ", dropped")
        return Context.stack([case.once(name, partial(self._encoded, case, keep)) for case in prepared])

    def _encoded(self, case: Prepared, keep: bool) -> Context:
        device = self.device
        inputs = {
            name: {key: to_device(torch.from_numpy(array[None]), device) for key, array in case.inputs[name].items()}
            for name in self.conditioners
        }
        mask = to_device(self.codec.valid_cells(case.window)[None], device)
        return self.encode(inputs, torch.full((1,), keep, device=device), mask)

    def encode(self, inputs: Mapping[str, Mapping[str, Tensor]], keep: Tensor, mask: Tensor) -> Context:
        """Conditioning of a batch of prepared inputs.

        Samples with ``keep`` (batch,) False get the learned null; ``mask`` Bool (batch, channel, *window) says which
        cells exist.
        """
        return Context.merge(c(inputs[name], keep) for name, c in self.conditioners.items())

    @property
    def device(self) -> torch.device:
        """Where the stage's parameters and buffers are."""
        tensors = chain(self.parameters(), self.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(channel, *grid) of the stage's output on the whole domain."""
        return (len(self.codec.channels), *self.codec.grid.shape)

    def noise(self, items: Sequence[Item], *, seed: int, step: int = 0, stream: str = "start") -> Tensor:
        """Standard normal noise of each item, (item, channel, *grid); bitwise the same for any batch and device.

        It is on the stage's GPU where that draws it, else on the host, where threads draw that of a `Batch` ahead.
        """
        device = self.device
        if draws_noise(device):
            return drawn_on(device, self._noises(items, seed, step, stream), self.output_shape)
        if isinstance(items, Batch):
            return items.noise(self, seed=seed, step=step, stream=stream)
        return torch.from_numpy(self.host_noise(items, seed, step, stream))

    def host_noise(self, items: Sequence[Item], seed: int, step: int, stream: str) -> np.ndarray:
        """The same, drawn here and now by numpy."""
        return member_noise(self._noises(items, seed, step, stream), self.output_shape)

    def _noises(self, items: Sequence[Item], seed: int, step: int, stream: str) -> list[MemberNoise]:
        return [self.item_noise(item, seed, step, stream) for item in items]

    def item_noise(self, item: Item, seed: int, step: int, stream: str) -> MemberNoise:
        """What that of one item is made of; where its case says so, a weighted sum over other labels."""
        case = item.prepared.case
        key = NoiseKey(seed, case.labels, item.member, self.name, step, stream)
        past = tuple((weight, replace(key, case=labels)) for weight, labels in case.past)
        return MemberNoise(past or ((1.0, key),), item.prepared.window)

    def describe(self) -> dict[str, Any]:
        """What a subclass adds to its entry in model.json."""
        return {}

    @classmethod
    def restore(cls, entry: Mapping[str, Any], parts: Parts) -> Self:
        """A stage from what `describe` wrote; its tensors are loaded afterwards."""
        raise TypeError(f"{cls.__name__} cannot be restored")
