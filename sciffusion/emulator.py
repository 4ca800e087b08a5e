"""The emulator: stages in a row, from conditions as xarray to ensemble members as xarray.

An emulator is loaded from a folder, checked against the conditions it is given, and sampled. Its members depend on the
seed, the case and the member's number; not on batch size, order or which other members are asked for.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
import xarray as xr

import sciffusion
from sciffusion import config, model_folder
from sciffusion.errors import SciffusionError
from sciffusion.execution.accelerate import Execution
from sciffusion.execution.device import resolve_device
from sciffusion.execution.limits import AllocationLimit
from sciffusion.execution.precision import Precision, precision_name
from sciffusion.fields.cf import CONVENTIONS, INDEPENDENT, member_coordinate
from sciffusion.stages.base import Stage
from sciffusion.stages.conditions import Cases, Check, Conditions, check_conditions
from sciffusion.stages.drawing import Drawn, draws
from sciffusion.stages.items import Prepared
from sciffusion.stages.labelled import case_coordinates, case_dims, positions, training_cases
from sciffusion.stages.saved import stage_from_state, state_of

__all__ = ["Drawing", "Emulator", "batch_of", "load", "member_numbers"]

# Memory that building a model may take, relative to its weights (bfloat16 ones become float32) and beside them.
_EXPANSION, _BESIDE = 8, 2**30
_BATCH = {"cpu": 4, "cuda": 16}


def batch_of(asked: int | None, device: torch.device) -> int:
    """(case, member) items per network call: as asked, or what suits the kind of device.

    Raises SciffusionError for none.
    """
    if asked is None:
        return _BATCH.get(device.type, 4)
    if asked < 1:
        raise SciffusionError(f"a batch size of {asked}", "give 1 or more, or leave it out")
    return asked


class Drawing(TypedDict, total=False):
    """How members are drawn; see `Emulator.sample`."""

    cases: Cases
    seed: int
    sampler: config.Sampler | str | None
    batch_size: int | None
    device: str | None
    precision: Precision
    compile: bool
    graphs: bool


class Emulator:
    """A trained chain of stages. Make one with `sciffusion.load` or `sciffusion.train`.

    ``card`` holds what a reader of the model wants to know: recipe, provenance, training cases, licence.
    """

    def __init__(self, stages: Sequence[Stage], card: Mapping[str, Any]) -> None:
        self.stages = list(stages)
        self.card = dict(card)
        self._hash = ""

    @property
    def stage(self) -> Stage:
        """The stage whose fields are the answer."""
        return self.stages[-1]

    def __repr__(self) -> str:
        codec = self.stage.codec
        size = " x ".join(f"{dim} {n}" for dim, n in zip(codec.grid.dims, codec.grid.shape, strict=True))
        chain = " -> ".join(f"{stage.name} ({stage.kind})" for stage in self.stages)
        return f"<sciffusion.Emulator {', '.join(codec.names)} on {size}: {chain}>"

    # --- on disk

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
        """Write ``model.json`` and ``weights.safetensors``; network weights are stored in ``dtype``."""
        description: dict[str, Any] = {"card": self.card, "stages": [], "output": self.stage.name}
        tensors: dict[str, torch.Tensor] = {}
        for stage in self.stages:
            entry, arrays = state_of(stage, dtype)
            description["stages"].append(entry)
            tensors.update({f"{stage.name}.{name}": value for name, value in arrays.items()})
        model_folder.write_model(Path(folder), description, tensors)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Emulator":
        """Read a model folder, or the run folder that contains one. Runs no code from it.

        Raises SciffusionError for a folder that is missing, incomplete, altered or of another version.
        """
        path = Path(folder)
        path = path / "emulator" if (path / "emulator" / "model.json").is_file() else path
        description, tensors = model_folder.read_model(path)
        stages: list[Stage] = []
        with AllocationLimit(_EXPANSION * sum(value.nbytes for value in tensors.values()) + _BESIDE, str(path)):
            for entry in description["stages"]:
                prefix = f"{entry['name']}."
                own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
                earlier = {stage.name: stage for stage in stages}
                stages.append(stage_from_state(entry, own, earlier))
        emulator = cls(stages, description["card"])
        emulator._hash = description["digest"]
        return emulator

    def identity(self) -> dict[str, Any]:
        """What an ensemble must agree on to be continued: the model, apart from seed and sampler."""
        return {"model": self._hash or self._state_hash(), "recipe": self.card.get("recipe", "")}

    def _state_hash(self) -> str:
        states = [state_of(stage) for stage in self.stages]
        digests = [f"{name}{value.float().sum().item():.9g}" for _, arrays in states for name, value in arrays.items()]
        return model_folder.digest({"stages": [entry for entry, _ in states], "tensors": digests})

    # --- conditions

    def check(self, conditions: Conditions, cases: Cases = None) -> Check:
        """Dry run: which data serve which condition, what is converted, missing, or outside the training range.

        Raises SciffusionError when sampling would be impossible.
        """
        return check_conditions(self.stages, conditions, cases)

    # --- sampling

    def sample(
        self, conditions: Conditions | Check, members: int | Sequence[int] = 8, **options: Unpack[Drawing]
    ) -> xr.Dataset:
        """Draw an ensemble into memory: a CF Dataset (member, *case dims, *grid).

        Parameters
        ----------
        conditions
            One Dataset that serves every condition, or a mapping by condition name.
        members
            How many, or their numbers: member 7 is the same whichever others are asked for.
        cases
            Labels or slices per case dim, as in ``Dataset.sel``, under its name in the conditions or in the training
            data; None takes all.
        seed
            Of the noise; 0.
        sampler
            Settings, or the name of a solver; None takes the emulator's own.
        batch_size
            (case, member) items per network call.
        device
            "cpu", "cuda", "cuda:1"; None takes a GPU where there is one.
        precision
            "auto": networks in bfloat16 where a GPU has units for it, otherwise in float32; "float32", "bfloat16";
            "fp8": bfloat16, but perceptrons of transformers in 8 bits, for GPUs that have units for it; see `compile`.
        compile
            Whether to compile the networks: a minute at the start, for long jobs. Without it fp8 gains nothing.
        graphs
            Whether to record their calls as CUDA graphs (yes).

        Raises
        ------
        SciffusionError
            For conditions that do not fit; see `check`.
        """
        check = self._checked(conditions, options)
        numbers = member_numbers(members)
        result = self.stage.blank({"member": member_coordinate(numbers), **case_coordinates(check)}, filled=True)
        for part in self.stream(check, numbers, **options):
            place = {dim: positions(result, part, dim) for dim in ("member", *case_dims(check))}
            for name in part.data_vars:
                result[name][place] = part[name].variable.transpose(*result[name].dims)
        flags = training_cases(check, self.card)
        settings = {"seed": options.get("seed", 0), "sampler": self.sampler(options.get("sampler"))}
        return result.assign_coords(flags).assign_attrs(self.attributes(**settings))

    def stream(
        self,
        conditions: Conditions | Check,
        members: int | Sequence[int] = 8,
        *,
        items: Sequence[tuple[int, int]] | None = None,
        **options: Unpack[Drawing],
    ) -> Iterator[xr.Dataset]:
        """Draw members one batch after the other; each Dataset holds complete members of one case.

        ``items`` restricts the work to (case number, member) pairs. Batches have a fixed size, the last one padded,
        so that a member's bytes do not depend on how many others are drawn.
        """
        waiting: Drawn | None = None
        for batch in self.draws(conditions, members, items=items, **options):
            if waiting is not None:  # a GPU draws this batch while the one before is decoded
                yield from waiting.datasets()
            waiting = batch
        if waiting is not None:
            yield from waiting.datasets()

    def draws(
        self,
        conditions: Conditions | Check,
        members: int | Sequence[int] = 8,
        *,
        items: Sequence[tuple[int, int]] | None = None,
        **options: Unpack[Drawing],
    ) -> Iterator[Drawn]:
        """As `stream`, but whole batches that are still to be decoded, by another thread for instance."""
        check = self._checked(conditions, options)
        place = self.ready(**options)
        size = batch_of(options.get("batch_size"), place)
        pairs = list(items) if items is not None else list(product(range(len(check.cases)), member_numbers(members)))

        def prepare(number: int) -> Prepared:
            return self.stage.prepare(check.conditions, check.cases[number])

        settings = self.sampler(options.get("sampler"))
        yield from draws(self.stage, prepare, pairs, size=size, seed=options.get("seed", 0), sampler=settings)

    def ready(self, **options: Unpack[Drawing]) -> torch.device:
        """Bring the networks into the form that ``options`` ask for; the device that they are on.

        Raises TypeError for an option that does not exist.
        """
        if unknown := options.keys() - Drawing.__annotations__:
            raise TypeError(
                f"no such option: {', '.join(sorted(unknown))}; there are {', '.join(Drawing.__annotations__)}"
            )
        place = resolve_device(options.get("device"))
        execution = Execution(
            options.get("precision", "auto"), compile=options.get("compile", False), graphs=options.get("graphs", True)
        )
        for stage in self.stages:
            stage.ready(place, execution)
        return place

    def precision(self, name: Precision, device: torch.device) -> str:
        """What ``name`` comes to for these networks on ``device``: float32, bfloat16, or fp8 where one runs in it."""
        return precision_name(name, device, [network for stage in self.stages for network in stage.reduced()])

    def _checked(self, conditions: Conditions | Check, options: Drawing) -> Check:
        return conditions if isinstance(conditions, Check) else self.check(conditions, options.get("cases"))

    def sampler(self, sampler: config.Sampler | str | None = None) -> config.Sampler:
        """The settings that a call with ``sampler`` uses."""
        own = getattr(getattr(self.stage, "settings", None), "sampler", config.Sampler())
        if isinstance(sampler, str):
            return own.model_copy(update={"solver": sampler})
        return sampler or own

    def template(self, conditions: Conditions | Check, cases: Cases = None) -> xr.Dataset:
        """The ensemble without its members: dims (*case dims, *grid), coordinates and attributes, no data in memory."""
        check = conditions if isinstance(conditions, Check) else self.check(conditions, cases)
        blank = self.stage.blank(case_coordinates(check), filled=False)
        return blank.assign_coords(training_cases(check, self.card)).assign_attrs(self.attributes())

    def attributes(self, **settings: Any) -> dict[str, Any]:
        """Global attributes of an ensemble: CF, provenance, and how independent its members are."""
        plain = {
            name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in settings.items()
        }
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {
            "Conventions": CONVENTIONS,
            "title": self.card.get("title") or f"Ensemble of {', '.join(self.stage.codec.names)}",
            "source": f"sciffusion {sciffusion.__version__}, recipe {self.card.get('recipe', 'unknown')}",
            "history": f"{now} sampled by sciffusion",
            "license": self.card.get("licence", ""),
            "time_coherence": INDEPENDENT,
            "sciffusion_model": self.identity()["model"],
            "sciffusion_grid": json.dumps(self.stage.codec.grid.to_json()),
            "sciffusion_settings": json.dumps(plain, sort_keys=True),
        }


def load(folder: str | Path) -> Emulator:
    """Load an emulator from a model or run folder; see `Emulator.load`."""
    return Emulator.load(folder)


def member_numbers(members: int | Sequence[int]) -> list[int]:
    """How many members, or which, as their numbers. Raises SciffusionError for none, a negative or a repeated one."""
    numbers = list(range(members)) if isinstance(members, int) else [int(member) for member in members]
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise SciffusionError(f"members {members!r}", "give a positive count, or different numbers from 0")
    return numbers
