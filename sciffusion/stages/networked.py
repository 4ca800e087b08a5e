"""What stages with a network share: inputs by name, outputs of earlier stages as conditioning, the mask."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sciffusion import config, registry
from sciffusion.boundary import Boundary
from sciffusion.conditioners.base import Conditioner
from sciffusion.context import Context
from sciffusion.errors import SciffusionError
from sciffusion.execution.accelerate import Accelerated, Execution, accelerate
from sciffusion.execution.transfer import to_device
from sciffusion.networks.layers import unbake
from sciffusion.stages.base import Parts, Stage
from sciffusion.stages.frame import Space
from sciffusion.stages.items import Item, Prepared

__all__ = ["NetworkStage", "given_outputs", "without_output"]

OUTPUT = ".output"


def without_output(name: str) -> str:
    """The stage that ``NAME.output`` means."""
    return name.removesuffix(OUTPUT)


def given_outputs(inputs: Sequence[str] | None) -> list[str]:
    """Names of the stages whose outputs are among ``inputs``."""
    return [without_output(name) for name in inputs or [] if name.endswith(OUTPUT)]


class NetworkStage(Stage):
    """A stage whose network is conditioned on ``settings.inputs``."""

    settings: Any
    settings_type: ClassVar[type[config.Settings]]
    direct: ClassVar[bool] = False  # whether one answer of a network is the output itself; see `accelerate`

    def __init__(self, settings: Any, parts: Parts) -> None:
        super().__init__(settings.name, parts.codec, parts.conditioners, parts.earlier)
        self.settings = settings
        self.given = given_outputs(settings.inputs)
        self.execution: Execution | None = None
        self._fast: dict[Callable[..., Any], Accelerated] = {}  # a plain dict: they are no modules of the stage

    @property
    def first_guess(self) -> str | None:
        """The coarse condition that the first stage of the chain names as its baseline."""
        if self.earlier:
            return next(iter(self.earlier.values())).first_guess
        name: str | None = self.settings.baseline
        return name

    @property
    def wanted(self) -> list[str]:
        """Earlier stages whose outputs are needed, as conditioning or as the baseline."""
        own = [without_output(self.settings.baseline)] if self.earlier and self.settings.baseline else []
        return list(dict.fromkeys([*self.given, *own]))

    def truths(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What stands for the outputs of the stages wanted in training."""
        with torch.no_grad():
            return {name: self.earlier[name].truth(batch) for name in self.wanted}

    def networks(self) -> Sequence[Any]:
        """The networks that sampling calls and training trains."""
        raise NotImplementedError

    def calls(self) -> Sequence[tuple[Any, Callable[..., Any]]]:
        """Each network with the call of it that sampling makes."""
        return [(network, network) for network in self.networks()]

    def reduced(self) -> Sequence[nn.Module]:
        """All, unless their answers are fields themselves."""
        return () if self.direct else self.networks()

    def prepare_network(self, execution: Execution | None = None) -> None:
        """Make the calls fast, until the stage is trained, moved or loaded; cheap where they are already."""
        execution = execution or Execution()
        if execution == self.execution:
            return
        self._fast = {
            call: accelerate(network, self.device, execution, direct=self.direct, function=call)
            for network, call in self.calls()
        }
        self.execution = execution

    def fast(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` in its fast form, where the stage has been prepared."""
        return self._fast.get(call, call)

    def train(self, mode: bool = True) -> Self:
        """Training ends what `prepare_network` made: recorded and cached weights would hide the updates."""
        if mode:
            self._slow()
        return super().train(mode)

    def _apply(self, *args: Any, **options: Any) -> Self:
        self._slow()
        super()._apply(*args, **options)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self._slow()
        super()._load_from_state_dict(*args, **options)

    def _slow(self) -> None:
        """Undo `prepare_network`."""
        if self.execution is not None:
            self._fast, self.execution = {}, None
            for network in self.networks():
                unbake(network)

    def set_cut(self, cut: Sequence[bool]) -> None:
        """Windows end in mirrors wherever the grid's own boundary is."""
        names = self.codec.grid.boundary()
        reflected = [c or (name == "pole" and cut[-1]) for name, c in zip(names, cut, strict=True)]
        self.set_boundary(tuple("reflect" if r else n for n, r in zip(names, reflected, strict=True)))

    def set_boundary(self, names: tuple[Boundary, ...]) -> None:
        """Tell the networks the boundary of the grid, or of the windows in training."""
        self._slow()
        for network in self.networks():
            network.boundary = names

    def encode(self, inputs: Mapping[str, Mapping[str, Tensor]], keep: Tensor, mask: Tensor) -> Context:
        """The conditions, and where cells are always missing the mask, as both a channel and a rule."""
        context = super().encode(inputs, keep, mask)
        if self.codec.valid is None:
            return context
        return Context.merge([context, Context(channels=mask.float(), valid=mask)])

    def joined(self, context: Context, outputs: Mapping[str, Tensor], size: Sequence[int]) -> Context:
        """The conditions with the outputs of earlier stages that are inputs, on a grid of ``size``."""
        shown = [self.earlier[n].shown(self.earlier[n].standard(outputs[n]), size) for n in self.given]
        return Context.merge([context, *shown]) if shown else context

    def per_item(self, items: Sequence[Item]) -> tuple[list[Prepared], Tensor]:
        """The different cases of ``items``, and which of them each item is."""
        cases = {id(item.prepared): item.prepared for item in items}
        places = {key: place for place, key in enumerate(cases)}
        order = torch.tensor([places[id(item.prepared)] for item in items])
        return list(cases.values()), to_device(order, self.device)

    def make_network(self, space: Space, *, features: int = 0, late: int = 0) -> Any:
        """A network of ``settings`` on the grid of ``space``, for the conditions; ``features`` more of the vector, and
        ``late`` ones after them, which begin without effect.
        """
        shows = [self.earlier[name].shows for name in self.given]
        masked = 0 if self.codec.valid is None else self.codec.valid.shape[0]
        conditioners = list(self.conditioners.values())
        channels, rank = space.shape[0], space.rank
        more = {"context_rank": self.codec.grid.rank} if self.settings.network.kind == "mlp" else {}
        more |= {"late_features": late} if late else {}
        return registry.get("networks", self.settings.network.kind)(
            channels,
            channels,
            rank=rank,
            boundary=space.boundary,
            context_channels=sum(c.channels for c in conditioners) + masked + sum(own for own, _ in shows),
            vector_features=sum(c.features for c in conditioners) + sum(own for _, own in shows) + features,
            token_features=_token_features(conditioners),
            settings=self.settings.network,
            **more,
        )

    def describe(self) -> dict[str, Any]:
        """The settings."""
        settings: config.Settings = self.settings
        return {"settings": settings.model_dump(mode="json")}

    @classmethod
    def restore(cls, entry: Mapping[str, Any], parts: Parts) -> Self:
        """Rebuild from `describe`."""
        return cls(cls.settings_type.model_validate(entry["settings"]), parts)


def _token_features(conditioners: Sequence[Conditioner]) -> int:
    """Width of the tokens that conditions give; 0 without any."""
    widths = sorted({int(conditioner.tokens) for conditioner in conditioners if conditioner.tokens})
    if len(widths) > 1:
        raise SciffusionError(f"conditions with tokens of widths {widths}", "give them the same width")
    return widths[0] if widths else 0
